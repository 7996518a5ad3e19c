/* net_device, the part that runs per packet: NAPI, transmission from and reception to a port
 * (Linux net/core/dev.c). A port is what an uplink of vmkernel_core holds of a net_device. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmklinux/inet.h"
#include "vmklinux/linux.h"

#define PORTS 64
#define HEADROOM 128u
#define BUDGET 300          /* net_hotdata.netdev_budget: frames one softirq pass may take */
#define NETDEV_TX_OK 0
#define SOFTIRQ_OFFSET 0x100u
#define SOFTIRQ_DISABLE_OFFSET 0x200u
#define PREEMPT_SOFTIRQ_AND_IRQ 0x00ffff00u
/* Where the device gathers, a frame longer than LINEAR has LINEAR_PART bytes, room for all headers, in its skb and the
 * rest in pages: a 64 KiB frame needs no contiguous 64 KiB then. */
#define LINEAR 3072u
#define LINEAR_PART 256u
#define FRAGMENT_ORDER 2u /* 16 KiB: four to a frame, of the 17 that an skb holds */
#define NAPI_DISABLE_LIMIT_NS 10000000000ull

static struct linux_port *ports[PORTS];
static struct list_head poll_list;

static uint32_t *preempt_count(void) { return (uint32_t *)vmk_cpu.preempt_slot; }
static bool bit(uint64_t word, int64_t number) { return word >> number & 1; }

struct linux_port *linux_port_of(uint64_t device)
{
    for (int i = 0; i < PORTS; i++)
        if (ports[i] && ports[i]->device == device)
            return ports[i];
    return NULL;
}

/* ---- NAPI ---- */

static uint64_t *napi_state(uint64_t napi) { return &FIELD(napi, napi_struct, state, uint64_t); }
static struct list_head *napi_list(uint64_t napi) { return &FIELD(napi, napi_struct, poll_list, struct list_head); }
static uint64_t napi_at(struct list_head *entry) { return (uint64_t)entry - linux_field[L_napi_struct__poll_list]; }

void linux_napi_start(void) { list_init(&poll_list); }

static void netif_napi_add_weight(uint64_t device, uint64_t napi, uint64_t poll, int weight)
{
    list_init(napi_list(napi));
    FIELD(napi, napi_struct, poll, uint64_t) = poll;
    FIELD(napi, napi_struct, weight, int) = weight;
    FIELD(napi, napi_struct, dev, uint64_t) = device;
    FIELD(napi, napi_struct, skb, uint64_t) = 0;
    *napi_state(napi) = 1ull << ENUM(NAPI_STATE_SCHED) | 1ull << ENUM(NAPI_STATE_NPSVC) | 1ull << ENUM(NAPI_STATE_LISTED);
    list_add_tail(&FIELD(napi, napi_struct, dev_list, struct list_head),
                  &FIELD(device, net_device, napi_list, struct list_head));
}

static void __netif_napi_del(uint64_t napi)
{
    if (!bit(*napi_state(napi), ENUM(NAPI_STATE_LISTED)))
        return;
    *napi_state(napi) &= ~(1ull << ENUM(NAPI_STATE_LISTED));
    list_del(&FIELD(napi, napi_struct, dev_list, struct list_head));
    list_del(napi_list(napi));
    kfree_skb_now(FIELD(napi, napi_struct, skb, void *));
    FIELD(napi, napi_struct, skb, void *) = NULL;
}

static void napi_enable(uint64_t napi)
{
    *napi_state(napi) &= ~(1ull << ENUM(NAPI_STATE_SCHED) | 1ull << ENUM(NAPI_STATE_NPSVC));
}

static void __napi_schedule(uint64_t napi)
{
    list_del(napi_list(napi));
    list_add_tail(napi_list(napi), &poll_list);
    if (!vmk_delivering)
        vmk_kick();
}

