/* The floor's MegaRAID SAS: MFI frames, and the reply queue in memory. Registers and frames as Linux's
 * drivers/scsi/megaraid/megaraid_sas.h and QEMU's hw/scsi/mfi.h name them. */
#include <string.h>

#include "disk.h"

enum { INBOUND_QUEUE = 0x40, OUTBOUND_MASK = 0x34, SCRATCH_PAD = 0xb0 };
enum { COMMAND_INIT = 0, COMMAND_LD_READ = 1, COMMAND_LD_WRITE = 2, PENDING = 0xff };
enum { FLAG_SGL64 = 2, FLAG_TO_DEVICE = 8, FLAG_FROM_DEVICE = 16 };
enum { FRAME = 256, QUEUE = DEPTH_MOST * FRAME, INDICES = QUEUE + 8192, INFO = INDICES + 64, SENSE = INFO + 64 };

struct frame {
    uint8_t command, sense_length, status, scsi_status, target, lun, cdb_length, sg_count;
    uint32_t context, pad;
    uint16_t flags, timeout;
    uint32_t length; /* blocks, of a command that reads or writes */
    union {
        struct { uint32_t info, info_high; };
        struct {
            uint32_t sense, sense_high, lba, lba_high;
            uint64_t address;
            uint32_t bytes;
        } __attribute__((packed));
    };
};
struct queue_info { uint32_t flags, entries; uint64_t queue, producer, consumer; };

static struct frame *frame_of(struct disk *disk, unsigned slot)
{
    return (void *)(disk->memory + disk->place + slot * FRAME);
}

static bool post_frame(struct disk *disk, unsigned slot)
{
    frame_of(disk, slot)->status = PENDING;
    return registers_write(&disk->registers, INBOUND_QUEUE, (uint32_t)(disk->place + slot * FRAME) | 1);
}

static volatile uint32_t *producer(struct disk *disk) { return (void *)(disk->memory + disk->place + INDICES); }
static volatile uint32_t *consumer(struct disk *disk) { return producer(disk) + 1; }

static bool open(struct disk *disk)
{
    struct queue_info *info = (void *)(disk->memory + disk->place + INFO);
    uint32_t state;
    if (!registers_read(&disk->registers, SCRATCH_PAD, &state))
        return false;
    disk->entries = state & 0xffff; /* commands that it takes; QEMU's queue has as many entries */
    *info = (struct queue_info){0, disk->entries, disk->place + QUEUE, disk->place + INDICES, disk->place + INDICES + 4};
    *frame_of(disk, 0) = (struct frame){.command = COMMAND_INIT, .length = sizeof *info};
    frame_of(disk, 0)->info = (uint32_t)(disk->place + INFO);
    if (!post_frame(disk, 0) || !registers_settle(&disk->registers) || frame_of(disk, 0)->status)
        return false;
    /* Only with interrupts does QEMU tell the producer's index; the pin itself is off in configuration space. */
    return registers_write(&disk->registers, OUTBOUND_MASK, 0);
}

static void prepare(struct disk *disk, unsigned slot, bool write, uint64_t data, uint32_t size)
{
    struct frame *frame = frame_of(disk, slot);
    *frame = (struct frame){
        .command = write ? COMMAND_LD_WRITE : COMMAND_LD_READ, .sg_count = 1, .sense_length = 96, .context = slot,
        .flags = FLAG_SGL64 | (write ? FLAG_TO_DEVICE : FLAG_FROM_DEVICE), .length = size / BLOCK,
    };
    frame->sense = (uint32_t)(disk->place + SENSE + slot * 96);
    frame->address = data;
    frame->bytes = size;
}

static bool post(struct disk *disk, unsigned slot, uint32_t lba)
{
    frame_of(disk, slot)->lba = lba;
    return post_frame(disk, slot);
}

static bool kick(struct disk *disk)
{
    (void)disk;
    return true;
}

static bool reap(struct disk *disk, uint8_t *slots, unsigned *count)
{
    const volatile uint32_t *queue = (void *)(disk->memory + disk->place + QUEUE);
    uint32_t until = *producer(disk);
    for (*count = 0; disk->next != until; ++*count) {
        slots[*count] = (uint8_t)queue[disk->next];
        disk->failed += frame_of(disk, slots[*count])->status != 0;
        disk->next = (disk->next + 1) % disk->entries;
    }
    *consumer(disk) = disk->next;
    return true;
}

static void close(struct disk *disk) { registers_write(&disk->registers, OUTBOUND_MASK, ~0u); }

const struct controller disk_megasas = {open, prepare, post, kick, reap, close};
