/* What the benchmark's C side offers to Python; everything between the two CDEF marks is read by cffi. */
#ifndef BENCH_H
#define BENCH_H
#include <stdint.h>

/* ---- CDEF ---- */

/* wire.c. Times in ns. A side that hears nothing for silence_ns gives up. */
/* What has arrived at the receiving end, so that the sending end need not let anything be dropped. */
struct wire_credit { uint64_t received; uint32_t sequence, waiting; };
/* Tells the sending end that so many more frames have arrived. */
void wire_credit(struct wire_credit *credit, uint64_t frames);
/* Waits until so many frames have arrived in all. Whether they did. */
int wire_wait(struct wire_credit *credit, uint64_t frames, uint64_t silence_ns);
/* Takes `count` frames from the socket without looking at them; how many came. */
uint64_t wire_sink(int fd, uint64_t count, struct wire_credit *credit, uint64_t silence_ns);
/* Sends the same frame `count` times with at most `window` of them under way; how many were sent. */
uint64_t wire_source(int fd, const char *frame, uint32_t size, uint64_t count, uint64_t window,
                     struct wire_credit *credit, uint64_t silence_ns);

/* floor.c. */
struct floor;
enum floor_kind { FLOOR_E1000, FLOOR_I8255X, FLOOR_PCNET };
/* The card whose registers are at `bar`, over a qtest socket with no reply under way, with its rings and buffers from
 * `place` on in the machine memory mapped at `memory`. Resets it. NULL: no memory, or it has gone. */
struct floor *floor_open(int kind, int fd, char *memory, uint64_t place, uint64_t bar);
void floor_close(struct floor *floor);
/* Sends `count` frames in batches of 64 with at most `window` under way; how many it were. spin_ns: how long to look
 * at a descriptor before sleeping. */
uint64_t floor_transmit(struct floor *floor, const char *frame, uint32_t size, uint64_t count, uint64_t window,
                        struct wire_credit *credit, uint64_t spin_ns, uint64_t silence_ns);
/* Receives `count` frames, and gives their descriptors back in batches of 64; how many it were. */
uint64_t floor_receive(struct floor *floor, uint64_t count, struct wire_credit *credit, uint64_t silence_ns);
/* Registers read and written since it was opened. */
uint64_t floor_reads(struct floor *floor);
uint64_t floor_writes(struct floor *floor);

/* disk.c. */
struct disk;
enum disk_kind { DISK_MEGASAS, DISK_MPTSAS, DISK_PVSCSI };
/* The controller whose registers are at `bar`, over a qtest socket with no reply under way, with its frames and buffers
 * from `place` on in the machine memory mapped at `memory`. Resets it. NULL: no memory, or it has gone. */
struct disk *disk_open(int kind, int fd, char *memory, uint64_t place, uint64_t bar);
void disk_close(struct disk *disk);
/* Reads or writes `count` times `size` bytes with `depth` (up to 64) commands in flight, one after the other within the
 * first `blocks` blocks, multiples of what one takes. How many did well; 0 when it hears nothing for silence_ns. */
uint64_t disk_run(struct disk *disk, uint32_t depth, uint32_t size, int write, uint64_t count, uint32_t blocks,
                  uint64_t silence_ns);
/* Registers read and written since it was opened. */
uint64_t disk_reads(struct disk *disk);
uint64_t disk_writes(struct disk *disk);

/* ---- END CDEF ---- */

uint64_t bench_now(void);
#endif