static uint64_t napi_schedule_prep(uint64_t napi)
{
    uint64_t *state = napi_state(napi), was = *state;
    if (bit(was, ENUM(NAPI_STATE_DISABLE)))
        return 0;
    *state |= 1ull << ENUM(NAPI_STATE_SCHED);
    if (bit(was, ENUM(NAPI_STATE_SCHED))) {
        *state |= 1ull << ENUM(NAPI_STATE_MISSED);
        return 0;
    }
    return 1;
}

static uint64_t napi_complete_done(uint64_t napi, int work)
{
    (void)work;
    uint64_t *state = napi_state(napi);
    if (bit(*state, ENUM(NAPI_STATE_NPSVC)))
        return 0;
    list_del(napi_list(napi));
    bool missed = bit(*state, ENUM(NAPI_STATE_MISSED));
    *state &= ~(1ull << ENUM(NAPI_STATE_MISSED) | 1ull << ENUM(NAPI_STATE_SCHED));
    if (missed) {
        *state |= 1ull << ENUM(NAPI_STATE_SCHED);
        __napi_schedule(napi);
    }
    return !missed;
}

static void napi_disable(uint64_t napi)
{
    uint64_t *state = napi_state(napi), busy = 1ull << ENUM(NAPI_STATE_SCHED) | 1ull << ENUM(NAPI_STATE_NPSVC);
    uint64_t limit = vmk_now() + NAPI_DISABLE_LIMIT_NS;
    *state |= 1ull << ENUM(NAPI_STATE_DISABLE);
    while (*state & busy) {
        if (vmk_now() > limit)
            vmk_stop(VMK_STOP_PANIC, SITE(), napi);
        vmk_deliver();
        if (*state & busy)
            vmk_world_sleep(20000); /* the poll runs in another world: let it */
    }
    *state = (*state | busy) & ~(1ull << ENUM(NAPI_STATE_DISABLE));
}

void linux_napi_forget(uint64_t low, uint64_t high)
{
    vmk_baton_take();
    for (struct list_head *entry = poll_list.next, *next; entry && entry != &poll_list; entry = next) {
        uint64_t poll = FIELD(napi_at(entry), napi_struct, poll, uint64_t);
        next = entry->next;
        if (poll >= low && poll < high)
            list_del(entry);
    }
    vmk_baton_drop();
}

struct poll {
    uint64_t napi;
    int weight, work;
};

static void poll_once(void *arg)
{
    struct poll *poll = arg;
    poll->work = FIELD(poll->napi, napi_struct, poll, int (*)(uint64_t, int))(poll->napi, poll->weight);
}

bool linux_softirq_run(void)
{
    struct list_head *last = poll_list.prev;
    if (last == &poll_list)
        return false;
    *preempt_count() += SOFTIRQ_OFFSET;
    for (int left = BUDGET; left > 0 && poll_list.next != &poll_list;) {
        struct list_head *entry = poll_list.next;
        uint64_t napi = napi_at(entry);
        struct poll poll = {napi, FIELD(napi, napi_struct, weight, int), -1};
        uint64_t device = FIELD(napi, napi_struct, dev, uint64_t);
        vmk_guarded(poll_once, &poll, (uint32_t)FIELD(napi, napi_struct, poll, uint64_t));
        linux_gro_flush(device);
        if (poll.work < 0) { /* the driver was stopped inside: its NAPI does not run again */
            list_del(entry);
            continue;
        }
        left -= poll.work > 0 ? poll.work : 1;
        if (poll.work >= poll.weight) {
            if (bit(*napi_state(napi), ENUM(NAPI_STATE_DISABLE))) {
                napi_complete_done(napi, poll.work);
            } else {
                list_del(entry);
                list_add_tail(entry, &poll_list);
            }
        }
        if (entry == last)
            break;
    }
    *preempt_count() -= SOFTIRQ_OFFSET;
    return poll_list.next != &poll_list;
}

static void __local_bh_enable_ip(uint64_t ip, uint32_t count)
{
    (void)ip;
    *preempt_count() -= count;
    if (!(*preempt_count() & PREEMPT_SOFTIRQ_AND_IRQ))
        vmk_deliver();
}

