/* The floor's e1000. Registers and descriptors: Intel 8254x Software Developer's Manual (317453), 3.2, 3.3 and 13.4. */
#include <string.h>

#include "floor.h"

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

static volatile struct tx_descriptor *tx(struct floor *floor) { return (void *)(floor->memory + floor->place); }
static volatile struct rx_descriptor *rx(struct floor *floor) { return (void *)(floor->memory + floor->place + 4096); }

static bool open(struct floor *floor)
{
    uint32_t place = (uint32_t)floor->place;
    for (unsigned i = 0; i < RING; i++) {
        tx(floor)[i].address = tx_buffer(floor, i);
        tx(floor)[i].status = DONE;
        rx(floor)[i].address = rx_buffer(floor, i);
    }
    const struct { unsigned offset; uint32_t value; } steps[] = {
        {CTRL, CTRL_RST}, {IMC, ~0u}, {CTRL, CTRL_SLU},
        {TDBAL, place}, {TDBAH, 0}, {TDLEN, RING * sizeof(struct tx_descriptor)}, {TDH, 0}, {TDT, 0},
        {RDBAL, place + 4096}, {RDBAH, 0}, {RDLEN, RING * sizeof(struct rx_descriptor)}, {RDH, 0}, {RDT, RING - 1},
        {TCTL, TCTL_ON}, {RCTL, RCTL_ON},
    };
    bool there = true;
    for (unsigned i = 0; there && i < sizeof steps / sizeof *steps; i++)
        there = floor_write(floor, steps[i].offset, steps[i].value);
    return there;
}

static void close(struct floor *floor)
{
    floor_write(floor, RCTL, 0);
    floor_write(floor, TCTL, 0);
}

static bool tx_done(struct floor *floor, unsigned slot) { return tx(floor)[slot].status & DONE; }

static void tx_put(struct floor *floor, unsigned slot, const char *frame, uint32_t size)
{
    memcpy(floor->memory + tx_buffer(floor, slot), frame, size);
    tx(floor)[slot].length = (uint16_t)size;
    tx(floor)[slot].command = TX_COMMAND;
    tx(floor)[slot].status = 0;
}

static bool tx_go(struct floor *floor, unsigned count)
{
    return floor_write(floor, TDT, (floor->tx_next + count) % RING);
}

static bool rx_done(struct floor *floor, unsigned slot) { return rx(floor)[slot].status & DONE; }

static const char *rx_take(struct floor *floor, unsigned slot, unsigned *length)
{
    *length = rx(floor)[slot].length;
    rx(floor)[slot].status = 0;
    return floor->memory + rx_buffer(floor, slot);
}

static bool rx_give(struct floor *floor) { return floor_write(floor, RDT, (floor->rx_next + RING - 1) % RING); }

const struct card floor_e1000 = {open, close, tx_done, tx_put, tx_go, rx_done, rx_take, rx_give, NONE};
