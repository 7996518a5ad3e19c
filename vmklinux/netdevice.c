/* net_device, the part that runs per packet: NAPI, transmission from and reception to a port
 * (Linux net/core/dev.c). A port is what an uplink of vmkernel_core holds of a net_device. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmklinux/linux.h"

#define PORTS 64
#define RING 4096u          /* frames that wait for receive(); a power of two */
#define HEADROOM 128u
#define BUDGET 300          /* net_hotdata.netdev_budget: frames one softirq pass may take */
#define NETDEV_TX_OK 0
#define CHECKSUM_PARTIAL 3  /* include/linux/skbuff.h */
#define SOFTIRQ_OFFSET 0x100u
#define SOFTIRQ_DISABLE_OFFSET 0x200u
#define PREEMPT_SOFTIRQ_AND_IRQ 0x00ffff00u
#define ETH_HLEN 14u
#define VLAN_HLEN 4u
#define GSO_MAX_SIZE 65535u
#define GSO_MIN_SIZE 64u /* below, e1000 cuts so finely that a full frame needs more descriptors than its ring has */
#define ETH_P_8021Q 0x8100u
#define NAPI_DISABLE_LIMIT_NS 10000000000ull

struct linux_port {
    uint64_t device;
    uint32_t owner;
    unsigned head, tail; /* of ring; head - tail frames wait */
    unsigned waiting;
    bool ended;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct linux_port_stats stats;
    void *ring[RING];
};

static struct linux_port *ports[PORTS];
static struct list_head poll_list;

static uint32_t *preempt_count(void) { return (uint32_t *)vmk_cpu.preempt_slot; }
static bool bit(uint64_t word, int64_t number) { return word >> number & 1; }

static struct linux_port *port_of(uint64_t device)
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
        vmk_guarded(poll_once, &poll, (uint32_t)FIELD(napi, napi_struct, poll, uint64_t));
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

/* ---- reception ---- */

static void wake(struct linux_port *port)
{
    pthread_mutex_lock(&port->lock);
    if (port->waiting)
        pthread_cond_broadcast(&port->changed);
    pthread_mutex_unlock(&port->lock);
}

static int deliver_up(void *skb)
{
    struct linux_port *port = port_of(FIELD(skb, sk_buff, dev, uint64_t));
    if (!port || port->head - port->tail == RING) {
        if (port)
            port->stats.rx_dropped++;
        kfree_skb_now(skb);
        return 1; /* NET_RX_DROP */
    }
    bool first = port->head == port->tail;
    port->ring[port->head++ % RING] = skb;
    if (first)
        wake(port);
    return 0;
}

static int napi_gro_receive(uint64_t napi, void *skb)
{
    (void)napi;
    return deliver_up(skb) ? 4 : 3; /* GRO_CONSUMED (dropped) or GRO_NORMAL */
}

static int napi_gro_frags(uint64_t napi)
{
    void *skb = FIELD(napi, napi_struct, skb, void *);
    FIELD(napi, napi_struct, skb, void *) = NULL;
    FIELD(skb, sk_buff, mac_header, uint16_t) =
        (uint16_t)(FIELD(skb, sk_buff, data, uint8_t *) - FIELD(skb, sk_buff, head, uint8_t *));
    return napi_gro_receive(napi, skb);
}