/* ---- transmission ---- */

static uint64_t tx_queue(struct linux_port *port, unsigned number)
{
    return FIELD(port->device, net_device, tx, uint64_t) + number * SIZE(netdev_queue);
}

static bool tx_stopped(uint64_t queue)
{
    uint64_t off = 1ull << ENUM(QUEUE_STATE_DRV_XOFF) | 1ull << ENUM(QUEUE_STATE_STACK_XOFF) |
                   1ull << ENUM(QUEUE_STATE_FROZEN);
    return (FIELD(queue, netdev_queue, state, uint64_t) & off) != 0;
}

/* Frames of one flow hash alike, so that they stay in order: addresses and ports of TCP and UDP, addresses of the rest
 * of IP, else the Ethernet addresses. */
static uint32_t flow_hash(const uint8_t *frame, uint32_t length)
{
    uint32_t at = frame_is_tagged((const char *)frame) ? 18 : 14, from = 0, bytes = 12, hash = 0;
    uint16_t type = (uint16_t)(frame[at - 2] << 8 | frame[at - 1]);
    if (type == ETH_P_IP && length >= at + 20) {
        bool whole = !(frame[at + 6] & 0x3f) && !frame[at + 7]; /* a fragment has no ports */
        bool ports = (frame[at + 9] == IPPROTO_TCP || frame[at + 9] == IPPROTO_UDP) && whole && frame[at] == 0x45;
        from = at + 12;
        bytes = ports && length >= at + 24 ? 12 : 8;
    } else if (type == ETH_P_IPV6 && length >= at + 40) {
        bool ports = frame[at + 6] == IPPROTO_TCP || frame[at + 6] == IPPROTO_UDP;
        from = at + 8;
        bytes = ports && length >= at + 44 ? 36 : 32;
    }
    for (uint32_t i = 0; i < bytes; i += 4) {
        uint32_t word;
        memcpy(&word, frame + from + i, 4);
        hash = (hash ^ word) * 0x9e3779b1u; /* 2^32 / the golden ratio: Knuth, TAOCP 3, 6.4 */
        hash ^= hash >> 15;
    }
    return hash;
}

static uint16_t queue_by_flow(uint64_t device, const uint8_t *frame, uint32_t length)
{
    uint64_t queues = FIELD(device, net_device, real_num_tx_queues, uint32_t);
    return (uint16_t)(flow_hash(frame, length) * queues >> 32);
}

/* What a driver's ndo_select_queue falls back to. */
static uint16_t netdev_pick_tx(uint64_t device, void *skb)
{
    uint32_t linear = FIELD(skb, sk_buff, len, uint32_t) - FIELD(skb, sk_buff, data_len, uint32_t);
    return linear < 14 ? 0 : queue_by_flow(device, FIELD(skb, sk_buff, data, uint8_t *), linear);
}

/* The queue for an skb (Linux netdev_core_pick_tx): the driver's choice, else by flow. */
static unsigned pick_queue(struct linux_port *port, void *skb, const char *data, uint32_t length)
{
    uint32_t queues = FIELD(port->device, net_device, real_num_tx_queues, uint32_t), number = 0;
    if (queues > 1) {
        uint16_t (*select)(uint64_t, void *, uint64_t) =
            FIELD(FIELD(port->device, net_device, netdev_ops, uint64_t), net_device_ops, ndo_select_queue,
                  uint16_t (*)(uint64_t, void *, uint64_t));
        number = select ? select(port->device, skb, 0)
                        : queue_by_flow(port->device, (const uint8_t *)data, length);
    }
    return number < queues ? number : 0;
}

static bool running(struct linux_port *port)
{
    uint64_t state = FIELD(port->device, net_device, state, uint64_t);
    return bit(state, ENUM(LINK_STATE_START)) && !bit(state, ENUM(LINK_STATE_NOCARRIER));
}

