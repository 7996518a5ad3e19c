/* The floor under storage: a controller driven with prepared frames, by the least code that can do it. No driver, no
 * interrupts, no locks. What is particular to a controller is in disk_*.c. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "disk.h"

/* By the numbers of enum disk_kind. */
static const struct controller *const controllers[] = {&disk_megasas, &disk_mptsas, &disk_pvscsi};

void disk_cdb(uint8_t *cdb, bool write, uint32_t size)
{
    memset(cdb, 0, 16);
    cdb[0] = write ? 0x2a : 0x28;
    cdb[7] = (uint8_t)(size / BLOCK >> 8);
    cdb[8] = (uint8_t)(size / BLOCK);
}

void disk_cdb_lba(uint8_t *cdb, uint32_t lba)
{
    for (unsigned i = 0; i < 4; i++)
        cdb[2 + i] = (uint8_t)(lba >> (24 - 8 * i));
}

struct disk *disk_open(int kind, int fd, char *memory, uint64_t place, uint64_t bar)
{
    struct disk *disk = calloc(1, sizeof *disk);
    if (!disk)
        return NULL;
    *disk = (struct disk){
        .registers = {.fd = fd, .bar = bar}, .controller = controllers[kind], .memory = memory, .place = place};
    memset(memory + place, 0, PLACE_SIZE);
    if (disk->controller->open(disk) && registers_settle(&disk->registers)) {
        disk_run(disk, 1, BLOCK, 0, 1, 1, 10000000000ull); /* a disk that was reset answers the first with that */
        return disk;
    }
    free(disk);
    return NULL;
}

void disk_close(struct disk *disk)
{
    disk->controller->close(disk);
    registers_settle(&disk->registers);
    free(disk);
}

uint64_t disk_reads(struct disk *disk) { return disk->registers.reads; }
uint64_t disk_writes(struct disk *disk) { return disk->registers.writes; }

uint64_t disk_run(struct disk *disk, uint32_t depth, uint32_t size, int write, uint64_t count, uint32_t blocks,
                  uint64_t silence_ns)
{
    uint8_t slots[DEPTH_MOST];
    uint64_t begun = 0, ended = 0, heard = bench_now();
    unsigned free_slots = depth < DEPTH_MOST ? depth : DEPTH_MOST;
    disk->failed = 0;
    for (unsigned slot = 0; slot < free_slots; slot++) {
        slots[slot] = (uint8_t)slot;
        disk->controller->prepare(disk, slot, write, disk->place + PLACE_SIZE + (uint64_t)slot * size, size);
    }
    while (ended < count) {
        bool some = false;
        for (unsigned i = 0; i < free_slots && begun < count; i++, some = true)
            if (!disk->controller->post(disk, slots[i], (uint32_t)(begun++ * (size / BLOCK) % blocks)))
                return 0;
        if (some && !(disk->controller->kick(disk) && registers_flush(&disk->registers)))
            return 0;
        if (!disk->controller->reap(disk, slots, &free_slots))
            return 0;
        ended += free_slots;
        if (free_slots)
            heard = bench_now();
        else if (bench_now() - heard > silence_ns)
            return 0;
        else
            sched_yield(); /* QEMU may share our core */
    }
    return registers_settle(&disk->registers) ? ended - disk->failed : 0;
}
