/* SCSI commands, the part that runs per command (Linux drivers/scsi/scsi_lib.c, and of scsi_error.c the judgement of
 * what a command came back with). Tags, requests and their iteration stand for what block/blk-mq.c does below it.
 *
 * A command waits in its device's queue until the device, the host and a tag have room; it then occupies a slot, which
 * is a struct request with its scsi_cmnd, as blk-mq lays them out. What is done waits for linux_scsi_reap. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "vmklinux/linux.h"

#define SENSE_SIZE 96u /* SCSI_SENSE_BUFFERSIZE, include/scsi/scsi_cmnd.h */
#define QUEUE_MOST 8192u /* commands of one device that may wait */
#define PAGE 4096u
#define SG_END 2u /* include/linux/scatterlist.h: in page_link of the last entry */
#define SCMD_TAGGED 1 /* include/scsi/scsi_cmnd.h */
#define SCMD_LAST 4
#define SCMD_FORCE_EH_SUCCESS 8 /* 6.12 has it; in 6.1 nobody sets the bit */
#define SCMD_STATE_COMPLETE 0
#define SOFTIRQ_OFFSET 0x100u
#define SOFTIRQ_DISABLE_OFFSET 0x200u
/* Milliseconds after which a queue that a driver called busy is tried again (BLK_MQ_RESOURCE_DELAY, SCSI_QUEUE_DELAY). */
#define BUSY_DELAY_NS 3000000ull
#define HOSTS 32
#define CPUS 64 /* cpu.py: MOST_CPUS */

enum { DMA_TO_DEVICE = 1, DMA_FROM_DEVICE = 2 };
enum { REQ_OP_DISCARD = 3, REQ_OP_DRV_IN = 34, REQ_OP_DRV_OUT = 35 }; /* include/linux/blk_types.h */
/* include/scsi/scsi_status.h */
enum {
    DID_OK = 0, DID_NO_CONNECT = 1, DID_BUS_BUSY = 2, DID_TIME_OUT = 3, DID_BAD_TARGET = 4, DID_ABORT = 5, DID_PARITY = 6,
    DID_ERROR = 7, DID_RESET = 8, DID_PASSTHROUGH = 10, DID_SOFT_ERROR = 11, DID_IMM_RETRY = 12, DID_REQUEUE = 13,
    DID_TRANSPORT_DISRUPTED = 14, DID_TRANSPORT_FAILFAST = 15, DID_TRANSPORT_MARGINAL = 20,
};
enum {
    STATUS_GOOD = 0, STATUS_CHECK_CONDITION = 2, STATUS_BUSY = 8, STATUS_RESERVATION_CONFLICT = 0x18, STATUS_TASK_SET_FULL = 0x28,
    STATUS_TASK_ABORTED = 0x40,
};
/* include/scsi/scsi_proto.h */
enum {
    KEY_RECOVERED_ERROR = 1, KEY_NOT_READY = 2, KEY_MEDIUM_ERROR = 3, KEY_HARDWARE_ERROR = 4, KEY_UNIT_ATTENTION = 6,
    KEY_ABORTED_COMMAND = 11,
};
/* What becomes of a command (include/scsi/scsi.h). */
enum { NEEDS_RETRY = 0x2001, SUCCESS = 0x2002, FAILED = 0x2003, ADD_TO_MLQUEUE = 0x2006, NOT_HANDLED = 0x2008 };
enum { TEST_UNIT_READY = 0, INQUIRY = 0x12, UNMAP = 0x42, WRITE_SAME_16 = 0x93 };

enum verdict { FINISH, RETRY, REQUEUE, FAIL };

/* A command from submission to reaping. */
struct command {
    struct linux_scsi_io io;
    struct linux_scsi_device *device;
    unsigned cpu; /* that it was submitted on */
    struct command *next;
    struct slot *slot;
    int retries;
    uint64_t give_up; /* all tries together end then (scsi_cmd_runtime_exceeced) */
    bool done;
    uint64_t task; /* a world that waits for just this one, or 0 */
    struct linux_scsi_done answer;
};

enum slot_state {
    SLOT_FREE, SLOT_IN_FLIGHT, /* the driver has it */
    SLOT_COMPLETED, /* scsi_done was called; the softirq has not looked yet */
    SLOT_FAILED, /* error handling has it */
    SLOT_RESERVED, /* the driver asked for the tag alone */
    SLOT_LOST /* its command ended when the device went; the driver still has it */
};
struct slot {
    uint64_t request, cmnd, sense, sg;
    int tag;
    enum slot_state state;
    bool expired; /* its time was up: the timeout side has it */
    bool eh_done; /* a command of the error handler's came back */
    bool mapped; /* for DMA, by scsi_dma_map */
    uint64_t deadline;
    struct command *command;
    struct slot *next; /* in the list of the completed */
};

struct linux_scsi_host {
    uint64_t shost;
    uint32_t owner;
    unsigned depth, sets; /* tags in a set, and sets of them */
    unsigned tags, busy, failed; /* tags: slots, in all sets together */
    bool ended;
    unsigned cpus;
    uint64_t hctx[CPUS]; /* by the CPU that submits: struct blk_mq_hw_ctx of its hardware queue */
    uint64_t eh_task;
    uint64_t *set; /* struct blk_mq_tags, one for each hardware queue or one that they share (host_tagset) */
    struct slot *slots;
    struct linux_scsi_device *devices;
};

struct waiter { int event; struct waiter *next; };
struct list { struct command *first, *last; };
struct linux_scsi_device {
    struct linux_scsi_host *host;
    uint32_t owner;
    uint64_t sdev;
    struct linux_scsi_device *next;
    struct list waiting, done;
    unsigned queued, busy;
    uint64_t not_before; /* the driver called it busy: when to try again */
    bool ended;
    struct waiter *waiters;
    pthread_mutex_t lock; /* of waiters */
    struct linux_scsi_stats stats;
};

static struct linux_scsi_host *hosts[HOSTS];
static struct slot *completed, *completed_last;

static uint32_t *preempt_count(void) { return (uint32_t *)vmk_cpu.preempt_slot; }
static uint64_t physical(uint64_t address) { return address - *(uint64_t *)SYMBOL(page_offset_base); }

static struct linux_scsi_host *host_of(uint64_t shost)
{
    for (int i = 0; i < HOSTS; i++)
        if (hosts[i] && hosts[i]->shost == shost)
            return hosts[i];
    return NULL;
}

static void append(struct list *list, struct command *command)
{
    command->next = NULL;
    if (list->first)
        list->last->next = command;
    else
        list->first = command;
    list->last = command;
}

static void prepend(struct list *list, struct command *command)
{
    command->next = list->first;
    if (!list->first)
        list->last = command;
    list->first = command;
}

static struct command *take_first(struct list *list)
{
    struct command *command = list->first;
    if (command)
        list->first = command->next;
    return command;
}

/* ---- slots ---- */

static uint64_t sg_size(struct linux_scsi_host *host)
{
    uint32_t most = FIELD(host->shost, Scsi_Host, sg_tablesize, uint16_t);
    return (most ? most : 1) * (uint64_t)SIZE(scatterlist);
}

/* A driver looks up by tag what is in flight, in code of its own (blk_mq_tag_to_rq is inline): requests stay in there, and
 * their state tells. */
static uint64_t tags_new(unsigned depth)
{
    uint64_t size = SIZE(blk_mq_tags) + 8ull * depth, tags = vmk_alloc(size, 0);
    if (!tags)
        return 0;
    memset((void *)tags, 0, size);
    FIELD(tags, blk_mq_tags, nr_tags, uint32_t) = depth;
    FIELD(tags, blk_mq_tags, rqs, uint64_t) = tags + SIZE(blk_mq_tags);
    return tags;
}

