/* The floor: a card's rings driven by the least code that can do it. No driver, no interrupts, no skbs, no locks. What is
 * particular to a card is in floor_*.c. The reply to a doorbell comes once QEMU has worked on the ring. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "floor.h"

/* By the numbers of enum floor_kind. */
static const struct card *const cards[] = {&floor_e1000, &floor_i8255x, &floor_pcnet};

struct floor *floor_open(int kind, int fd, char *memory, uint64_t place, uint64_t bar)
{
    struct floor *floor = calloc(1, sizeof *floor);
    if (!floor)
        return NULL;
    *floor = (struct floor){
        .registers = {.fd = fd, .bar = bar}, .card = cards[kind], .memory = memory, .place = place};
    memset(memory + place, 0, 8192);
    if (floor->card->open(floor) && registers_settle(&floor->registers))
        return floor;
    free(floor);
    return NULL;
}

void floor_close(struct floor *floor)
{
    floor->card->close(floor);
    registers_settle(&floor->registers);
    free(floor);
}

uint64_t floor_reads(struct floor *floor) { return floor->registers.reads; }
uint64_t floor_writes(struct floor *floor) { return floor->registers.writes; }

/* Until the slot has been worked off: by looking, then by sleeping until QEMU replies to a doorbell. */
static bool wait_done(struct floor *floor, unsigned slot, uint64_t spin_ns)
{
    uint64_t end = bench_now() + spin_ns;
    while (!floor->card->tx_done(floor, slot))
        if ((!spin_ns || bench_now() > end) && !registers_replies(&floor->registers, true))
            return false;
    return true;
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
        for (unsigned i = 0; i < batch; i++)
            floor->card->tx_put(floor, (floor->tx_next + i) % RING, frame, size);
        if (!floor->card->tx_go(floor, batch))
            break;
        floor->tx_next = (floor->tx_next + batch) % RING;
        sent += batch;
    }
    return registers_settle(&floor->registers) ? sent : 0;
}

uint64_t floor_receive(struct floor *floor, uint64_t count, struct wire_credit *credit, uint64_t silence_ns)
{
    char frame[BUFFER];
    uint64_t got = 0, heard = bench_now();
    while (got < count) {
        unsigned ready = 0, length;
        uint32_t value;
        while (ready < BATCH && floor->card->rx_done(floor, (floor->rx_next + ready) % RING))
            ready++;
        if (!ready) {
            if (bench_now() - heard > silence_ns)
                break;
            sched_yield(); /* QEMU may share our core */
            continue;
        }
        if (floor->card->answers != NONE && !registers_read(&floor->registers, (unsigned)floor->card->answers, &value))
            break;
        for (unsigned i = 0; i < ready; i++) {
            const char *buffer = floor->card->rx_take(floor, floor->rx_next, &length);
            memcpy(frame, buffer, length < BUFFER ? length : BUFFER);
            __asm__ volatile("" : : "r"(frame) : "memory"); /* the copy is the use that is made of the frame */
            floor->rx_next = (floor->rx_next + 1) % RING;
        }
        floor->rx_taken += ready;
        if (floor->rx_taken >= BATCH) {
            if (!floor->card->rx_give(floor))
                break;
            floor->rx_taken = 0;
        }
        got += ready;
        wire_credit(credit, ready);
        heard = bench_now();
    }
    return registers_settle(&floor->registers) ? got : 0;
}
