/* Tags and requests in flight, as block/blk-mq.c shows them to drivers. */
#include <errno.h>
#include <string.h>

#include "vmklinux/scsi_priv.h"

static struct linux_scsi_host *host_of_tags(uint64_t tag_set)
{
    return scsi_host_of(tag_set - linux_field[L_Scsi_Host__tag_set]);
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
    struct linux_scsi_host *host = scsi_host_of(shost);
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
        for (struct linux_scsi_device *device = scsi_hosts[i] ? scsi_hosts[i]->devices : NULL; device; device = device->next)
            if ((uint64_t)INNER(device->sdev, scsi_device, budget_map) == map)
                return device->busy;
    for (uint32_t i = 0; i < FIELD(map, sbitmap, map_nr, uint32_t); i++, word += SIZE(sbitmap_word))
        set += (uint32_t)(__builtin_popcountll(FIELD(word, sbitmap_word, word, uint64_t)) -
                          __builtin_popcountll(FIELD(word, sbitmap_word, cleared, uint64_t)));
    return set;
}

static int scsi_host_busy(uint64_t shost)
{
    struct linux_scsi_host *host = scsi_host_of(shost);
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
        for (struct linux_scsi_device *device = scsi_hosts[i] ? scsi_hosts[i]->devices : NULL; device; device = device->next) {
            if (FIELD(device->sdev, scsi_device, request_queue, uint64_t) != queue)
                continue;
            struct slot *slot = scsi_slot_take(scsi_hosts[i], scsi_hosts[i]->hctx[0]);
            if (!slot)
                return (uint64_t)-EWOULDBLOCK;
            slot->state = SLOT_RESERVED;
            memset((void *)slot->request, 0, SIZE(request));
            FIELD(slot->request, request, q, uint64_t) = queue;
            FIELD(slot->request, request, mq_hctx, uint64_t) = scsi_hosts[i]->hctx[0];
            FIELD(slot->request, request, tag, int) = slot->tag;
            return slot->request;
        }
    return (uint64_t)-ENODEV;
}

static void blk_mq_free_request(uint64_t rq)
{
    struct slot *slot = scsi_slot_of(rq + SIZE(request));
    if (!slot || slot->state != SLOT_RESERVED)
        vmk_stop(VMK_STOP_PANIC, SITE(), rq);
    slot->state = SLOT_FREE;
}

static uint32_t blk_mq_rq_cpu(uint64_t rq)
{
    struct slot *slot = scsi_slot_of(rq + SIZE(request));
    return slot && slot->command ? slot->command->cpu : 0;
}

const struct linux_api blk_mq_api[] = {
    API(scsi_host_busy, "done", "How many commands the driver has.", NULL),
    API(scsi_host_busy_iter, "done", "Calls a function for each command that the driver has.", NULL),
    API(sbitmap_weight, "done", "How many bits of a map are set; of a device's, how many commands the driver has.", NULL),
    API(blk_mq_tagset_busy_iter, "done", "Calls a function for each request in flight.", NULL),
    API(blk_mq_unique_tag, "done", "A request's tag with the number of its hardware queue.", NULL),
    API(blk_mq_alloc_request, "partial", "Gives a driver a tag of its own.",
        "Of SCSI devices only. It waits for none: -EWOULDBLOCK when all are taken. No command can be sent with it."),
    API(blk_mq_free_request, "done", "Takes that back.", NULL),
    API(blk_mq_rq_cpu, "done", "The CPU on which a request was queued.", NULL),
    API_END,
};