/* Puts the rest of a frame into pages of the skb. Whether there was memory. */
static bool add_pages(void *skb, const char *data, uint32_t length, uint32_t owner)
{
    char *info = (char *)FIELD(skb, sk_buff, head, uint8_t *) + FIELD(skb, sk_buff, end, uint32_t);
    for (uint32_t size; length; length -= size, data += size) {
        uint64_t page = linux_pages_new(FRAGMENT_ORDER, owner);
        if (!page)
            return false;
        size = length < 4096u << FRAGMENT_ORDER ? length : 4096u << FRAGMENT_ORDER;
        memcpy((void *)linux_page_address(page), data, size);
        linux_frag_add(info, page, size);
        FIELD(skb, sk_buff, data_len, uint32_t) += size;
        FIELD(skb, sk_buff, truesize, uint32_t) += 4096u << FRAGMENT_ORDER;
    }
    return true;
}

static void *skb_for(struct linux_port *port, const char *data, const struct linux_frame *frame)
{
    bool gathers = bit(FIELD(port->device, net_device, features, uint64_t), ENUM(NETIF_F_SG));
    uint32_t linear = gathers && frame->length > LINEAR ? LINEAR_PART : frame->length;
    void *skb = skb_new(linear, HEADROOM, port->owner);
    if (!skb)
        return NULL;
    uint8_t *start = FIELD(skb, sk_buff, data, uint8_t *);
    uint16_t offset = (uint16_t)(start - FIELD(skb, sk_buff, head, uint8_t *));
    memcpy(start, data, linear);
    FIELD(skb, sk_buff, len, uint32_t) = frame->length;
    FIELD(skb, sk_buff, tail, uint32_t) += linear;
    if (linear < frame->length && !add_pages(skb, data + linear, frame->length - linear, port->owner)) {
        kfree_skb_now(skb);
        return NULL;
    }
    FIELD(skb, sk_buff, dev, uint64_t) = port->device;
    FIELD(skb, sk_buff, mac_header, uint16_t) = offset;
    FIELD(skb, sk_buff, network_header, uint16_t) = (uint16_t)(offset + ETH_HLEN + (frame_is_tagged(data) ? VLAN_HLEN : 0));
    memcpy(INNER(skb, sk_buff, protocol), data + 12, 2);
    FIELD(skb, sk_buff, queue_mapping, uint16_t) = (uint16_t)pick_queue(port, skb, data, frame->length);
    if (frame->vlan) {
        FIELD(skb, sk_buff, vlan_proto, uint16_t) = __builtin_bswap16(ETH_P_8021Q);
        FIELD(skb, sk_buff, vlan_tci, uint16_t) = (uint16_t)frame->vlan;
        if (HAS_BITS(sk_buff, vlan_present))
            BITS_SET(skb, sk_buff, vlan_present, 1);
    }
    if (frame->flags & LINUX_FRAME_NEEDS_CSUM) {
        BITS_SET(skb, sk_buff, ip_summed, CHECKSUM_PARTIAL);
        FIELD(skb, sk_buff, csum_start, uint16_t) = (uint16_t)(offset + frame->csum_start);
        FIELD(skb, sk_buff, csum_offset, uint16_t) = frame->csum_offset;
        FIELD(skb, sk_buff, transport_header, uint16_t) = (uint16_t)(offset + frame->csum_start);
    }
    if (frame->gso_type != LINUX_GSO_NONE && frame->gso_size) {
        char *info = (char *)FIELD(skb, sk_buff, head, uint8_t *) + FIELD(skb, sk_buff, end, uint32_t);
        FIELD(info, skb_shared_info, gso_size, uint16_t) = frame->gso_size;
        FIELD(info, skb_shared_info, gso_type, uint32_t) =
            (uint32_t)(frame->gso_type == LINUX_GSO_TCPV4 ? ENUM(SKB_GSO_TCPV4) : ENUM(SKB_GSO_TCPV6));
        FIELD(info, skb_shared_info, gso_segs, uint16_t) =
            (uint16_t)((frame->length - frame->header_length + frame->gso_size - 1u) / frame->gso_size);
    }
    return skb;
}