/* The place of a slot's request in its tags. */
static uint64_t *place_in_tags(const struct linux_scsi_host *host, const struct slot *slot)
{
    unsigned number = (unsigned)(slot - host->slots);
    return &((uint64_t *)FIELD(host->set[number / host->depth], blk_mq_tags, rqs, uint64_t))[number % host->depth];
}

static void slot_free(struct linux_scsi_host *host, struct slot *slot)
{
    uint64_t exit = FIELD(FIELD(host->shost, Scsi_Host, hostt, uint64_t), scsi_host_template, exit_cmd_priv, uint64_t);
    if (!slot->request)
        return;
    if (exit && !host->ended)
        ((int (*)(uint64_t, uint64_t))exit)(host->shost, slot->cmnd);
    vmk_free(slot->request);
    vmk_free(slot->sense);
    vmk_free(slot->sg);
    *place_in_tags(host, slot) = slot->request = 0;
}

static bool slot_make(struct linux_scsi_host *host, struct slot *slot)
{
    uint64_t hostt = FIELD(host->shost, Scsi_Host, hostt, uint64_t);
    uint64_t init = FIELD(hostt, scsi_host_template, init_cmd_priv, uint64_t);
    uint64_t size = SIZE(request) + SIZE(scsi_cmnd) + FIELD(hostt, scsi_host_template, cmd_size, uint32_t);
    slot->request = vmk_alloc(size, 0);
    slot->sense = vmk_alloc(SENSE_SIZE, 0);
    slot->sg = vmk_alloc(sg_size(host), 0);
    if (!slot->request || !slot->sense || !slot->sg) {
        vmk_free(slot->request);
        vmk_free(slot->sense);
        vmk_free(slot->sg);
        slot->request = 0;
        return false;
    }
    memset((void *)slot->request, 0, size);
    slot->cmnd = slot->request + SIZE(request);
    slot->tag = (int)((unsigned)(slot - host->slots) % host->depth);
    if (init)
        ((int (*)(uint64_t, uint64_t))init)(host->shost, slot->cmnd);
    *place_in_tags(host, slot) = slot->request;
    return true;
}

/* Where the tags of a hardware queue begin. */
static unsigned first_of(const struct linux_scsi_host *host, uint64_t hctx)
{
    return host->sets > 1 && hctx ? FIELD(hctx, blk_mq_hw_ctx, queue_num, uint32_t) * host->depth : 0;
}

static struct slot *slot_take(struct linux_scsi_host *host, uint64_t hctx)
{
    for (unsigned i = first_of(host, hctx), end = i + host->depth; i < end; i++) {
        struct slot *slot = &host->slots[i];
        if (slot->state != SLOT_FREE)
            continue;
        return slot->request || slot_make(host, slot) ? slot : NULL;
    }
    return NULL;
}

/* The slot that a scsi_cmnd is in, and its host; the scsi_device that it names may be gone. */
static struct slot *slot_at(uint64_t cmnd, struct linux_scsi_host **host)
{
    uint64_t rq = cmnd - SIZE(request), hctx = FIELD(rq, request, mq_hctx, uint64_t);
    uint32_t tag = FIELD(rq, request, tag, uint32_t);
    for (int i = 0; i < HOSTS; i++) {
        *host = hosts[i];
        unsigned at = *host ? first_of(*host, hctx) + tag : 0;
        if (*host && tag < (*host)->depth && at < (*host)->tags && (*host)->slots[at].cmnd == cmnd)
            return &(*host)->slots[at];
    }
    *host = NULL;
    return NULL;
}

static struct slot *slot_of(uint64_t cmnd)
{
    struct linux_scsi_host *host;
    return slot_at(cmnd, &host);
}

/* ---- dispatch ---- */

/* What one segment, and all of a command's, may be: the queue's limits, which drivers may have changed since the host's. */
struct sg_limits {
    uint64_t boundary, virt_boundary, alignment;
    uint32_t size, segments;
};

static struct sg_limits limits_of(struct linux_scsi_device *device)
{
    uint64_t queue = FIELD(device->sdev, scsi_device, request_queue, uint64_t);
    uint32_t table = FIELD(device->host->shost, Scsi_Host, sg_tablesize, uint16_t);
    uint32_t segments = FIELD(queue, request_queue, max_segments, uint16_t);
    return (struct sg_limits){
        .boundary = FIELD(queue, request_queue, seg_boundary_mask, uint64_t),
        .virt_boundary = FIELD(queue, request_queue, virt_boundary_mask, uint64_t),
        .alignment = FIELD(queue, request_queue, dma_alignment, uint32_t),
        .size = FIELD(queue, request_queue, max_segment_size, uint32_t),
        .segments = segments < table || !table ? segments : table,
    };
}

static void put_segment(uint64_t entry, uint64_t at, uint32_t size)
{
    memset((void *)entry, 0, SIZE(scatterlist));
    FIELD(entry, scatterlist, page_link, uint64_t) = *(uint64_t *)SYMBOL(vmemmap_base) + at / PAGE * SIZE(page);
    FIELD(entry, scatterlist, offset, uint32_t) = at % PAGE;
    FIELD(entry, scatterlist, length, uint32_t) = size;
}

/* Cuts a command's data into segments as the block layer does, and writes them to the scatter list at `sg`, unless that is 0.
 * How many; `*fits`: how many bytes of the data they hold, less than all where the device takes no more in one command. */
static uint32_t fill_sg(struct linux_scsi_device *device, const struct linux_scsi_io *io, uint64_t sg, uint32_t *fits)
{
    struct sg_limits limits = limits_of(device);
    struct vmk_sg_elem contiguous = {io->data ? physical(io->data) : 0, io->length};
    const struct vmk_sg_elem *element = io->data ? &contiguous : (const void *)io->pieces, *end = element + (io->data ? 1 : io->count);
    uint64_t start = 0, size = 0, skip = io->offset; /* the segment that grows; bytes of the element that are left out */
    uint32_t count = 0, left = io->length;
    for (; left && element < end; element++) {
        if (skip >= element->length) {
            skip -= element->length;
            continue;
        }
        uint64_t at = element->address + skip, part = element->length - skip < left ? element->length - skip : left;
        skip = 0;
        if (!io->data && (at & limits.alignment || (part < left && part & limits.alignment)))
            break; /* the block layer would copy it */
        while (part) {
            if (!count || at != start + size || size == limits.size || (start | limits.boundary) < at) {
                if (count == limits.segments || (count && ((start + size) | at) & limits.virt_boundary))
                    goto full;
                if (count && sg)
                    put_segment(sg + (count - 1) * SIZE(scatterlist), start, (uint32_t)size);
                count++;
                start = at;
                size = 0;
            }
            uint64_t room = (start | limits.boundary) - at, more = limits.size - size; /* room: less one */
            more = more - 1 < room ? more : room + 1;
            more = more < part ? more : part;
            size += more;
            at += more;
            part -= more;
            left -= (uint32_t)more;
        }
    }
full:
    *fits = io->length - left;
    if (count && sg) {
        uint64_t last = sg + (count - 1) * SIZE(scatterlist);
        put_segment(last, start, (uint32_t)size);
        FIELD(last, scatterlist, page_link, uint64_t) |= SG_END;
    }
    return count;
}

/* Where a command that reads or writes blocks begins, in blocks. */
static uint64_t lba_of(const uint8_t *cdb)
{
    uint64_t lba = 0;
    unsigned from = cdb[0] >> 5 == 0 ? 1 : 2, bytes = cdb[0] >> 5 == 0 ? 3 : cdb[0] >> 5 == 4 ? 8 : 4;
    for (unsigned i = 0; i < bytes; i++)
        lba = lba << 8 | cdb[from + i];
    return bytes == 3 ? lba & 0x1fffff : lba;
}

/* What a request is for. libata gives blocks back only for a request that says so: it puts the ATA command's data in place of
 * the block that WRITE SAME brings. */
