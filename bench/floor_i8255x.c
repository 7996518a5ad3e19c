/* The floor's 8255x: command blocks and receive frame descriptors, each with its frame behind it. After Intel's "8255x
 * 10/100 Mbps Ethernet Controller Family Open Source Software Developer Manual" (revision 1.3), 6.3 and 6.4. */
#include <string.h>

#include "floor.h"

enum { SCB_STATUS = 0, SCB_COMMAND = 2, SCB_POINTER = 4, PORT = 8 };
enum { CUC_START = 0x10, CUC_RESUME = 0x20, CUC_LOAD_BASE = 0x60, RUC_START = 1, RUC_LOAD_BASE = 6, MASKED = 0x100 };
enum { TRANSMIT = 4, WHOLE = 0x8000, THRESHOLD = 0xe0 }; /* EOF; it begins when all of the frame is there */
enum { DONE = 0x8000, STOP = 0x4000, END = 0x8000 }; /* of status: C; of command: S, EL */
enum { COUNT = 0x3fff };
/* QEMU's command unit goes no further than so many blocks for one command. */
#define STRETCH 16

struct block {
    uint16_t status, command;
    uint32_t link, array;
    uint16_t count, room; /* of a block out: room is threshold and number of buffers */
    char frame[];
};

static volatile struct block *out(struct floor *floor, unsigned slot)
{
    return (void *)(floor->memory + tx_buffer(floor, slot));
}
static volatile struct block *in(struct floor *floor, unsigned slot)
{
    return (void *)(floor->memory + rx_buffer(floor, slot));
}

static bool command(struct floor *floor, uint32_t code, uint64_t pointer)
{
    return registers_write(&floor->registers, SCB_POINTER, (uint32_t)pointer) &&
           registers_write16(&floor->registers, SCB_COMMAND, MASKED | code);
}

static bool open(struct floor *floor)
{
    for (unsigned i = 0; i < RING; i++) {
        *out(floor, i) = (struct block){
            .status = DONE, .link = (uint32_t)tx_buffer(floor, (i + 1) % RING), .array = ~0u};
        *in(floor, i) = (struct block){.link = (uint32_t)rx_buffer(floor, (i + 1) % RING), .array = ~0u,
                                       .command = i == RING - 1 ? END : 0, .room = BUFFER - sizeof(struct block)};
    }
    return floor_write(floor, PORT, 0) && command(floor, CUC_LOAD_BASE, 0) && command(floor, RUC_LOAD_BASE, 0) &&
           command(floor, RUC_START, rx_buffer(floor, 0));
}

static void close(struct floor *floor) { floor_write(floor, PORT, 0); }

static bool tx_done(struct floor *floor, unsigned slot) { return out(floor, slot)->status & DONE; }

static void tx_put(struct floor *floor, unsigned slot, const char *frame, uint32_t size)
{
    volatile struct block *block = out(floor, slot);
    memcpy((char *)block->frame, frame, size);
    block->count = (uint16_t)size | WHOLE;
    block->room = THRESHOLD;
    block->status = 0;
    block->command = TRANSMIT;
}

static bool tx_go(struct floor *floor, unsigned count)
{
    /* It has to have come to the end before that is moved on: a resume that it sees later takes it behind the new one. */
    if (!registers_settle(&floor->registers))
        return false;
    out(floor, (floor->tx_next + count - 1) % RING)->command |= STOP;
    out(floor, (floor->tx_next + RING - 1) % RING)->command &= (uint16_t)~STOP;
    for (unsigned done = 0; done < count; done += STRETCH) {
        bool there = floor->started ? registers_write16(&floor->registers, SCB_COMMAND, MASKED | CUC_RESUME)
                                    : command(floor, CUC_START, tx_buffer(floor, floor->tx_next));
        if (!there)
            return false;
        floor->started = true;
    }
    return registers_flush(&floor->registers);
}

static bool rx_done(struct floor *floor, unsigned slot) { return in(floor, slot)->status & DONE; }

static const char *rx_take(struct floor *floor, unsigned slot, unsigned *length)
{
    volatile struct block *block = in(floor, slot);
    *length = block->count & COUNT;
    block->status = 0;
    return (char *)block->frame;
}

static bool rx_give(struct floor *floor)
{
    in(floor, (floor->rx_next + RING - 1) % RING)->command = END;
    in(floor, (floor->rx_next + RING - 1 - floor->rx_taken) % RING)->command = 0;
    return true;
}

const struct card floor_i8255x = {open, close, tx_done, tx_put, tx_go, rx_done, rx_take, rx_give, SCB_STATUS};