struct transmission {
    struct linux_port *port;
    const char *data;
    const struct linux_frame *frames;
    unsigned count, sent;
    int error;
};

static struct port_limits limits_of(struct linux_port *port)
{
    uint64_t features = FIELD(port->device, net_device, features, uint64_t);
    uint64_t sums = 1ull << ENUM(NETIF_F_HW_CSUM) | 1ull << ENUM(NETIF_F_IP_CSUM) | 1ull << ENUM(NETIF_F_IPV6_CSUM);
    return (struct port_limits){
        .mtu = FIELD(port->device, net_device, mtu, uint32_t),
        .gso_max_size = FIELD(port->device, net_device, gso_max_size, uint32_t),
        .gso_max_segs = FIELD(port->device, net_device, gso_max_segs, uint16_t),
        .checksum = features & sums,
        .tso = bit(features, ENUM(NETIF_F_TSO)),
        .tso6 = bit(features, ENUM(NETIF_F_TSO6)),
    };
}

static void transmit(void *arg)
{
    struct transmission *t = arg;
    struct linux_port *port = t->port;
    if (!port->device) {
        t->error = -ENODEV;
        return;
    }
    uint8_t *more = (uint8_t *)(vmk_cpu.gs_base + SYMBOL(softnet_data) + linux_field[L_softnet_data__more]);
    int (*xmit)(void *, uint64_t) = FIELD(FIELD(port->device, net_device, netdev_ops, uint64_t), net_device_ops,
                                          ndo_start_xmit, int (*)(void *, uint64_t));
    const struct port_limits limits = limits_of(port);
    const char *data = t->data;
    for (unsigned i = 0; i < t->count; data += t->frames[i++].length)
        if ((t->error = port_judge(&limits, data, &t->frames[i])))
            return;
    vmk_service();
    vmk_deliver_lazily();
    if (!port->device || !running(port)) {
        t->error = -ENETDOWN;
        return;
    }
    *preempt_count() += SOFTIRQ_DISABLE_OFFSET;
    vmk_cork();
    void *skb = t->count ? skb_for(port, t->data, t->frames) : NULL;
    while (skb) {
        const struct linux_frame *frame = &t->frames[t->sent];
        unsigned number = FIELD(skb, sk_buff, queue_mapping, uint16_t);
        uint64_t queue = tx_queue(port, number);
        if (tx_stopped(queue)) {
            port->blocked = number;
            kfree_skb_now(skb);
            break;
        }
        /* The next one exists before this one is told that more follow: else nobody would ring the doorbell. */
        const char *next_data = t->data + frame->length;
        void *next = t->sent + 1 < t->count ? skb_for(port, next_data, frame + 1) : NULL;
        /* A frame to be cut may need more room than there is: what is before it must not wait for it. */
        *more = next != NULL && FIELD(next, sk_buff, queue_mapping, uint16_t) == number && !frame[1].gso_size;
        if (xmit(skb, port->device) != NETDEV_TX_OK) {
            port->stats.tx_busy++;
            port->blocked = number;
            kfree_skb_now(skb);
            kfree_skb_now(next);
            break;
        }
        FIELD(queue, netdev_queue, trans_start, uint64_t) = linux_jiffies();
        t->sent++;
        t->data = next_data;
        port->stats.tx_frames++;
        port->stats.tx_bytes += frame->length;
        skb = next;
    }
    *more = 0;
    vmk_uncork();
    *preempt_count() -= SOFTIRQ_DISABLE_OFFSET;
}

int linux_port_transmit(struct linux_port *port, const char *data, const struct linux_frame *frames, unsigned count,
                        struct vmk_result *result)
{
    struct transmission t = {port, data, frames, count, 0, 0};
    vmk_enter(transmit, &t, port->owner, result, true);
    if (result->stop) {
        vmk_baton_take();
        vmk_uncork(); /* what the driver had written before */
        vmk_baton_drop();
        return -EIO;
    }
    return t.error ? t.error : (int)t.sent;
}