static uint32_t operation(const struct linux_scsi_io *io)
{
    if (io->cdb[0] == UNMAP || (io->cdb[0] == WRITE_SAME_16 && io->cdb[1] & 8))
        return REQ_OP_DISCARD;
    return io->direction == DMA_TO_DEVICE ? REQ_OP_DRV_OUT : REQ_OP_DRV_IN;
}

static bool prepare(struct linux_scsi_device *device, struct slot *slot, struct command *command)
{
    struct linux_scsi_host *host = device->host;
    const struct linux_scsi_io *io = &command->io;
    uint64_t rq = slot->request, cmnd = slot->cmnd, sdev = device->sdev;
    uint64_t hostt = FIELD(host->shost, Scsi_Host, hostt, uint64_t), sdb = (uint64_t)INNER(cmnd, scsi_cmnd, sdb);
    uint32_t fits, segments = fill_sg(device, io, slot->sg, &fits);
    if (fits < io->length)
        return false;
    memset((void *)rq, 0, SIZE(request) + SIZE(scsi_cmnd));
    if (!FIELD(hostt, scsi_host_template, init_cmd_priv, uint64_t))
        memset((void *)(cmnd + SIZE(scsi_cmnd)), 0, FIELD(hostt, scsi_host_template, cmd_size, uint32_t));
    memset((void *)slot->sense, 0, SENSE_SIZE);
    FIELD(rq, request, q, uint64_t) = FIELD(sdev, scsi_device, request_queue, uint64_t);
    FIELD(rq, request, mq_hctx, uint64_t) = host->hctx[command->cpu];
    FIELD(rq, request, cmd_flags, uint32_t) = operation(io);
    FIELD(rq, request, tag, int) = slot->tag;
    FIELD(rq, request, internal_tag, int) = -1;
    FIELD(rq, request, timeout, uint32_t) = (uint32_t)((uint64_t)io->timeout_ms * linux_hz() / 1000);
    FIELD(rq, request, data_len, uint32_t) = io->length;
    FIELD(rq, request, sector, uint64_t) = lba_of(io->cdb) * (FIELD(sdev, scsi_device, sector_size, uint32_t) / 512);
    FIELD(rq, request, nr_phys_segments, uint16_t) = (uint16_t)segments;
    FIELD(rq, request, state, uint32_t) = (uint32_t)ENUM(MQ_RQ_IN_FLIGHT);
    FIELD(rq, request, ref, int) = 1;
    FIELD(cmnd, scsi_cmnd, device, uint64_t) = sdev;
    list_init((struct list_head *)INNER(cmnd, scsi_cmnd, eh_entry));
    FIELD(cmnd, scsi_cmnd, jiffies_at_alloc, uint64_t) = linux_jiffies();
    FIELD(cmnd, scsi_cmnd, retries, int) = command->retries;
    FIELD(cmnd, scsi_cmnd, allowed, int) = io->retries;
    FIELD(cmnd, scsi_cmnd, cmd_len, uint16_t) = io->cdb_length;
    FIELD(cmnd, scsi_cmnd, direction, uint32_t) = io->direction;
    FIELD(cmnd, scsi_cmnd, sense_buffer, uint64_t) = slot->sense;
    FIELD(cmnd, scsi_cmnd, underflow, uint32_t) = io->underflow;
    FIELD(cmnd, scsi_cmnd, transfersize, uint32_t) = FIELD(sdev, scsi_device, sector_size, uint32_t);
    FIELD(cmnd, scsi_cmnd, flags, int) = (BITS_GET((void *)sdev, scsi_device, simple_tags) ? SCMD_TAGGED : 0) |
                                        (FIELD(hostt, scsi_host_template, commit_rqs, uint64_t) ? 0 : SCMD_LAST);
    memcpy(INNER(cmnd, scsi_cmnd, cmnd), io->cdb, sizeof io->cdb);
    if (BITS_GET((void *)sdev, scsi_device, lun_in_cdb))
        INNER(cmnd, scsi_cmnd, cmnd)[1] =
            (char)((io->cdb[1] & 0x1f) | (FIELD(sdev, scsi_device, lun, uint64_t) << 5 & 0xe0));
    FIELD(sdb, scsi_data_buffer, length, uint32_t) = io->length;
    FIELD(sdb, sg_table, sgl, uint64_t) = segments ? slot->sg : 0;
    FIELD(sdb, sg_table, nents, uint32_t) = FIELD(sdb, sg_table, orig_nents, uint32_t) = segments;
    return true;
}

static __thread struct waiter *waits_here; /* this thread's: it delivers, then looks for itself */

static void wake(struct linux_scsi_device *device)
{
    pthread_mutex_lock(&device->lock);
    for (struct waiter *waiter = device->waiters; waiter; waiter = waiter->next)
        if (waiter != waits_here)
            vmk_event_post(waiter->event);
    pthread_mutex_unlock(&device->lock);
}

static void count_failed(struct linux_scsi_host *host, int change)
{
    host->failed += (unsigned)change;
    FIELD(host->shost, Scsi_Host, host_failed, uint32_t) = host->failed;
}

/* The command leaves its slot. */
static void leave(struct slot *slot)
{
    struct command *command = slot->command;
    struct linux_scsi_device *device = command->device;
    if (slot->state == SLOT_FAILED)
        count_failed(device->host, -1);
    slot->state = SLOT_FREE;
    slot->command = NULL;
    command->slot = NULL;
    FIELD(slot->request, request, state, uint32_t) = (uint32_t)ENUM(MQ_RQ_IDLE);
    device->busy--;
    device->host->busy--;
}

static bool sense_read(const uint8_t *sense, uint8_t *key, uint8_t *asc, uint8_t *ascq, bool *deferred);

/* Whether a command failed; a recovered error is told, but the command did what it was to do. */
static bool failed(int32_t result, const uint8_t *sense, uint32_t sense_length)
{
    uint8_t key, asc, ascq;
    bool deferred;
    if (result != STATUS_CHECK_CONDITION || sense_length < 8 || !sense_read(sense, &key, &asc, &ascq, &deferred))
        return result != 0;
    return deferred || key != KEY_RECOVERED_ERROR;
}

/* The end of a command: it waits to be reaped. */
static void finish(struct command *command, int32_t result, uint32_t residual, const void *sense, uint32_t sense_length)
{
    struct linux_scsi_device *device = command->device;
    command->answer.cookie = command->io.cookie;
    command->answer.result = result;
    command->answer.residual = residual;
    command->answer.retries = (uint32_t)command->retries;
    command->answer.sense_length = sense_length < SENSE_SIZE ? sense_length : SENSE_SIZE;
    memcpy(command->answer.sense, sense, command->answer.sense_length);
    command->done = true;
    device->queued--;
    device->stats.commands++;
    device->stats.errors += failed(result, command->answer.sense, command->answer.sense_length);
    device->stats.retries += (uint32_t)command->retries;
    if (!result && command->io.direction == DMA_TO_DEVICE)
        device->stats.bytes_written += command->io.length - residual;
    else if (!result)
        device->stats.bytes_read += command->io.length - residual;
    if (command->task) {
        vmk_world_wake(command->task);
    } else {
        append(&device->done, command);
        wake(device);
    }
}

static void finish_slot(struct slot *slot)
{
    struct command *command = slot->command;
    uint8_t sense[SENSE_SIZE];
    uint64_t cmnd = slot->cmnd;
    int32_t result = FIELD(cmnd, scsi_cmnd, result, int32_t);
    uint32_t residual = FIELD(cmnd, scsi_cmnd, resid_len, uint32_t);
    /* Also beside a host status: some drivers bring both. */
    bool sensed = result && (*(uint8_t *)slot->sense & 0x70) == 0x70;
    memcpy(sense, (void *)slot->sense, SENSE_SIZE);
    /* sense_len is what the driver says that it got; those that say nothing fill the buffer (scsi_cmnd.h). */
    uint32_t length = sensed ? 8u + sense[7] : 0;
    leave(slot);
    finish(command, result, residual > command->io.length ? command->io.length : residual, sense, length);
}

