/* The floor's PCnet, with 32-bit ports and descriptors (software style 2). After the Am79C970A datasheet (publication
 * 19436), "Initialization Block", "Receive Descriptors", "Transmit Descriptors", "Control and Status Registers". */
#include <string.h>

#include "floor.h"

enum { RDP = 0x10, RAP = 0x14, BDP = 0x1c };
enum { CSR0, CSR1, CSR2, CSR4 = 4, BCR20 = 20 };
enum { INIT = 1, START = 2, STOP = 4, DEMAND = 8 };
enum { PAD = 0x0800, PROMISCUOUS = 0x8000, STYLE = 2, RING_BITS = 8, FCS = 4, LENGTH = 0xfff };
#define OWN (1u << 31)
#define WHOLE (1u << 25 | 1u << 24) /* STP, ENP */

struct descriptor { uint32_t address, status, count, user; };
struct initialization {
    uint16_t mode;
    uint8_t rx_bits, tx_bits; /* in the upper half */
    uint8_t address[6];
    uint16_t reserved;
    uint8_t filter[8];
    uint32_t rx, tx;
};

static volatile struct descriptor *tx(struct floor *floor) { return (void *)(floor->memory + floor->place); }
static volatile struct descriptor *rx(struct floor *floor) { return (void *)(floor->memory + floor->place + 4096); }
static uint32_t negated(uint32_t length) { return -length & 0xffff; }
static uint32_t given(void) { return OWN | negated(BUFFER - 16); }

static bool csr(struct floor *floor, unsigned number, uint32_t value)
{
    return floor_write(floor, RAP, number) && floor_write(floor, RDP, value);
}

static bool open(struct floor *floor)
{
    uint32_t block = (uint32_t)rx_buffer(floor, RING);
    *(struct initialization *)(floor->memory + block) = (struct initialization){
        .mode = PROMISCUOUS, .rx_bits = RING_BITS << 4, .tx_bits = RING_BITS << 4,
        .rx = (uint32_t)floor->place + 4096, .tx = (uint32_t)floor->place};
    for (unsigned i = 0; i < RING; i++) {
        tx(floor)[i].address = (uint32_t)tx_buffer(floor, i);
        rx(floor)[i] = (struct descriptor){.address = (uint32_t)rx_buffer(floor, i), .status = given()};
    }
    uint32_t status;
    return floor_write(floor, RDP, 0) /* 32 bits wide: from here on the ports are, too */ &&
           csr(floor, CSR0, STOP) && floor_write(floor, RAP, BCR20) && floor_write(floor, BDP, STYLE) &&
           csr(floor, CSR1, block & 0xffff) && csr(floor, CSR2, block >> 16) && csr(floor, CSR4, PAD) &&
           csr(floor, CSR0, INIT) && csr(floor, CSR0, START) && registers_read(&floor->registers, RDP, &status);
}

static void close(struct floor *floor) { csr(floor, CSR0, STOP); }

static bool tx_done(struct floor *floor, unsigned slot) { return !(tx(floor)[slot].status & OWN); }

static void tx_put(struct floor *floor, unsigned slot, const char *frame, uint32_t size)
{
    memcpy(floor->memory + tx_buffer(floor, slot), frame, size);
    tx(floor)[slot].count = 0;
    tx(floor)[slot].status = OWN | WHOLE | negated(size);
}

/* RAP has CSR0 since it was opened. */
static bool tx_go(struct floor *floor, unsigned count)
{
    (void)count;
    return floor_write(floor, RDP, DEMAND);
}

static bool rx_done(struct floor *floor, unsigned slot) { return !(rx(floor)[slot].status & OWN); }

static const char *rx_take(struct floor *floor, unsigned slot, unsigned *length)
{
    *length = (rx(floor)[slot].count & LENGTH) - FCS;
    return floor->memory + rx_buffer(floor, slot);
}

static bool rx_give(struct floor *floor)
{
    for (unsigned i = floor->rx_taken; i; i--)
        rx(floor)[(floor->rx_next + RING - i) % RING].status = given();
    return true;
}

const struct card floor_pcnet = {open, close, tx_done, tx_put, tx_go, rx_done, rx_take, rx_give, RDP};
