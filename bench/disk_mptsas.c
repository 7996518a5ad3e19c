/* The floor's Fusion-MPT: request frames, and the reply FIFO, which is a register: a read for each command that came back.
 * Registers and messages as Linux's drivers/message/fusion/lsi names them. */
#include <string.h>

#include "disk.h"

enum { DOORBELL = 0x00, INTERRUPT_STATUS = 0x30, INTERRUPT_MASK = 0x34, REQUEST_FIFO = 0x40, REPLY_FIFO = 0x44 };
enum { FUNCTION_SCSI_IO = 0x00, FUNCTION_IOC_INIT = 0x02, FUNCTION_RESET = 0x40, FUNCTION_HANDSHAKE = 0x42 };
enum { BY_HOST_DRIVER = 4, INTERRUPTS_OFF = 9 };
#define CONTROL_WRITE 0x01000000u
#define CONTROL_READ 0x02000000u
#define SGE_ONE 0xd1000000u /* last element, end of buffer, simple element, end of list */
#define SGE_TO_DEVICE 0x04000000u
#define REPLY_ADDRESS 0x80000000u /* of a reply frame, halved; else the context of a command that did well */
#define NOTHING 0xffffffffu
enum { FRAME = 256, REPLIES = DEPTH_MOST * FRAME, REPLY = 128, REPLY_COUNT = 16, CONTEXT = 8 };

struct scsi_io {
    uint8_t target, bus, chain, function, cdb_length, sense_length, reserved, flags;
    uint32_t context;
    uint8_t lun[8];
    uint32_t control;
    uint8_t cdb[16];
    uint32_t length, sense, element, address;
};

static struct scsi_io *frame_of(struct disk *disk, unsigned slot)
{
    return (void *)(disk->memory + disk->place + slot * FRAME);
}

static bool open(struct disk *disk)
{
    struct { uint8_t who, reserved, chain, function, flags, devices, buses, message_flags;
             uint32_t context; uint16_t reply_size, pad; uint32_t rest[6]; }
    init = {.who = BY_HOST_DRIVER, .function = FUNCTION_IOC_INIT, .buses = 1, .reply_size = REPLY};
    uint32_t words[sizeof init / 4], state, length = 2;
    struct registers *registers = &disk->registers;
    memcpy(words, &init, sizeof init);
    bool there = registers_write(registers, INTERRUPT_MASK, INTERRUPTS_OFF) &&
                 registers_write(registers, DOORBELL, (uint32_t)FUNCTION_RESET << 24) &&
                 registers_write(registers, DOORBELL, (uint32_t)FUNCTION_HANDSHAKE << 24 | sizeof words / 4 << 16);
    for (unsigned i = 0; there && i < sizeof words / 4; i++)
        there = registers_write(registers, DOORBELL, words[i]);
    /* The reply comes in halves of words; its third byte is its length in words. */
    for (uint32_t i = 0; there && i < length; i++) {
        there = registers_read(registers, DOORBELL, &state);
        if (i == 1)
            length = 2 * (state & 0xff);
    }
    there = there && registers_write(registers, INTERRUPT_STATUS, 0);
    for (unsigned i = 0; there && i < REPLY_COUNT; i++)
        there = registers_write(registers, REPLY_FIFO, (uint32_t)(disk->place + REPLIES + i * REPLY));
    return there;
}

static void prepare(struct disk *disk, unsigned slot, bool write, uint64_t data, uint32_t size)
{
    struct scsi_io *frame = frame_of(disk, slot);
    *frame = (struct scsi_io){
        .function = FUNCTION_SCSI_IO, .cdb_length = 10, .context = slot, .length = size,
        .control = write ? CONTROL_WRITE : CONTROL_READ,
        .element = SGE_ONE | (write ? SGE_TO_DEVICE : 0) | size, .address = (uint32_t)data,
    };
    disk_cdb(frame->cdb, write, size);
}

static bool post(struct disk *disk, unsigned slot, uint32_t lba)
{
    disk_cdb_lba(frame_of(disk, slot)->cdb, lba);
    return registers_write(&disk->registers, REQUEST_FIFO, (uint32_t)(disk->place + slot * FRAME));
}

static bool kick(struct disk *disk)
{
    (void)disk;
    return true;
}

static bool reap(struct disk *disk, uint8_t *slots, unsigned *count)
{
    uint32_t answer;
    for (*count = 0; *count < DEPTH_MOST; ++*count) {
        if (!registers_read(&disk->registers, REPLY_FIFO, &answer))
            return false;
        if (answer == NOTHING)
            break;
        if (answer & REPLY_ADDRESS) {
            uint32_t reply = answer << 1;
            disk->failed++;
            answer = *(uint32_t *)(disk->memory + reply + CONTEXT);
            if (!registers_write(&disk->registers, REPLY_FIFO, reply))
                return false;
        }
        slots[*count] = (uint8_t)answer;
    }
    return true;
}

static void close(struct disk *disk) { registers_write(&disk->registers, DOORBELL, (uint32_t)FUNCTION_RESET << 24); }

const struct controller disk_mptsas = {open, prepare, post, kick, reap, close};