static void refuse(struct command *command) { finish(command, DID_NO_CONNECT << 16, command->io.length, "", 0); }

/* Whether commands of the device may go to the driver now (scsi_device_state_check); gone: they never will. */
static bool admitted(struct linux_scsi_device *device, struct command *command, bool *gone)
{
    int64_t state = FIELD(device->sdev, scsi_device, sdev_state, uint32_t);
    *gone = device->ended || device->host->ended || state == ENUM(SDEV_OFFLINE) || state == ENUM(SDEV_TRANSPORT_OFFLINE) ||
            state == ENUM(SDEV_DEL);
    if (*gone)
        return false;
    if (state == ENUM(SDEV_BLOCK) || state == ENUM(SDEV_CREATED_BLOCK))
        return false;
    if (state == ENUM(SDEV_QUIESCE) && !(command->io.flags & LINUX_SCSI_PRIVILEGED))
        return false;
    return true;
}

static bool recovers(struct linux_scsi_host *host)
{
    int64_t state = FIELD(host->shost, Scsi_Host, shost_state, uint32_t);
    return state == ENUM(SHOST_RECOVERY) || state == ENUM(SHOST_CANCEL_RECOVERY) || state == ENUM(SHOST_DEL_RECOVERY) ||
           BITS_GET((void *)host->shost, Scsi_Host, tmf_in_progress);
}

static bool host_open(struct linux_scsi_host *host)
{
    return !recovers(host) && !BITS_GET((void *)host->shost, Scsi_Host, host_self_blocked) && host->busy < host->tags;
}

struct queueing {
    struct linux_scsi_host *host;
    struct slot *slot;
    int result;
    uint32_t queue;
};

static void queue_one(void *arg)
{
    struct queueing *q = arg;
    uint64_t hostt = FIELD(q->host->shost, Scsi_Host, hostt, uint64_t);
    q->result = FIELD(hostt, scsi_host_template, queuecommand, int (*)(uint64_t, uint64_t))(q->host->shost, q->slot->cmnd);
}

/* Hands one command to the driver; whether the next may follow. */
static bool dispatch(struct linux_scsi_device *device, struct command *command)
{
    struct linux_scsi_host *host = device->host;
    struct slot *slot = slot_take(host, host->hctx[command->cpu]);
    if (!slot) {
        prepend(&device->waiting, command);
        return false;
    }
    if (!prepare(device, slot, command)) {
        finish(command, DID_ERROR << 16, command->io.length, "", 0);
        return true;
    }
    slot->command = command;
    slot->state = SLOT_IN_FLIGHT;
    slot->expired = slot->eh_done = false;
    slot->deadline = vmk_now() + command->io.timeout_ms * 1000000ull;
    command->slot = slot;
    device->busy++;
    host->busy++;
    if (device->busy > device->stats.in_flight_most)
        device->stats.in_flight_most = device->busy;
    FIELD(device->sdev, scsi_device, iorequest_cnt, int)++;
    struct queueing q = {.host = host, .slot = slot, .result = -1};
    *preempt_count() += SOFTIRQ_DISABLE_OFFSET;
    vmk_guarded(queue_one, &q, host->owner);
    *preempt_count() -= SOFTIRQ_DISABLE_OFFSET;
    if (!q.result || host->ended || slot->command != command)
        return !host->ended;
    if (q.result < 0) { /* the driver was stopped inside */
        return false;
    }
    if (slot->state == SLOT_IN_FLIGHT) { /* SCSI_MLQUEUE_HOST_BUSY and the like */
        FIELD(device->sdev, scsi_device, iorequest_cnt, int)--;
        leave(slot);
        prepend(&device->waiting, command);
        device->not_before = vmk_now() + BUSY_DELAY_NS;
        device->stats.busy++;
    }
    return false;
}

/* What blk-mq calls when no more commands follow: a driver that has it rings its doorbell only then. */
static void commit_one(void *arg)
{
    struct queueing *q = arg;
    uint64_t hostt = FIELD(q->host->shost, Scsi_Host, hostt, uint64_t);
    FIELD(hostt, scsi_host_template, commit_rqs, void (*)(uint64_t, uint16_t))(q->host->shost, (uint16_t)q->queue);
}

static void commit(struct linux_scsi_host *host, uint64_t cpus)
{
    if (!FIELD(FIELD(host->shost, Scsi_Host, hostt, uint64_t), scsi_host_template, commit_rqs, uint64_t))
        return;
    for (; cpus && !host->ended; cpus &= cpus - 1) {
        uint64_t hctx = host->hctx[__builtin_ctzll(cpus)];
        struct queueing q = {.host = host, .queue = FIELD(hctx, blk_mq_hw_ctx, queue_num, uint32_t)};
        *preempt_count() += SOFTIRQ_DISABLE_OFFSET;
        vmk_guarded(commit_one, &q, host->owner);
        *preempt_count() -= SOFTIRQ_DISABLE_OFFSET;
    }
}

static void run_device(struct linux_scsi_device *device)
{
    struct linux_scsi_host *host = device->host;
    bool gone = false, first = true;
    uint64_t submitted = 0; /* CPUs whose hardware queue got commands */
    while (device->waiting.first) {
        struct command *command = device->waiting.first;
        bool may = admitted(device, command, &gone);
        if (gone) {
            refuse(take_first(&device->waiting));
            continue;
        }
        if (!may || !host_open(host) || device->busy >= FIELD(device->sdev, scsi_device, queue_depth, uint16_t))
            break;
        if (device->not_before && host->busy && vmk_now() < device->not_before)
            break;
        device->not_before = 0;
        if (first)
            vmk_cork();
        first = false;
        submitted |= 1ull << command->cpu;
        if (!dispatch(device, take_first(&device->waiting)))
            break;
    }
    commit(host, submitted);
    if (!first)
        vmk_uncork();
}

static void run_host(struct linux_scsi_host *host)
{
    for (struct linux_scsi_device *device = host->devices; device; device = device->next)
        run_device(device);
}

void linux_scsi_run(struct linux_scsi_host *host)
{
    vmk_baton_take();
    run_host(host);
    vmk_baton_drop();
}

/* ---- what came back ---- */

/* Key, asc and ascq of sense data in either format (SPC-4, 4.5); false: there is none that can be read. */
static bool sense_read(const uint8_t *sense, uint8_t *key, uint8_t *asc, uint8_t *ascq, bool *deferred)
{
    uint8_t format = sense[0] & 0x7f;
    if ((format & 0x70) != 0x70)
        return false;
    *deferred = format & 1;
    *key = (format >= 0x72 ? sense[1] : sense[2]) & 0xf;
    *asc = format >= 0x72 ? sense[2] : sense[7] >= 5 ? sense[12] : 0;
    *ascq = format >= 0x72 ? sense[3] : sense[7] >= 6 ? sense[13] : 0;
    return true;
}

struct asking {
    uint64_t handler, sdev;
    uint8_t header[8]; /* struct scsi_sense_hdr: format, key, asc, ascq, three bytes, length of what follows */
    int answer;
};

static void ask_handler(void *arg)
{
    struct asking *q = arg;
    q->answer = FIELD(q->handler, scsi_device_handler, check_sense, int (*)(uint64_t, void *))(q->sdev, q->header);
}

/* A device handler knows its array's sense data (scsi_dh.py); whether this one does. */
static bool handler_judges(struct asking *q, enum verdict *verdict)
{
    uint64_t function = q->handler ? FIELD(q->handler, scsi_device_handler, check_sense, uint64_t) : 0;
    if (!function)
        return false;
    vmk_guarded(ask_handler, q, (uint32_t)function);
    *verdict = q->answer == NEEDS_RETRY ? RETRY : q->answer == ADD_TO_MLQUEUE ? REQUEUE : q->answer == FAILED ? FAIL : FINISH;
    return q->answer != NOT_HANDLED;
}

