/* The floor under storage: what the controllers' files (disk_*.c) do for disk.c. */
#ifndef BENCH_DISK_H
#define BENCH_DISK_H
#include "registers.h"

#define DEPTH_MOST 64u /* commands in flight */
#define BLOCK 512u

/* A controller with one disk, at target 0, and its commands: each has a slot, whose frame is prepared once. */
struct disk {
    struct registers registers;
    const struct controller *controller;
    char *memory;      /* the machine's, by its offsets */
    uint64_t place;    /* PLACE_SIZE bytes for rings and frames */
    uint32_t next, entries; /* of the queue in which commands come back: the entry to look at, and how many it has */
    uint32_t posted;   /* pvscsi: commands in the request ring so far */
    uint64_t failed;
};
#define PLACE_SIZE 65536u

/* What a disk.c asks of a controller; bool: whether QEMU is still there. */
struct controller {
    bool (*open)(struct disk *disk);
    /* Prepares the frame of a slot for commands that move `size` bytes at `data`, an offset into the memory. */
    void (*prepare)(struct disk *disk, unsigned slot, bool write, uint64_t data, uint32_t size);
    /* Begins a command at a block; it need not go before `kick`. */
    bool (*post)(struct disk *disk, unsigned slot, uint32_t lba);
    bool (*kick)(struct disk *disk);
    /* Puts the slots of commands that came back into `slots`, and how many it were into `count`; notes those that failed. */
    bool (*reap)(struct disk *disk, uint8_t *slots, unsigned *count);
    void (*close)(struct disk *disk);
};
extern const struct controller disk_megasas, disk_mptsas, disk_pvscsi;

/* READ(10) or WRITE(10) of `size` bytes, the block to be filled in by disk_cdb_lba (SBC-3, 5.10 and 5.31). */
void disk_cdb(uint8_t *cdb, bool write, uint32_t size);
void disk_cdb_lba(uint8_t *cdb, uint32_t lba);
#endif
