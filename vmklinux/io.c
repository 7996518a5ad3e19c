/* MMIO by function: ioread*, iowrite* and their repeating forms (Linux lib/iomap.c). */
#include <string.h>

#include "vmklinux/linux.h"

#define READ(name, size)                                                                                            \
    static uint64_t name(uint64_t at) { return vmk_io_read(at, size); }
#define WRITE(name, size)                                                                                           \
    static void name(uint64_t value, uint64_t at) { vmk_io_write(at, size, value); }
#define READ_REP(name, size)                                                                                        \
    static void name(uint64_t at, char *to, uint64_t count)                                                         \
    {                                                                                                               \
        for (; count--; to += size) {                                                                               \
            uint64_t value = vmk_io_read(at, size);                                                                 \
            memcpy(to, &value, size);                                                                               \
        }                                                                                                           \
    }
#define WRITE_REP(name, size)                                                                                       \
    static void name(uint64_t at, const char *from, uint64_t count)                                                 \
    {                                                                                                               \
        for (; count--; from += size) {                                                                             \
            uint64_t value = 0;                                                                                     \
            memcpy(&value, from, size);                                                                             \
            vmk_io_write(at, size, value);                                                                          \
        }                                                                                                           \
    }
READ(ioread8, 1) READ(ioread16, 2) READ(ioread32, 4)
WRITE(iowrite8, 1) WRITE(iowrite16, 2) WRITE(iowrite32, 4)
READ_REP(ioread8_rep, 1) READ_REP(ioread16_rep, 2) READ_REP(ioread32_rep, 4)
WRITE_REP(iowrite8_rep, 1) WRITE_REP(iowrite16_rep, 2) WRITE_REP(iowrite32_rep, 4)

#define MEMORY_ONLY "Port numbers from pci_iomap are not served yet; MMIO is."

const struct linux_api io_api[] = {
    API(ioread8, "partial", "Reads a register.", MEMORY_ONLY),
    API(ioread16, "partial", "Reads a register.", MEMORY_ONLY),
    API(ioread32, "partial", "Reads a register.", MEMORY_ONLY),
    API(iowrite8, "partial", "Writes a register.", MEMORY_ONLY),
    API(iowrite16, "partial", "Writes a register.", MEMORY_ONLY),
    API(iowrite32, "partial", "Writes a register.", MEMORY_ONLY),
    API(ioread8_rep, "partial", "Reads a register again and again into memory.", MEMORY_ONLY),
    API(ioread16_rep, "partial", "Reads a register again and again into memory.", MEMORY_ONLY),
    API(ioread32_rep, "partial", "Reads a register again and again into memory.", MEMORY_ONLY),
    API(iowrite8_rep, "partial", "Writes memory into one register.", MEMORY_ONLY),
    API(iowrite16_rep, "partial", "Writes memory into one register.", MEMORY_ONLY),
    API(iowrite32_rep, "partial", "Writes memory into one register.", MEMORY_ONLY),
    API_END,
};