/* What sense data make of a command; *unasked: it is a unit attention that nobody expected. */
static enum verdict check_sense(uint64_t cmnd, bool *unasked)
{
    uint8_t key, asc, ascq;
    bool deferred;
    uint64_t sdev = FIELD(cmnd, scsi_cmnd, device, uint64_t);
    *unasked = false;
    if (!sense_read(FIELD(cmnd, scsi_cmnd, sense_buffer, uint8_t *), &key, &asc, &ascq, &deferred))
        return FAIL;
    if (deferred)
        return RETRY;
    struct asking q = {FIELD(sdev, scsi_device, handler, uint64_t), sdev,
                       {*FIELD(cmnd, scsi_cmnd, sense_buffer, uint8_t *) & 0x7f, key, asc, ascq}, NOT_HANDLED};
    enum verdict verdict;
    if (handler_judges(&q, &verdict))
        return verdict;
    if (*INNER(cmnd, scsi_cmnd, cmnd) == TEST_UNIT_READY &&
        FIELD(cmnd, scsi_cmnd, submitter, uint8_t) != ENUM(SUBMITTED_BY_SCSI_ERROR_HANDLER))
        return FINISH; /* who asks whether it is ready wants to know what it says */
    switch (key) {
    case KEY_ABORTED_COMMAND:
        return asc == 0x10 ? FINISH : RETRY;
    case KEY_UNIT_ATTENTION:
        if (BITS_GET((void *)sdev, scsi_device, expecting_cc_ua)) {
            BITS_SET((void *)sdev, scsi_device, expecting_cc_ua, 0);
            return RETRY;
        }
        *unasked = true;
        return FINISH;
    case KEY_NOT_READY: /* it becomes ready; it waits to be started, which error handling does */
        if (asc == 4 && ascq == 2 && BITS_GET((void *)sdev, scsi_device, allow_restart))
            return FAIL;
        return asc == 4 && ascq == 1 ? RETRY : FINISH;
    case KEY_MEDIUM_ERROR: /* unrecovered read, no address mark, no record: trying again would not help */
        return asc == 0x11 || asc == 0x13 || asc == 0x14 ? FINISH : RETRY;
    case KEY_HARDWARE_ERROR:
        return BITS_GET((void *)sdev, scsi_device, retry_hwerror) ? REQUEUE : FINISH;
    default:
        return FINISH;
    }
}

static enum verdict judge_sense(struct slot *slot)
{
    bool unasked, program = !(slot->command->io.flags & LINUX_SCSI_PRIVILEGED);
    enum verdict verdict = check_sense(slot->cmnd, &unasked);
    slot->command->device->stats.unit_attentions += unasked;
    return unasked && program ? RETRY : verdict; /* scsi_io_completion: a command of a file system's is sent again */
}

int linux_scsi_check_sense(uint64_t cmnd)
{
    static const int disposition[] = {[FINISH] = SUCCESS, [RETRY] = NEEDS_RETRY, [REQUEUE] = ADD_TO_MLQUEUE, [FAIL] = FAILED};
    bool unasked;
    return disposition[check_sense(cmnd, &unasked)];
}

static enum verdict judge_status(struct slot *slot, int32_t result)
{
    struct linux_scsi_device *device = slot->command->device;
    switch (result & 0xff) {
    case STATUS_CHECK_CONDITION:
        return judge_sense(slot);
    case STATUS_TASK_SET_FULL:
        device->stats.queue_full++;
        return REQUEUE;
    case STATUS_BUSY:
        return REQUEUE;
    case STATUS_TASK_ABORTED:
        return RETRY;
    default:
        return FINISH;
    }
}

/* scsi_decide_disposition. */
static enum verdict judge(struct slot *slot)
{
    int32_t *result = &FIELD(slot->cmnd, scsi_cmnd, result, int32_t);
    int64_t state = FIELD(slot->command->device->sdev, scsi_device, sdev_state, uint32_t);
    uint8_t opcode = slot->command->io.cdb[0];
    if (state == ENUM(SDEV_OFFLINE) || state == ENUM(SDEV_TRANSPORT_OFFLINE))
        return FINISH;
    switch (*result >> 16 & 0xff) {
    case DID_PASSTHROUGH:
        *result &= ~0xff0000;
        return FINISH;
    case DID_OK:
        return judge_status(slot, *result);
    case DID_ABORT:
    case DID_NO_CONNECT:
    case DID_BAD_TARGET:
    case DID_TRANSPORT_FAILFAST:
    case DID_TRANSPORT_MARGINAL:
        return FINISH;
    case DID_RESET: /* scsi_io_completion: sent again while it may be */
    case DID_SOFT_ERROR:
    case DID_IMM_RETRY:
    case DID_TRANSPORT_DISRUPTED:
    case DID_BUS_BUSY:
    case DID_PARITY:
        return RETRY;
    case DID_ERROR:
        return (*result & 0xff) == STATUS_RESERVATION_CONFLICT ? FINISH : RETRY;
    case DID_REQUEUE:
        return REQUEUE;
    case DID_TIME_OUT:
        return opcode == TEST_UNIT_READY || opcode == INQUIRY ? FINISH : FAIL;
    default:
        return FAIL;
    }
}

/* scsi_eh_scmd_add: from here on the command is in the list that error handlers, ours or the driver's own, work on. */
static void to_error_handler(struct slot *slot)
{
    struct linux_scsi_host *host = slot->command->device->host;
    uint32_t *state = &FIELD(host->shost, Scsi_Host, shost_state, uint32_t);
    slot->state = SLOT_FAILED;
    count_failed(host, 1);
    list_add_tail((struct list_head *)INNER(slot->cmnd, scsi_cmnd, eh_entry),
                  (struct list_head *)INNER(host->shost, Scsi_Host, eh_cmd_q));
    if (*state == ENUM(SHOST_RUNNING))
        *state = (uint32_t)ENUM(SHOST_RECOVERY);
    else if (*state == ENUM(SHOST_CANCEL))
        *state = (uint32_t)ENUM(SHOST_CANCEL_RECOVERY);
    if (host->eh_task)
        vmk_world_wake(host->eh_task);
}

/* Sends a command again, before those that wait; false: it has had its tries. */
static bool again(struct slot *slot, bool counted, bool later)
{
    struct command *command = slot->command;
    struct linux_scsi_device *device = command->device;
    if (vmk_now() > command->give_up || (counted && ++command->retries > command->io.retries))
        return false;
    leave(slot);
    prepend(&device->waiting, command);
    if (later)
        device->not_before = vmk_now() + BUSY_DELAY_NS;
    return true;
}

static void settle(struct slot *slot)
{
    slot->state = SLOT_IN_FLIGHT;
    switch (judge(slot)) {
    case RETRY:
        if (!again(slot, true, false))
            finish_slot(slot);
        break;
    case REQUEUE:
        if (!again(slot, false, true))
            finish_slot(slot);
        break;
    case FAIL:
        to_error_handler(slot);
        break;
    case FINISH:
        finish_slot(slot);
        break;
    }
}

static void scsi_done(uint64_t cmnd)
{
    struct slot *slot = slot_of(cmnd);
    if (!slot)
        vmk_stop(VMK_STOP_PANIC, SITE(), cmnd);
    if (FIELD(cmnd, scsi_cmnd, submitter, uint8_t) == ENUM(SUBMITTED_BY_SCSI_ERROR_HANDLER)) {
        slot->eh_done = true;
        if (slot->command && slot->command->device->host->eh_task)
            vmk_world_wake(slot->command->device->host->eh_task);
        return;
    }
    uint64_t *state = &FIELD(cmnd, scsi_cmnd, state, uint64_t);
    if (slot->state == SLOT_LOST)
        slot->state = SLOT_FREE;
    if (slot->state != SLOT_IN_FLIGHT || slot->expired || *state >> SCMD_STATE_COMPLETE & 1)
        return; /* its time was up, or its host has ended: others have it */
    *state |= 1ull << SCMD_STATE_COMPLETE;
    slot->state = SLOT_COMPLETED;
    slot->next = NULL;
    if (completed)
        completed_last->next = slot;
    else
        completed = slot;
    completed_last = slot;
    if (!vmk_delivering)
        vmk_kick();
}

