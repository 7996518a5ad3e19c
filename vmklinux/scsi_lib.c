/* SCSI commands, the part that runs per command (Linux drivers/scsi/scsi_lib.c): from submission to reaping. Its slots
 * stand for what block/blk-mq.c does below it.
 *
 * A command waits in its device's queue until the device, the host and a tag have room; it then occupies a slot, which
 * is a struct request with its scsi_cmnd, as blk-mq lays them out. What is done waits for linux_scsi_reap. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmklinux/scsi_priv.h"

struct linux_scsi_host *scsi_hosts[HOSTS];
static struct slot *completed, *completed_last;

static uint32_t *preempt_count(void) { return (uint32_t *)vmk_cpu.preempt_slot; }

struct linux_scsi_host *scsi_host_of(uint64_t shost)
{
    for (int i = 0; i < HOSTS; i++)
        if (scsi_hosts[i] && scsi_hosts[i]->shost == shost)
            return scsi_hosts[i];
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

struct slot *scsi_slot_take(struct linux_scsi_host *host, uint64_t hctx)
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
struct slot *scsi_slot_at(uint64_t cmnd, struct linux_scsi_host **host)
{
    uint64_t rq = cmnd - SIZE(request), hctx = FIELD(rq, request, mq_hctx, uint64_t);
    uint32_t tag = FIELD(rq, request, tag, uint32_t);
    for (int i = 0; i < HOSTS; i++) {
        *host = scsi_hosts[i];
        unsigned at = *host ? first_of(*host, hctx) + tag : 0;
        if (*host && tag < (*host)->depth && at < (*host)->tags && (*host)->slots[at].cmnd == cmnd)
            return &(*host)->slots[at];
    }
    *host = NULL;
    return NULL;
}

struct slot *scsi_slot_of(uint64_t cmnd)
{
    struct linux_scsi_host *host;
    return scsi_slot_at(cmnd, &host);
}

/* ---- dispatch ---- */

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
    uint32_t fits, segments = scsi_fill_sg(device, io, slot->sg, &fits);
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

/* Whether a command failed; a recovered error is told, but the command did what it was to do. */
static bool failed(int32_t result, const uint8_t *sense, uint32_t sense_length)
{
    uint8_t key, asc, ascq;
    bool deferred;
    if (result != STATUS_CHECK_CONDITION || sense_length < 8 || !scsi_sense_read(sense, &key, &asc, &ascq, &deferred))
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

void scsi_finish_slot(struct slot *slot)
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
    struct slot *slot = scsi_slot_take(host, host->hctx[command->cpu]);
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

/* scsi_eh_scmd_add: from here on the command is in the list that error handlers, ours or the driver's own, work on. */
void scsi_to_error_handler(struct slot *slot)
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
bool scsi_again(struct slot *slot, bool counted, bool later)
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
    switch (scsi_judge(slot)) {
    case RETRY:
        if (!scsi_again(slot, true, false))
            scsi_finish_slot(slot);
        break;
    case REQUEUE:
        if (!scsi_again(slot, false, true))
            scsi_finish_slot(slot);
        break;
    case FAIL:
        scsi_to_error_handler(slot);
        break;
    case FINISH:
        scsi_finish_slot(slot);
        break;
    }
}

static void scsi_done(uint64_t cmnd)
{
    struct slot *slot = scsi_slot_of(cmnd);
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
    struct slot *slot = scsi_slot_at(rq + SIZE(request), &host);
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

/* ---- what drivers ask of a host ---- */

static void scsi_host_complete_all_commands(uint64_t shost, uint32_t status)
{
    struct linux_scsi_host *host = scsi_host_of(shost);
    for (unsigned i = 0; host && i < host->tags; i++) {
        struct slot *slot = &host->slots[i];
        if (slot->state != SLOT_IN_FLIGHT)
            continue;
        scsi_unmap(host, slot);
        FIELD(slot->cmnd, scsi_cmnd, result, uint32_t) = status << 16;
        scsi_done(slot->cmnd);
    }
}

static void scsi_block_requests(uint64_t shost) { BITS_SET((void *)shost, Scsi_Host, host_self_blocked, 1); }

static void scsi_unblock_requests(uint64_t shost)
{
    struct linux_scsi_host *host = scsi_host_of(shost);
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
        if (scsi_hosts[i])
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
        return scsi_hosts[i] = host;
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
    scsi_unmap(command->device->host, slot); /* its driver may let go of the host without giving it back */
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
        if (scsi_hosts[i] == host)
            scsi_hosts[i] = NULL;
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
        scsi_fill_sg(s->device, &s->ios[i], 0, &fits);
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
        scsi_fill_sg(device, io, 0, &fits);
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

const struct linux_api scsi_lib_api[] = {
    API(scsi_done, "done", "A driver gives a command back; the softirq judges it.", NULL),
    API(scsi_host_complete_all_commands, "done", "Ends every command that the driver has, with one host status.", NULL),
    API(blk_abort_request, "done", "Has a command treated as one whose time is up, now.", NULL),
    API(scsi_block_requests, "done", "Holds back new commands of a host.", NULL),
    API(scsi_unblock_requests, "done", "Lets the commands of a host go on.", NULL),
    API_END,
};
