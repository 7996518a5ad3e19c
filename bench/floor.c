/* The floor: an e1000's rings driven by the least code that can do it. No driver, no interrupts, no skbs, no locks.
 *
 * Registers and descriptors: Intel 8254x Software Developer's Manual (317453), 3.2, 3.3 and 13.4. The reply to a tail
 * write comes once QEMU has worked on the ring.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "registers.h"

#define RING 256u /* descriptors in each ring, Linux's number too */
#define BATCH 64u
#define BUFFER 2048u

enum {
    CTRL = 0x0000, IMC = 0x00d8, RCTL = 0x0100, TCTL = 0x0400, RDBAL = 0x2800, RDBAH = 0x2804, RDLEN = 0x2808,
    RDH = 0x2810, RDT = 0x2818, TDBAL = 0x3800, TDBAH = 0x3804, TDLEN = 0x3808, TDH = 0x3810, TDT = 0x3818,
};
#define CTRL_RST (1u << 26)
#define CTRL_SLU (1u << 6)
#define RCTL_ON (1u << 1 | 1u << 3 | 1u << 4 | 1u << 15 | 1u << 26) /* EN, UPE, MPE, BAM, SECRC; 2048-byte buffers */
#define TCTL_ON (1u << 1 | 1u << 3)                                 /* EN, PSP */
#define TX_COMMAND 0x0b                                             /* EOP, IFCS, RS */
#define DONE 1

struct tx_descriptor {
    uint64_t address;
    uint16_t length;
    uint8_t checksum_offset, command, status, checksum_start;
    uint16_t special;
};
struct rx_descriptor {
    uint64_t address;
    uint16_t length, checksum;
    uint8_t status, errors;
    uint16_t special;
};

struct floor {
    struct registers registers;
    char *memory;
    uint64_t place;
    volatile struct tx_descriptor *tx;
    volatile struct rx_descriptor *rx;
    unsigned tx_next, rx_next, rx_taken; /* taken from the card, and not yet given back */
};

static uint64_t buffer_of(struct floor *floor, unsigned number) { return floor->place + 8192 + number * BUFFER; }

static bool write_register(struct floor *floor, unsigned offset, uint32_t value)
{
    return registers_write(&floor->registers, offset, value) && registers_flush(&floor->registers);
}

struct floor *floor_open(int fd, char *memory, uint64_t place, uint64_t bar)
{
    struct floor *floor = calloc(1, sizeof *floor);
    if (!floor)
        return NULL;
    *floor = (struct floor){.registers = {.fd = fd, .bar = bar}, .memory = memory, .place = place};
    floor->tx = (void *)(memory + place);
    floor->rx = (void *)(memory + place + 4096);
    memset(memory + place, 0, 8192);
    for (unsigned i = 0; i < RING; i++) {
        floor->tx[i].address = buffer_of(floor, i);
        floor->tx[i].status = DONE;
        floor->rx[i].address = buffer_of(floor, RING + i);
    }
    const struct { unsigned offset; uint32_t value; } steps[] = {
        {CTRL, CTRL_RST},     {IMC, ~0u},      {CTRL, CTRL_SLU},
        {TDBAL, (uint32_t)place},  {TDBAH, 0}, {TDLEN, RING * sizeof *floor->tx}, {TDH, 0}, {TDT, 0},
        {RDBAL, (uint32_t)place + 4096}, {RDBAH, 0}, {RDLEN, RING * sizeof *floor->rx}, {RDH, 0}, {RDT, RING - 1},
        {TCTL, TCTL_ON},      {RCTL, RCTL_ON},
    };
    bool there = true;
    for (unsigned i = 0; there && i < sizeof steps / sizeof *steps; i++)
        there = write_register(floor, steps[i].offset, steps[i].value);
    if (there && registers_settle(&floor->registers))
        return floor;
    free(floor);
    return NULL;
}

void floor_close(struct floor *floor)
{
    write_register(floor, RCTL, 0);
    write_register(floor, TCTL, 0);
    registers_settle(&floor->registers);
    free(floor);
}

uint64_t floor_accesses(struct floor *floor) { return floor->registers.writes; }

/* Until the descriptor has been worked off: by looking, then by sleeping until QEMU replies to a tail write. */
static int wait_done(struct floor *floor, unsigned number, uint64_t spin_ns)
{
    uint64_t end = bench_now() + spin_ns;
    while (!(floor->tx[number].status & DONE))
        if ((!spin_ns || bench_now() > end) && !registers_replies(&floor->registers, true))
            return 0;
    return 1;
}

uint64_t floor_transmit(struct floor *floor, const char *frame, uint32_t size, uint64_t count, uint64_t window,
                        struct wire_credit *credit, uint64_t spin_ns, uint64_t silence_ns)
{
    uint64_t sent = 0;
    while (sent < count) {
        unsigned batch = count - sent < BATCH ? (unsigned)(count - sent) : BATCH;
        if (sent + batch > window && !wire_wait(credit, sent + batch - window, silence_ns))
            break;
        /* The last of the batch done, all before it are; the ring is never quite full. */
        if (!wait_done(floor, (floor->tx_next + batch) % RING, spin_ns))
            break;
        for (unsigned i = 0; i < batch; i++) {
            unsigned number = (floor->tx_next + i) % RING;
            memcpy(floor->memory + buffer_of(floor, number), frame, size);
            floor->tx[number].length = (uint16_t)size;
            floor->tx[number].command = TX_COMMAND;
            floor->tx[number].status = 0;
        }
        floor->tx_next = (floor->tx_next + batch) % RING;
        if (!write_register(floor, TDT, floor->tx_next))
            break;
        sent += batch;
    }
    return registers_settle(&floor->registers) ? sent : 0;
}

uint64_t floor_receive(struct floor *floor, uint64_t count, struct wire_credit *credit, uint64_t silence_ns)
{
    char frame[BUFFER];
    uint64_t got = 0, heard = bench_now();
    while (got < count) {
        unsigned batch = 0;
        for (; batch < BATCH && floor->rx[floor->rx_next].status & DONE; batch++) {
            memcpy(frame, floor->memory + buffer_of(floor, RING + floor->rx_next), floor->rx[floor->rx_next].length);
            __asm__ volatile("" : : "r"(frame) : "memory"); /* the copy is the use that is made of the frame */
            floor->rx[floor->rx_next].status = 0;
            floor->rx_next = (floor->rx_next + 1) % RING;
        }
        if (batch) {
            floor->rx_taken += batch;
            if (floor->rx_taken >= BATCH) {
                floor->rx_taken = 0;
                if (!write_register(floor, RDT, (floor->rx_next + RING - 1) % RING))
                    break;
            }
            got += batch;
            wire_credit(credit, batch);
            heard = bench_now();
        } else if (bench_now() - heard > silence_ns) {
            break;
        } else {
            sched_yield(); /* QEMU may share our core */
        }
    }
    return registers_settle(&floor->registers) ? got : 0;
}