/* The driver gives a command up that it has: its time is over now. */
static void blk_abort_request(uint64_t rq)
{
    struct linux_scsi_host *host;
    struct slot *slot = slot_at(rq + SIZE(request), &host);
    if (!slot || slot->state != SLOT_IN_FLIGHT)
        return;
    slot->deadline = 0;
    if (host->eh_task)
        vmk_world_wake(host->eh_task);
}

bool linux_scsi_waiting(void) { return completed != NULL; }

/* Commands of the host have ended. */
static void go_on(struct linux_scsi_host *host)
{
    run_host(host);
    if (host->eh_task && recovers(host)) /* fewer are busy now: error handling may begin */
        vmk_world_wake(host->eh_task);
}

void linux_scsi_softirq(void)
{
    if (!completed)
        return;
    *preempt_count() += SOFTIRQ_OFFSET;
    struct linux_scsi_host *last = NULL;
    while (completed) {
        struct slot *slot = completed;
        completed = slot->next;
        struct linux_scsi_host *host = slot->command->device->host;
        FIELD(slot->command->device->sdev, scsi_device, iodone_cnt, int)++;
        settle(slot);
        if (last && last != host)
            go_on(last);
        last = host;
    }
    if (last)
        go_on(last);
    *preempt_count() -= SOFTIRQ_OFFSET;
}

/* ---- DMA of a command's data ---- */

static int scsi_dma_map(uint64_t cmnd)
{
    uint64_t sdb = (uint64_t)INNER(cmnd, scsi_cmnd, sdb), sg = FIELD(sdb, sg_table, sgl, uint64_t);
    uint32_t count = FIELD(sdb, sg_table, nents, uint32_t);
    struct linux_scsi_host *host;
    struct slot *slot = slot_at(cmnd, &host);
    if (!count)
        return 0;
    if (!slot || !linux_dma_count(FIELD(host->shost, Scsi_Host, dma_dev, uint64_t), 1))
        return -ENOMEM;
    slot->mapped = true;
    linux_sg_addresses(sg, count);
    return (int)count;
}

static void unmap(struct linux_scsi_host *host, struct slot *slot)
{
    if (slot->mapped)
        linux_dma_count(FIELD(host->shost, Scsi_Host, dma_dev, uint64_t), -1);
    slot->mapped = false;
}

static void scsi_dma_unmap(uint64_t cmnd)
{
    struct linux_scsi_host *host;
    struct slot *slot = slot_at(cmnd, &host);
    if (slot)
        unmap(host, slot);
}

/* All of machine memory is mapped: what is left of kmap_atomic is finding the place. */
static uint64_t scsi_kmap_atomic_sg(uint64_t sg, int count, uint64_t *offset, uint64_t *length)
{
    for (; count-- > 0; sg += SIZE(scatterlist)) {
        uint32_t size = FIELD(sg, scatterlist, length, uint32_t);
        if (*offset >= size) {
            *offset -= size;
            continue;
        }
        uint64_t at = linux_page_address(FIELD(sg, scatterlist, page_link, uint64_t) & ~3ull) +
                      FIELD(sg, scatterlist, offset, uint32_t) + *offset;
        *offset = at % PAGE;
        *length = *length < PAGE - *offset ? *length : PAGE - *offset;
        return at - *offset;
    }
    return 0;
}

static void scsi_kunmap_atomic_sg(void) {}

/* ---- tags, as blk-mq shows them ---- */

static struct linux_scsi_host *host_of_tags(uint64_t tag_set)
{
    return host_of(tag_set - linux_field[L_Scsi_Host__tag_set]);
}

static bool started(const struct slot *slot) { return slot->command != NULL; }

static void blk_mq_tagset_busy_iter(uint64_t tag_set, bool (*function)(uint64_t, void *), void *data)
{
    struct linux_scsi_host *host = host_of_tags(tag_set);
    for (unsigned i = 0; host && i < host->tags; i++)
        if (started(&host->slots[i]) && !function(host->slots[i].request, data))
            return;
}

static void scsi_host_busy_iter(uint64_t shost, bool (*function)(uint64_t, void *), void *data)
{
    struct linux_scsi_host *host = host_of(shost);
    for (unsigned i = 0; host && i < host->tags; i++)
        if (started(&host->slots[i]) && !function(host->slots[i].cmnd, data))
            return;
}

/* How many bits of a map are set. That of a device's commands in flight, by which scsi_device_busy counts them, stays empty
 * here: they are counted in `busy`. */
static uint32_t sbitmap_weight(uint64_t map)
{
    uint64_t word = FIELD(map, sbitmap, map, uint64_t);
    uint32_t set = 0;
    for (int i = 0; i < HOSTS; i++)
        for (struct linux_scsi_device *device = hosts[i] ? hosts[i]->devices : NULL; device; device = device->next)
            if ((uint64_t)INNER(device->sdev, scsi_device, budget_map) == map)
                return device->busy;
    for (uint32_t i = 0; i < FIELD(map, sbitmap, map_nr, uint32_t); i++, word += SIZE(sbitmap_word))
        set += (uint32_t)(__builtin_popcountll(FIELD(word, sbitmap_word, word, uint64_t)) -
                          __builtin_popcountll(FIELD(word, sbitmap_word, cleared, uint64_t)));
    return set;
}

static int scsi_host_busy(uint64_t shost)
{
    struct linux_scsi_host *host = host_of(shost);
    return host ? (int)host->busy : 0;
}

static uint32_t blk_mq_unique_tag(uint64_t rq)
{
    uint64_t hctx = FIELD(rq, request, mq_hctx, uint64_t);
    return (hctx ? FIELD(hctx, blk_mq_hw_ctx, queue_num, uint32_t) << 16 : 0) | (FIELD(rq, request, tag, uint32_t) & 0xffff);
}

/* A request of a device's queue for its tag's sake: no command is behind it. */
static uint64_t blk_mq_alloc_request(uint64_t queue)
{
    for (int i = 0; i < HOSTS; i++)
        for (struct linux_scsi_device *device = hosts[i] ? hosts[i]->devices : NULL; device; device = device->next) {
            if (FIELD(device->sdev, scsi_device, request_queue, uint64_t) != queue)
                continue;
            struct slot *slot = slot_take(hosts[i], hosts[i]->hctx[0]);
            if (!slot)
                return (uint64_t)-EWOULDBLOCK;
            slot->state = SLOT_RESERVED;
            memset((void *)slot->request, 0, SIZE(request));
            FIELD(slot->request, request, q, uint64_t) = queue;
            FIELD(slot->request, request, mq_hctx, uint64_t) = hosts[i]->hctx[0];
            FIELD(slot->request, request, tag, int) = slot->tag;
            return slot->request;
        }
    return (uint64_t)-ENODEV;
}

static void blk_mq_free_request(uint64_t rq)
{
    struct slot *slot = slot_of(rq + SIZE(request));
    if (!slot || slot->state != SLOT_RESERVED)
        vmk_stop(VMK_STOP_PANIC, SITE(), rq);
    slot->state = SLOT_FREE;
}

static uint32_t blk_mq_rq_cpu(uint64_t rq)
{
    struct slot *slot = slot_of(rq + SIZE(request));
    return slot && slot->command ? slot->command->cpu : 0;
}

static void scsi_host_complete_all_commands(uint64_t shost, uint32_t status)
{
    struct linux_scsi_host *host = host_of(shost);
    for (unsigned i = 0; host && i < host->tags; i++) {
        struct slot *slot = &host->slots[i];
        if (slot->state != SLOT_IN_FLIGHT)
            continue;
        scsi_dma_unmap(slot->cmnd);
        FIELD(slot->cmnd, scsi_cmnd, result, uint32_t) = status << 16;
        scsi_done(slot->cmnd);
    }
}

