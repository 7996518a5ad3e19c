/* Registers of a card over QEMU's qtest socket, for the floors. */
#ifndef BENCH_REGISTERS_H
#define BENCH_REGISTERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* fd and bar are the opener's; no reply may be under way on the socket then. reads, writes: so far. */
struct registers {
    int fd;
    uint64_t bar, reads, writes, unread;
    uint32_t value;
    size_t length, have;
    char text[4096], reply[4096];
};

/* Takes in replies; waits for the first when told to. Whether QEMU is still there. So of all of these. */
bool registers_replies(struct registers *to, bool wait);
/* A write goes with the next flush; a read flushes, and returns with the answer. */
bool registers_write(struct registers *to, unsigned offset, uint32_t value);
bool registers_write16(struct registers *to, unsigned offset, uint32_t value);
bool registers_flush(struct registers *to);
bool registers_read(struct registers *to, unsigned offset, uint32_t *value);
/* Flushes and waits until QEMU has replied to everything. */
bool registers_settle(struct registers *to);
#endif
