/* The floor under network cards: what the cards' files (floor_*.c) do for floor.c. */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H
#include "registers.h"

#define RING 256u /* descriptors in each ring, Linux's number too */
#define BATCH 64u
#define NONE -1
#define BUFFER 2048u /* of these, with whatever the card wants in front of the frame */

/* A card and its rings, in the machine memory from `place` on: 8192 bytes for what the card's file wants, then a buffer for
 * each slot of the ring out, and of the ring in. */
struct floor {
    struct registers registers;
    const struct card *card;
    char *memory;
    uint64_t place;
    unsigned tx_next, rx_next;
    unsigned rx_taken; /* slots before rx_next that are not yet given back */
    bool started;      /* 8255x: the command unit has been told where its ring is */
};

/* What a floor.c asks of a card; bool: whether QEMU is still there. */
struct card {
    bool (*open)(struct floor *floor);
    void (*close)(struct floor *floor);
    bool (*tx_done)(struct floor *floor, unsigned slot);
    void (*tx_put)(struct floor *floor, unsigned slot, const char *frame, uint32_t size);
    /* `count` slots from tx_next on have frames: off they go. */
    bool (*tx_go)(struct floor *floor, unsigned count);
    bool (*rx_done)(struct floor *floor, unsigned slot);
    /* The frame; its length, without FCS. */
    const char *(*rx_take)(struct floor *floor, unsigned slot, unsigned *length);
    /* Gives the rx_taken slots back. */
    bool (*rx_give)(struct floor *floor);
    /* QEMU's card says that a frame is there before it writes the rest. What it began before it answers a read of this
     * register is done. NONE: it does not. */
    int answers;
};
extern const struct card floor_e1000, floor_i8255x, floor_pcnet;

/* In machine addresses. */
static inline uint64_t tx_buffer(struct floor *floor, unsigned slot)
{
    return floor->place + 8192 + (uint64_t)slot * BUFFER;
}
static inline uint64_t rx_buffer(struct floor *floor, unsigned slot) { return tx_buffer(floor, RING + slot); }

/* A write that goes at once. */
static inline bool floor_write(struct floor *floor, unsigned offset, uint32_t value)
{
    return registers_write(&floor->registers, offset, value) && registers_flush(&floor->registers);
}
#endif