static void scsi_block_requests(uint64_t shost) { BITS_SET((void *)shost, Scsi_Host, host_self_blocked, 1); }

static void scsi_unblock_requests(uint64_t shost)
{
    struct linux_scsi_host *host = host_of(shost);
    BITS_SET((void *)shost, Scsi_Host, host_self_blocked, 0);
    if (host)
        run_host(host);
}

/* ---- for Python: hosts and devices ---- */

static void host_free(struct linux_scsi_host *host)
{
    for (unsigned set = 0; host->set && set < host->sets; set++)
        vmk_free(host->set[set]);
    free(host->slots);
    free(host->set);
    free(host);
}

struct linux_scsi_host *linux_scsi_host_create(uint64_t shost, uint32_t owner, const uint64_t *hctx, unsigned cpus, unsigned sets)
{
    for (int i = 0; i < HOSTS; i++) {
        if (hosts[i])
            continue;
        struct linux_scsi_host *host = calloc(1, sizeof *host);
        if (!host)
            return NULL;
        host->shost = shost;
        host->owner = owner;
        host->cpus = cpus < CPUS ? cpus : CPUS;
        memcpy(host->hctx, hctx, host->cpus * sizeof *hctx);
        host->depth = (unsigned)FIELD(shost, Scsi_Host, can_queue, int);
        host->sets = sets;
        host->tags = host->depth * sets;
        host->set = calloc(sets, sizeof *host->set);
        host->slots = calloc(host->tags, sizeof *host->slots);
        bool there = host->set && host->slots;
        for (unsigned set = 0; there && set < sets; set++)
            there = (host->set[set] = tags_new(host->depth)) != 0;
        if (!there) {
            host_free(host);
            return NULL;
        }
        return hosts[i] = host;
    }
    return NULL;
}

uint64_t linux_scsi_host_tags(struct linux_scsi_host *host, unsigned queue)
{
    return host->set[host->sets > 1 ? queue : 0];
}

void linux_scsi_host_watch(struct linux_scsi_host *host, uint64_t task) { host->eh_task = task; }

static void forget_completed(struct slot *slot)
{
    struct slot **at = &completed;
    completed_last = NULL;
    while (*at) {
        if (*at == slot) {
            *at = slot->next;
        } else {
            completed_last = *at;
            at = &(*at)->next;
        }
    }
}

/* A command in a slot whose driver will not give it back any more. */
static void abandon(struct slot *slot)
{
    struct command *command = slot->command;
    if (!command)
        return;
    bool back = slot->state == SLOT_COMPLETED;
    if (back)
        forget_completed(slot);
    FIELD(slot->cmnd, scsi_cmnd, state, uint64_t) |= 1ull << SCMD_STATE_COMPLETE;
    unmap(command->device->host, slot); /* its driver may let go of the host without giving it back */
    leave(slot);
    slot->state = back ? SLOT_FREE : SLOT_LOST;
    refuse(command);
}

unsigned linux_scsi_host_end(struct linux_scsi_host *host)
{
    vmk_baton_take();
    unsigned lost = host->busy;
    host->ended = true;
    for (unsigned i = 0; i < host->tags; i++)
        abandon(&host->slots[i]);
    run_host(host);
    for (struct linux_scsi_device *device = host->devices; device; device = device->next)
        wake(device);
    vmk_baton_drop();
    return lost;
}

void linux_scsi_host_free(struct linux_scsi_host *host)
{
    vmk_baton_take();
    linux_scsi_host_end(host);
    for (unsigned i = 0; i < host->tags; i++)
        slot_free(host, &host->slots[i]);
    for (int i = 0; i < HOSTS; i++)
        if (hosts[i] == host)
            hosts[i] = NULL;
    host_free(host);
    vmk_baton_drop();
}

void linux_scsi_host_load(struct linux_scsi_host *host, uint32_t *busy, uint32_t *failed)
{
    *busy = host->busy;
    *failed = host->failed;
}

struct linux_scsi_device *linux_scsi_device_create(struct linux_scsi_host *host, uint64_t sdev)
{
    struct linux_scsi_device *device = calloc(1, sizeof *device), **at = &host->devices;
    if (!device)
        return NULL;
    device->host = host;
    device->owner = host->owner;
    device->sdev = sdev;
    pthread_mutex_init(&device->lock, NULL);
    while (*at)
        at = &(*at)->next;
    return *at = device;
}

void linux_scsi_device_end(struct linux_scsi_device *device)
{
    vmk_baton_take();
    struct linux_scsi_host *host = device->host;
    if (host) {
        device->ended = true;
        for (unsigned i = 0; i < host->tags; i++)
            if (host->slots[i].command && host->slots[i].command->device == device)
                abandon(&host->slots[i]);
        run_device(device);
        struct linux_scsi_device **at = &host->devices;
        while (*at && *at != device)
            at = &(*at)->next;
        if (*at)
            *at = device->next;
        device->host = NULL;
    }
    vmk_baton_drop();
    wake(device);
}