/* Copies the whole frame of an skb from its MAC header on; 0 when it does not fit. */
static uint32_t copy_out(void *skb, char *to, uint64_t room)
{
    uint8_t *head = FIELD(skb, sk_buff, head, uint8_t *), *info = head + FIELD(skb, sk_buff, end, uint32_t);
    uint8_t *start = head + FIELD(skb, sk_buff, mac_header, uint16_t);
    uint32_t data_len = FIELD(skb, sk_buff, data_len, uint32_t), length = FIELD(skb, sk_buff, len, uint32_t);
    uint32_t linear = (uint32_t)(FIELD(skb, sk_buff, data, uint8_t *) + (length - data_len) - start);
    bool tagged = HAS_BITS(sk_buff, vlan_present) ? BITS_GET(skb, sk_buff, vlan_present)
                                                  : FIELD(skb, sk_buff, vlan_proto, uint16_t) != 0;
    uint32_t tag = tagged ? 4 : 0;
    if (linear + data_len + tag > room)
        return 0;
    if (tagged && linear >= 12) {
        uint16_t parts[2] = {FIELD(skb, sk_buff, vlan_proto, uint16_t),
                             __builtin_bswap16(FIELD(skb, sk_buff, vlan_tci, uint16_t))};
        memcpy(to, start, 12);
        memcpy(to + 12, parts, 4);
        memcpy(to + 16, start + 12, linear - 12);
    } else {
        memcpy(to, start, linear);
    }
    to += linear + tag;
    bool netmem = HAS_FIELD(skb_frag, netmem);
    for (unsigned i = 0; i < FIELD(info, skb_shared_info, nr_frags, uint8_t); i++) {
        char *frag = INNER(info, skb_shared_info, frags) + i * linux_frag_size();
        uint32_t size = netmem ? FIELD(frag, skb_frag, len, uint32_t) : FIELD(frag, skb_frag, size, uint32_t);
        uint32_t offset = netmem ? FIELD(frag, skb_frag, offset, uint32_t) : FIELD(frag, skb_frag, bv_offset, uint32_t);
        uint64_t at = *(uint64_t *)SYMBOL(page_offset_base) +
                      (linux_frag_page(frag) - *(uint64_t *)SYMBOL(vmemmap_base)) / SIZE(page) * 4096 + offset;
        memcpy(to, (void *)at, size);
        to += size;
    }
    return linear + data_len + tag;
}

int linux_port_receive(struct linux_port *port, char *data, uint64_t size, uint32_t *lengths, unsigned max)
{
    unsigned count = 0;
    vmk_baton_take();
    if (port->head == port->tail) {
        vmk_service();
        vmk_deliver();
    }
    while (count < max && port->head != port->tail) {
        void *skb = port->ring[port->tail % RING];
        uint32_t length = copy_out(skb, data, size);
        if (!length)
            break;
        data += length;
        size -= length;
        lengths[count++] = length;
        port->tail++;
        port->stats.rx_frames++;
        port->stats.rx_bytes += length;
        kfree_skb_now(skb);
    }
    vmk_baton_drop();
    return (int)count;
}

/* ---- transmission ---- */

static uint64_t tx_queue(struct linux_port *port) { return FIELD(port->device, net_device, tx, uint64_t); }

static bool tx_stopped(struct linux_port *port)
{
    uint64_t off = 1ull << ENUM(QUEUE_STATE_DRV_XOFF) | 1ull << ENUM(QUEUE_STATE_STACK_XOFF) |
                   1ull << ENUM(QUEUE_STATE_FROZEN);
    return (FIELD(tx_queue(port), netdev_queue, state, uint64_t) & off) != 0;
}

static bool running(struct linux_port *port)
{
    uint64_t state = FIELD(port->device, net_device, state, uint64_t);
    return bit(state, ENUM(LINK_STATE_START)) && !bit(state, ENUM(LINK_STATE_NOCARRIER));
}

static bool is_tagged(const char *data)
{
    return data[12] == (char)(ETH_P_8021Q >> 8) && data[13] == (char)ETH_P_8021Q;
}

