/* The floor's PVSCSI: the request and the completion ring. Registers and descriptors as Linux's drivers/scsi/vmw_pvscsi.h
 * names them. */
#include <string.h>

#include "disk.h"

enum { COMMAND = 0, COMMAND_DATA = 4, INTERRUPT_MASK = 0x2010, KICK_RW_IO = 0x4018 };
enum { ADAPTER_RESET = 1, SETUP_RINGS = 3 };
enum { FROM_DEVICE = 8, TO_DEVICE = 16 };
#define PAGE 4096u
#define REQUEST_PAGES 4u
#define COMPLETION_PAGES 1u
#define SETUP_PAGES 32u /* page numbers of each ring in the set-up command */

struct rings { uint32_t requested, taken, log2_requests, completed, seen, log2_completions; };
struct request {
    uint64_t context, data, length, sense;
    uint32_t sense_length, flags;
    uint8_t cdb[16], cdb_length, lun[8], tag, bus, target;
    uint8_t unused[60];
} __attribute__((packed));
struct completion {
    uint64_t context, length;
    uint32_t sense_length;
    uint16_t host_status, scsi_status;
    uint32_t pad[2];
};
_Static_assert(sizeof(struct request) == 128 && sizeof(struct completion) == 32, "rings are cut by these");

enum { REQUESTS = PAGE, COMPLETIONS = REQUESTS + REQUEST_PAGES * PAGE, PREPARED = COMPLETIONS + COMPLETION_PAGES * PAGE };

static void *at(struct disk *disk, unsigned offset) { return disk->memory + disk->place + offset; }

static bool open(struct disk *disk)
{
    struct { uint32_t request_pages, completion_pages; uint64_t state, requests[SETUP_PAGES], completions[SETUP_PAGES]; }
    setup = {.request_pages = REQUEST_PAGES, .completion_pages = COMPLETION_PAGES, .state = disk->place / PAGE};
    uint32_t words[sizeof setup / 4];
    struct registers *registers = &disk->registers;
    for (unsigned i = 0; i < REQUEST_PAGES; i++)
        setup.requests[i] = (disk->place + REQUESTS) / PAGE + i;
    setup.completions[0] = (disk->place + COMPLETIONS) / PAGE;
    memcpy(words, &setup, sizeof setup);
    disk->entries = COMPLETION_PAGES * PAGE / sizeof(struct completion);
    bool there = registers_write(registers, COMMAND, ADAPTER_RESET) && registers_write(registers, INTERRUPT_MASK, 0) &&
                 registers_write(registers, COMMAND, SETUP_RINGS);
    for (unsigned i = 0; there && i < sizeof words / 4; i++)
        there = registers_write(registers, COMMAND_DATA, words[i]);
    return there;
}

static void prepare(struct disk *disk, unsigned slot, bool write, uint64_t data, uint32_t size)
{
    struct request *request = (struct request *)at(disk, PREPARED) + slot;
    *request = (struct request){
        .context = slot + 1, .data = data, .length = size, .flags = write ? TO_DEVICE : FROM_DEVICE, .cdb_length = 10,
        .tag = 0x20, /* a simple one (SPI-4, 16.5.2) */
    };
    disk_cdb(request->cdb, write, size);
}

static bool post(struct disk *disk, unsigned slot, uint32_t lba)
{
    struct request *prepared = (struct request *)at(disk, PREPARED) + slot;
    struct request *ring = at(disk, REQUESTS);
    disk_cdb_lba(prepared->cdb, lba);
    ring[disk->posted++ % (REQUEST_PAGES * PAGE / sizeof *ring)] = *prepared;
    return true;
}

static bool kick(struct disk *disk)
{
    volatile struct rings *rings = at(disk, 0);
    __atomic_store_n(&rings->requested, disk->posted, __ATOMIC_RELEASE);
    return registers_write(&disk->registers, KICK_RW_IO, 0);
}

static bool reap(struct disk *disk, uint8_t *slots, unsigned *count)
{
    volatile struct rings *rings = at(disk, 0);
    const struct completion *ring = at(disk, COMPLETIONS);
    uint32_t until = __atomic_load_n(&rings->completed, __ATOMIC_ACQUIRE);
    for (*count = 0; disk->next != until; disk->next++, ++*count) {
        const struct completion *completion = &ring[disk->next % disk->entries];
        slots[*count] = (uint8_t)(completion->context - 1);
        disk->failed += completion->host_status || completion->scsi_status;
    }
    rings->seen = disk->next;
    return true;
}

static void close(struct disk *disk) { registers_write(&disk->registers, COMMAND, ADAPTER_RESET); }

const struct controller disk_pvscsi = {open, prepare, post, kick, reap, close};