static void netif_tx_wake_queue(uint64_t queue)
{
    uint64_t *state = &FIELD(queue, netdev_queue, state, uint64_t), off = 1ull << ENUM(QUEUE_STATE_DRV_XOFF);
    if (!(*state & off))
        return;
    *state &= ~off;
    struct linux_port *port = linux_port_of(FIELD(queue, netdev_queue, dev, uint64_t));
    if (port)
        linux_port_wake(port);
}

static void netif_schedule_queue(uint64_t queue)
{
    struct linux_port *port = linux_port_of(FIELD(queue, netdev_queue, dev, uint64_t));
    if (port)
        linux_port_wake(port);
}

/* ---- ports ---- */

void linux_port_wake(struct linux_port *port) { port_waiters_wake(&port->waiters); }

struct linux_port *linux_port_create(uint64_t device, uint32_t owner)
{
    for (int i = 0; i < PORTS; i++) {
        if (ports[i])
            continue;
        struct linux_port *port = calloc(1, sizeof *port);
        if (!port)
            return NULL;
        port_waiters_init(&port->waiters);
        port->device = device;
        port->owner = owner;
        return ports[i] = port;
    }
    return NULL;
}

void linux_port_end(struct linux_port *port)
{
    port->ended = true;
    linux_port_wake(port);
}

void linux_port_detach(struct linux_port *port)
{
    vmk_baton_take();
    port->device = 0;
    for (int i = 0; i < PORTS; i++)
        if (ports[i] == port)
            ports[i] = NULL;
    linux_gro_drop(port);
    while (port->head != port->tail)
        kfree_skb_now(port->ring[port->tail++ % LINUX_PORT_RING]);
    vmk_baton_drop();
    linux_port_end(port);
}

void linux_port_free(struct linux_port *port)
{
    port_waiters_fini(&port->waiters);
    free(port);
}

static int ready(void *it)
{
    struct linux_port *port = it;
    if (!port->device)
        return LINUX_PORT_END;
    return (port->head != port->tail ? LINUX_PORT_RX : 0) | (!tx_stopped(tx_queue(port, port->blocked)) ? LINUX_PORT_TX : 0) |
           (port->ended ? LINUX_PORT_END : 0);
}

int linux_port_wait(struct linux_port *port, int events, uint64_t timeout_ns)
{
    return port_waiters_wait(&port->waiters, ready, port, events, timeout_ns);
}

void linux_port_stats(struct linux_port *port, struct linux_port_stats *out)
{
    vmk_baton_take();
    *out = port->stats;
    vmk_baton_drop();
}

const struct linux_api netdevice_api[] = {
    API(netdev_pick_tx, "done", "The transmit queue for a frame, by its flow.", "XPS and traffic classes choose nothing."),
    API(netif_napi_add_weight, "done", "Registers a NAPI context.", "No busy polling and no threaded mode."),
    API(__netif_napi_del, "done", "Removes a NAPI context.", NULL),
    API(napi_enable, "done", "Lets a NAPI context be scheduled.", NULL),
    API(napi_disable, "done", "Waits for a NAPI context to end and keeps it.", NULL),
    API(napi_schedule_prep, "done", "Whether the caller may schedule.", NULL),
    API(__napi_schedule, "done", "Queues a NAPI context for polling.", NULL),
    API_AS("__napi_schedule_irqoff", __napi_schedule, "done", "Queues a NAPI context for polling.", NULL),
    API(napi_complete_done, "partial", "Ends polling.", "No deferral of interrupts (gro_flush_timeout)."),
    API(netif_tx_wake_queue, "done", "Lets a transmit queue take frames again.", NULL),
    API(netif_schedule_queue, "done", "Tells that a queue has room.", "There is no qdisc to run."),
    API(__local_bh_enable_ip, "done", "Enables softirqs again and runs those that wait.", NULL),
    API_END,
};