void linux_scsi_device_free(struct linux_scsi_device *device)
{
    for (struct command *command; (command = take_first(&device->done));)
        free(command);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

/* ---- for Python: commands ---- */

/* Which CPU the calling thread submits on: one kernel CPU runs all code, but threads are dealt to those that are presented. */
static unsigned submitting_cpu(const struct linux_scsi_host *host)
{
    static unsigned threads;
    static _Thread_local unsigned number; /* from 1 on; with the baton */
    if (!number)
        number = ++threads;
    return (number - 1) % host->cpus;
}

static struct command *command_new(struct linux_scsi_device *device, const struct linux_scsi_io *io)
{
    struct command *command = calloc(1, sizeof *command);
    if (!command)
        return NULL;
    command->io = *io;
    command->device = device;
    command->cpu = submitting_cpu(device->host);
    command->give_up = vmk_now() + io->timeout_ms * 1000000ull * (io->retries + 1u);
    device->queued++;
    if (io->flags & LINUX_SCSI_AT_HEAD)
        prepend(&device->waiting, command);
    else
        append(&device->waiting, command);
    return command;
}

struct submission {
    struct linux_scsi_device *device;
    const struct linux_scsi_io *ios;
    unsigned count;
    int taken;
};

static void submit(void *arg)
{
    struct submission *s = arg;
    uint32_t fits;
    if (!s->device->host) {
        s->taken = -ENODEV;
        return;
    }
    for (unsigned i = 0; i < s->count; i++) {
        fill_sg(s->device, &s->ios[i], 0, &fits);
        if (fits < s->ios[i].length) {
            s->taken = -EMSGSIZE;
            return;
        }
    }
    while ((unsigned)s->taken < s->count && s->device->queued < QUEUE_MOST && command_new(s->device, &s->ios[s->taken]))
        s->taken++;
    run_device(s->device);
}

int linux_scsi_submit(struct linux_scsi_device *device, const struct linux_scsi_io *ios, unsigned count)
{
    struct submission s = {device, ios, count, 0};
    struct vmk_result result;
    vmk_enter(submit, &s, device->owner, &result, true);
    return s.taken;
}

uint32_t linux_scsi_fits(struct linux_scsi_device *device, const struct linux_scsi_io *io)
{
    uint32_t fits = io->length;
    vmk_baton_take();
    if (device->host)
        fill_sg(device, io, 0, &fits);
    vmk_baton_drop();
    return fits;
}

int linux_scsi_reap(struct linux_scsi_device *device, struct linux_scsi_done *out, unsigned max)
{
    unsigned have = 0;
    struct command *command;
    vmk_baton_take();
    while (have < max && (command = take_first(&device->done))) {
        out[have++] = command->answer;
        free(command);
    }
    vmk_baton_drop();
    return (int)have;
}

int linux_scsi_wait(struct linux_scsi_device *device, uint64_t timeout_ns)
{
    uint64_t now = vmk_now(), deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    struct waiter me = {vmk_world_event(), NULL}, **at = &device->waiters;
    pthread_mutex_lock(&device->lock);
    me.next = device->waiters;
    waits_here = device->waiters = &me;
    pthread_mutex_unlock(&device->lock);
    while (!device->done.first && !device->ended && vmk_now() < deadline) {
        uint64_t until = device->not_before && device->not_before < deadline ? device->not_before : deadline;
        vmk_attend(until);
        if (device->not_before && vmk_now() >= device->not_before && device->host)
            linux_scsi_run(device->host);
    }
    waits_here = NULL;
    pthread_mutex_lock(&device->lock);
    while (*at != &me)
        at = &(*at)->next;
    *at = me.next;
    pthread_mutex_unlock(&device->lock);
    return device->done.first != NULL;
}

int linux_scsi_execute(struct linux_scsi_device *device, const struct linux_scsi_io *io, struct linux_scsi_done *out)
{
    vmk_baton_take();
    struct command *command = device->host ? command_new(device, io) : NULL;
    if (!command) {
        vmk_baton_drop();
        return -ENODEV;
    }
    command->task = vmk_world_task();
    run_device(device);
    while (!command->done) { /* it ends: by scsi_done, by error handling, or with its host */
        vmk_deliver();
        if (!command->done)
            vmk_world_sleep(device->not_before ? BUSY_DELAY_NS : 100000000ull);
        if (device->not_before && vmk_now() >= device->not_before && device->host)
            run_host(device->host);
        if (vmk_world_ending() && !command->done) {
            command->task = 0; /* whoever reaps frees it */
            vmk_baton_drop();
            return -EINTR;
        }
    }
    *out = command->answer;
    free(command);
    vmk_baton_drop();
    return 0;
}

void linux_scsi_stats(struct linux_scsi_device *device, struct linux_scsi_stats *out)
{
    vmk_baton_take();
    *out = device->stats;
    out->in_flight = device->busy;
    vmk_baton_drop();
}

/* ---- for Python: error handling ---- */

int linux_scsi_expired(struct linux_scsi_host *host, uint64_t *cmnds, unsigned max)
{
    unsigned have = 0;
    uint64_t now = vmk_now();
    for (unsigned i = 0; i < host->tags && have < max; i++) {
        struct slot *slot = &host->slots[i];
        if (slot->state == SLOT_IN_FLIGHT && !slot->expired && now > slot->deadline)
            cmnds[have++] = slot->cmnd;
    }
    return (int)have;
}

void linux_scsi_prolong(uint64_t cmnd)
{
    struct slot *slot = slot_of(cmnd);
    if (slot && slot->command)
        slot->deadline = vmk_now() + slot->command->io.timeout_ms * 1000000ull;
}

int linux_scsi_expire(uint64_t cmnd)
{
    struct slot *slot = slot_of(cmnd);
    if (!slot || slot->state != SLOT_IN_FLIGHT)
        return 0;
    FIELD(cmnd, scsi_cmnd, state, uint64_t) |= 1ull << SCMD_STATE_COMPLETE;
    slot->expired = true;
    FIELD(slot->command->device->sdev, scsi_device, iotmo_cnt, int)++;
    if (!slot->deadline)
        return LINUX_SCSI_GIVEN_UP;
    slot->command->device->stats.timeouts++;
    return LINUX_SCSI_TIMED_OUT;
}

void linux_scsi_fail(uint64_t cmnd)
{
    struct slot *slot = slot_of(cmnd);
    if (slot && slot->state == SLOT_IN_FLIGHT)
        to_error_handler(slot);
}

/* Whether the scsi_cmnd's own count, which error handlers change, leaves it another try. */
static bool may_try_again(struct slot *slot)
{
    struct linux_scsi_host *host = slot->command->device->host;
    int64_t state = FIELD(slot->command->device->sdev, scsi_device, sdev_state, uint32_t);
    int *retries = &FIELD(slot->cmnd, scsi_cmnd, retries, int), allowed = FIELD(slot->cmnd, scsi_cmnd, allowed, int);
    uint64_t hostt = FIELD(host->shost, Scsi_Host, hostt, uint64_t);
    uint64_t should = FIELD(hostt, scsi_host_template, eh_should_retry_cmd, uint64_t);
    if (state == ENUM(SDEV_OFFLINE) || state == ENUM(SDEV_TRANSPORT_OFFLINE) || state == ENUM(SDEV_DEL))
        return false;
    if (++*retries > allowed || (should && !((bool (*)(uint64_t))should)(slot->cmnd)))
        return false;
    slot->command->retries = *retries;
    slot->command->io.retries = allowed < UINT8_MAX ? (uint8_t)allowed : UINT8_MAX;
    return true;
}

void linux_scsi_release(uint64_t cmnd)
{
    struct slot *slot = slot_of(cmnd);
    if (!slot || !slot->command || !(slot->state == SLOT_FAILED || slot->expired))
        return;
    if (may_try_again(slot) && again(slot, false, false))
        return;
    if (!FIELD(cmnd, scsi_cmnd, result, int32_t) && !(FIELD(cmnd, scsi_cmnd, flags, int) & SCMD_FORCE_EH_SUCCESS))
        FIELD(cmnd, scsi_cmnd, result, int32_t) = DID_TIME_OUT << 16;
    finish_slot(slot);
}

int linux_scsi_failed(struct linux_scsi_host *host, uint64_t *cmnds, unsigned max)
{
    unsigned have = 0;
    for (unsigned i = 0; i < host->tags && have < max; i++)
        if (host->slots[i].state == SLOT_FAILED)
            cmnds[have++] = host->slots[i].cmnd;
    return (int)have;
}

int linux_scsi_eh_back(uint64_t cmnd)
{
    struct slot *slot = slot_of(cmnd);
    bool back = slot && slot->eh_done;
    if (back)
        slot->eh_done = false;
    return back;
}

const struct linux_api scsi_lib_api[] = {
    API(scsi_done, "done", "A driver gives a command back; the softirq judges it.", NULL),
    API(scsi_dma_map, "done", "Gives a command's scatter list its DMA addresses.", NULL),
    API(scsi_dma_unmap, "done", "Ends that mapping.", NULL),
    API(scsi_kmap_atomic_sg, "done", "Finds the page that a byte of a scatter list lies in.", NULL),
    API(scsi_kunmap_atomic_sg, "no-op", "Ends that.", "Machine memory stays mapped."),
    API(scsi_host_busy, "done", "How many commands the driver has.", NULL),
    API(scsi_host_busy_iter, "done", "Calls a function for each command that the driver has.", NULL),
    API(scsi_host_complete_all_commands, "done", "Ends every command that the driver has, with one host status.", NULL),
    API_AS("scsi_check_sense", linux_scsi_check_sense, "done", "What is to become of a command, by its sense data.",
           "The mid-layer's own byte of the result is not set: the vmkernel reads the sense data itself."),
    API(blk_abort_request, "done", "Has a command treated as one whose time is up, now.", NULL),
    API(scsi_block_requests, "done", "Holds back new commands of a host.", NULL),
    API(scsi_unblock_requests, "done", "Lets the commands of a host go on.", NULL),
    API(sbitmap_weight, "done", "How many bits of a map are set; of a device's, how many commands the driver has.", NULL),
    API(blk_mq_tagset_busy_iter, "done", "Calls a function for each request in flight.", NULL),
    API(blk_mq_unique_tag, "done", "A request's tag with the number of its hardware queue.", NULL),
    API(blk_mq_alloc_request, "partial", "Gives a driver a tag of its own.",
        "Of SCSI devices only. It waits for none: -EWOULDBLOCK when all are taken. No command can be sent with it."),
    API(blk_mq_free_request, "done", "Takes that back.", NULL),
    API(blk_mq_rq_cpu, "done", "The CPU on which a request was queued.", NULL),
    API_END,
};