static void *skb_for(struct linux_port *port, const char *data, const struct linux_frame *frame)
{
    void *skb = skb_new(frame->length, HEADROOM, port->owner);
    if (!skb)
        return NULL;
    uint8_t *start = FIELD(skb, sk_buff, data, uint8_t *);
    uint16_t offset = (uint16_t)(start - FIELD(skb, sk_buff, head, uint8_t *));
    memcpy(start, data, frame->length);
    FIELD(skb, sk_buff, len, uint32_t) = frame->length;
    FIELD(skb, sk_buff, tail, uint32_t) += frame->length;
    FIELD(skb, sk_buff, dev, uint64_t) = port->device;
    FIELD(skb, sk_buff, mac_header, uint16_t) = offset;
    FIELD(skb, sk_buff, network_header, uint16_t) = (uint16_t)(offset + ETH_HLEN + (is_tagged(data) ? VLAN_HLEN : 0));
    memcpy(INNER(skb, sk_buff, protocol), data + 12, 2);
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

/* 0, -EMSGSIZE for what is no frame of this device's, -EOPNOTSUPP for an offload that is not on. */
static int judge(struct linux_port *port, const char *data, const struct linux_frame *frame)
{
    uint64_t features = FIELD(port->device, net_device, features, uint64_t);
    uint64_t sums = 1ull << ENUM(NETIF_F_HW_CSUM) | 1ull << ENUM(NETIF_F_IP_CSUM) | 1ull << ENUM(NETIF_F_IPV6_CSUM);
    uint32_t most = FIELD(port->device, net_device, mtu, uint32_t) + ETH_HLEN;
    bool sum = frame->flags & LINUX_FRAME_NEEDS_CSUM, gso = frame->gso_size != 0;
    if (frame->length < ETH_HLEN || frame->length > GSO_MAX_SIZE)
        return -EMSGSIZE;
    most += is_tagged(data) ? VLAN_HLEN : 0;
    if (sum && (frame->csum_start < ETH_HLEN || frame->csum_start + frame->csum_offset + 2u > frame->length))
        return -EMSGSIZE;
    if (!gso && frame->length > most)
        return -EMSGSIZE;
    if (gso && (!sum || frame->gso_size < GSO_MIN_SIZE || frame->header_length <= frame->csum_start ||
                frame->header_length >= frame->length || (uint32_t)frame->header_length + frame->gso_size > most))
        return -EMSGSIZE;
    if (sum && !(features & sums))
        return -EOPNOTSUPP;
    if (gso && !bit(features, frame->gso_type == LINUX_GSO_TCPV6 ? ENUM(NETIF_F_TSO6) : ENUM(NETIF_F_TSO)))
        return -EOPNOTSUPP;
    return 0;
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
    const char *data = t->data;
    for (unsigned i = 0; i < t->count; data += t->frames[i++].length)
        if ((t->error = judge(port, data, &t->frames[i])))
            return;
    vmk_service();
    vmk_deliver();
    if (!port->device || !running(port)) {
        t->error = -ENETDOWN;
        return;
    }
    *preempt_count() += SOFTIRQ_DISABLE_OFFSET;
    void *skb = t->count && !tx_stopped(port) ? skb_for(port, t->data, t->frames) : NULL;
    while (skb) {
        const struct linux_frame *frame = &t->frames[t->sent];
        /* The next one exists before this one is told that more follow: else nobody would ring the doorbell. */
        const char *next_data = t->data + frame->length;
        void *next = t->sent + 1 < t->count ? skb_for(port, next_data, frame + 1) : NULL;
        /* A frame to be cut may need more room than there is: what is before it must not wait for it. */
        *more = next != NULL && !frame[1].gso_size;
        if (xmit(skb, port->device) != NETDEV_TX_OK) {
            port->stats.tx_busy++;
            kfree_skb_now(skb);
            kfree_skb_now(next);
            break;
        }
        t->sent++;
        t->data = next_data;
        port->stats.tx_frames++;
        port->stats.tx_bytes += frame->length;
        if (next && tx_stopped(port)) {
            kfree_skb_now(next);
            next = NULL;
        }
        skb = next;
    }
    *more = 0;
    FIELD(tx_queue(port), netdev_queue, trans_start, uint64_t) = linux_jiffies();
    *preempt_count() -= SOFTIRQ_DISABLE_OFFSET;
}

int linux_port_transmit(struct linux_port *port, const char *data, const struct linux_frame *frames, unsigned count,
                        struct vmk_result *result)
{
    struct transmission t = {port, data, frames, count, 0, 0};
    vmk_enter(transmit, &t, port->owner, result);
    if (result->stop)
        return -EIO;
    return t.error ? t.error : (int)t.sent;
}

static void netif_tx_wake_queue(uint64_t queue)
{
    uint64_t *state = &FIELD(queue, netdev_queue, state, uint64_t), off = 1ull << ENUM(QUEUE_STATE_DRV_XOFF);
    if (!(*state & off))
        return;
    *state &= ~off;
    struct linux_port *port = port_of(FIELD(queue, netdev_queue, dev, uint64_t));
    if (port)
        wake(port);
}

static void netif_schedule_queue(uint64_t queue)
{
    struct linux_port *port = port_of(FIELD(queue, netdev_queue, dev, uint64_t));
    if (port)
        wake(port);
}

/* ---- ports ---- */

struct linux_port *linux_port_create(uint64_t device, uint32_t owner)
{
    for (int i = 0; i < PORTS; i++) {
        if (ports[i])
            continue;
        struct linux_port *port = calloc(1, sizeof *port);
        if (!port)
            return NULL;
        pthread_condattr_t attributes;
        pthread_condattr_init(&attributes);
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        pthread_cond_init(&port->changed, &attributes);
        pthread_condattr_destroy(&attributes);
        pthread_mutex_init(&port->lock, NULL);
        port->device = device;
        port->owner = owner;
        return ports[i] = port;
    }
    return NULL;
}

void linux_port_end(struct linux_port *port)
{
    pthread_mutex_lock(&port->lock);
    port->ended = true;
    pthread_cond_broadcast(&port->changed);
    pthread_mutex_unlock(&port->lock);
}

void linux_port_detach(struct linux_port *port)
{
    vmk_baton_take();
    port->device = 0;
    for (int i = 0; i < PORTS; i++)
        if (ports[i] == port)
            ports[i] = NULL;
    while (port->head != port->tail)
        kfree_skb_now(port->ring[port->tail++ % RING]);
    vmk_baton_drop();
    linux_port_end(port);
}

void linux_port_free(struct linux_port *port)
{
    pthread_cond_destroy(&port->changed);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

static int ready(struct linux_port *port)
{
    if (!port->device)
        return LINUX_PORT_END;
    return (port->head != port->tail ? LINUX_PORT_RX : 0) | (!tx_stopped(port) ? LINUX_PORT_TX : 0) |
           (port->ended ? LINUX_PORT_END : 0);
}

int linux_port_wait(struct linux_port *port, int events, uint64_t timeout_ns)
{
    uint64_t now = vmk_now(), deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    struct timespec until = {(time_t)(deadline / 1000000000ull), (long)(deadline % 1000000000ull)};
    int error = 0, have;
    pthread_mutex_lock(&port->lock);
    port->waiting++;
    while (!(have = ready(port) & events) && error != ETIMEDOUT)
        error = pthread_cond_timedwait(&port->changed, &port->lock, &until);
    port->waiting--;
    pthread_mutex_unlock(&port->lock);
    return have;
}

void linux_port_stats(struct linux_port *port, struct linux_port_stats *out)
{
    vmk_baton_take();
    *out = port->stats;
    vmk_baton_drop();
}

const struct linux_api netdevice_api[] = {
    API(netif_napi_add_weight, "done", "Registers a NAPI context.", "No busy polling and no threaded mode."),
    API(__netif_napi_del, "done", "Removes a NAPI context.", NULL),
    API(napi_enable, "done", "Lets a NAPI context be scheduled.", NULL),
    API(napi_disable, "done", "Waits for a NAPI context to end and keeps it.", NULL),
    API(napi_schedule_prep, "done", "Whether the caller may schedule.", NULL),
    API(__napi_schedule, "done", "Queues a NAPI context for polling.", NULL),
    API_AS("__napi_schedule_irqoff", __napi_schedule, "done", "Queues a NAPI context for polling.", NULL),
    API(napi_complete_done, "partial", "Ends polling.", "No deferral of interrupts (gro_flush_timeout)."),
    API(napi_gro_receive, "partial", "Hands a received frame up.", "Frames are not merged (no GRO)."),
    API(napi_gro_frags, "partial", "Hands up a frame made of pages.", "Frames are not merged (no GRO)."),
    API_AS("netif_receive_skb", deliver_up, "done", "Hands a received frame up.", NULL),
    API_AS("netif_rx", deliver_up, "done", "Hands a received frame up.", NULL),
    API(netif_tx_wake_queue, "done", "Lets a transmit queue take frames again.", NULL),
    API(netif_schedule_queue, "done", "Tells that a queue has room.", "There is no qdisc to run."),
    API(__local_bh_enable_ip, "done", "Enables softirqs again and runs those that wait.", NULL),
    API_END,
};
