/* Registers by function: ioread*, iowrite* and their repeating forms (Linux lib/iomap.c), of windows and of ports. */
#include <string.h>

#include "vmklinux/linux.h"

/* What pci_iomap and ioport_map give for a port (lib/iomap.c): no window and no memory lies there. */
#define PIO_OFFSET 0x10000ull
#define PIO_END 0x20000ull

static uint64_t in(uint64_t at, unsigned size)
{
    return at - PIO_OFFSET < PIO_END - PIO_OFFSET ? vmk_port_read((uint16_t)at, size) : vmk_io_read(at, size);
}

static void out(uint64_t at, unsigned size, uint64_t value)
{
    if (at - PIO_OFFSET < PIO_END - PIO_OFFSET)
        vmk_port_write((uint16_t)at, size, value);
    else
        vmk_io_write(at, size, value);
}

#define READ(name, size)                                                                                            \
    static uint64_t name(uint64_t at) { return in(at, size); }
#define WRITE(name, size)                                                                                           \
    static void name(uint64_t value, uint64_t at) { out(at, size, value); }
#define READ_REP(name, size)                                                                                        \
    static void name(uint64_t at, char *to, uint64_t count)                                                         \
    {                                                                                                               \
        for (; count--; to += size) {                                                                               \
            uint64_t value = in(at, size);                                                                 \
            memcpy(to, &value, size);                                                                               \
        }                                                                                                           \
    }
#define WRITE_REP(name, size)                                                                                       \
    static void name(uint64_t at, const char *from, uint64_t count)                                                 \
    {                                                                                                               \
        for (; count--; from += size) {                                                                             \
            uint64_t value = 0;                                                                                     \
            memcpy(&value, from, size);                                                                             \
            out(at, size, value);                                                                                   \
        }                                                                                                           \
    }
READ(ioread8, 1) READ(ioread16, 2) READ(ioread32, 4)
WRITE(iowrite8, 1) WRITE(iowrite16, 2) WRITE(iowrite32, 4)
READ_REP(ioread8_rep, 1) READ_REP(ioread16_rep, 2) READ_REP(ioread32_rep, 4)
WRITE_REP(iowrite8_rep, 1) WRITE_REP(iowrite16_rep, 2) WRITE_REP(iowrite32_rep, 4)

static uint64_t ioread16be(uint64_t at) { return __builtin_bswap16((uint16_t)in(at, 2)); }
static uint64_t ioread32be(uint64_t at) { return __builtin_bswap32((uint32_t)in(at, 4)); }
static void iowrite16be(uint64_t value, uint64_t at) { out(at, 2, __builtin_bswap16((uint16_t)value)); }
static void iowrite32be(uint64_t value, uint64_t at) { out(at, 4, __builtin_bswap32((uint32_t)value)); }
static uint64_t ioport_map(uint64_t port) { return port < PIO_END - PIO_OFFSET ? port + PIO_OFFSET : 0; }
static void ioport_unmap(void) {}

/* Registers are read and written by naturally aligned 4 bytes as far as possible, as x86's own does. */
static unsigned piece(uint64_t at, uint64_t left)
{
    return at & 1 || left < 2 ? 1 : at & 2 || left < 4 ? 2 : 4;
}

static void memcpy_fromio(char *to, uint64_t at, uint64_t left)
{
    for (unsigned size; left; at += size, to += size, left -= size) {
        size = piece(at, left);
        uint64_t value = in(at, size);
        memcpy(to, &value, size);
    }
}

static void memcpy_toio(uint64_t at, const char *from, uint64_t left)
{
    for (unsigned size; left; at += size, from += size, left -= size) {
        uint64_t value = 0;
        size = piece(at, left);
        memcpy(&value, from, size);
        out(at, size, value);
    }
}

static void __iowrite32_copy(uint64_t at, const char *from, uint64_t count)
{
    for (; count--; at += 4, from += 4) {
        uint64_t value = 0;
        memcpy(&value, from, 4);
        out(at, 4, value);
    }
}

static void memset_io(uint64_t at, int byte, uint64_t left)
{
    for (unsigned size; left; at += size, left -= size) {
        size = piece(at, left);
        out(at, size, (byte & 0xff) * 0x01010101ull & ((1ull << 8 * size) - 1));
    }
}

const struct linux_api io_api[] = {
    API(ioread8, "done", "Reads a register.", NULL),
    API(ioread16, "done", "Reads a register.", NULL),
    API(ioread32, "done", "Reads a register.", NULL),
    API(iowrite8, "done", "Writes a register.", NULL),
    API(iowrite16, "done", "Writes a register.", NULL),
    API(iowrite32, "done", "Writes a register.", NULL),
    API(ioread8_rep, "done", "Reads a register again and again into memory.", NULL),
    API(ioread16_rep, "done", "Reads a register again and again into memory.", NULL),
    API(ioread32_rep, "done", "Reads a register again and again into memory.", NULL),
    API(iowrite8_rep, "done", "Writes memory into one register.", NULL),
    API(iowrite16_rep, "done", "Writes memory into one register.", NULL),
    API(iowrite32_rep, "done", "Writes memory into one register.", NULL),
    API(ioread16be, "done", "Reads a big-endian register.", NULL),
    API(ioread32be, "done", "Reads a big-endian register.", NULL),
    API(iowrite16be, "done", "Writes a big-endian register.", NULL),
    API(iowrite32be, "done", "Writes a big-endian register.", NULL),
    API(memcpy_fromio, "done", "Copies registers into memory.", NULL),
    API(memcpy_toio, "done", "Copies memory into registers.", NULL),
    API(__iowrite32_copy, "done", "Copies words of 4 bytes into registers.", NULL),
    API(memset_io, "done", "Fills registers with a byte.", NULL),
    API(ioport_map, "done", "Gives what ioread and iowrite take for a port.", NULL),
    API(ioport_unmap, "no-op", "Ends ioport_map.", "Nothing is reserved for a port."),
    API_END,
};
