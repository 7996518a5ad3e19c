/* Ports of network devices: waiting and judging for both engines, and the port of a native driver's device.
 *
 * A native port keeps received frames in memory of its own, one after the other in a ring of bytes: a driver's buffers go
 * back to the device at once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmklinux/inet.h"
#include "vmklinux/linux.h"

#define GSO_MAX_SIZE 65535u
#define GSO_MIN_SIZE 64u /* below, e1000 cuts so finely that a full frame needs more descriptors than its ring has */
#define RING_BYTES (16u << 20) /* full frames of 4000 bytes for the whole ring */
#define POLL_BUDGET 300 /* netdev_budget: frames that one pass over all may take in */

extern int native_python_poll(void *handle);

/* ---- for both engines ---- */

struct port_waiter { int event; struct port_waiter *next; };

void port_waiters_init(struct port_waiters *waiters) { pthread_mutex_init(&waiters->lock, NULL); }
void port_waiters_fini(struct port_waiters *waiters) { pthread_mutex_destroy(&waiters->lock); }

void port_waiters_wake(struct port_waiters *waiters)
{
    pthread_mutex_lock(&waiters->lock);
    for (struct port_waiter *waiter = waiters->first; waiter; waiter = waiter->next)
        vmk_event_post(waiter->event);
    pthread_mutex_unlock(&waiters->lock);
}

int port_waiters_wait(struct port_waiters *waiters, int (*ready)(void *port), void *port, int events, uint64_t timeout_ns)
{
    uint64_t now = vmk_now(), deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    struct port_waiter me = {vmk_world_event(), NULL}, **at = &waiters->first;
    pthread_mutex_lock(&waiters->lock);
    me.next = waiters->first;
    waiters->first = &me;
    pthread_mutex_unlock(&waiters->lock);
    int have = ready(port) & events;
    if (!have)
        vmk_attend(0); /* what came in already, and was put off, comes first */
    while (!(have = ready(port) & events) && vmk_now() < deadline)
        vmk_attend(deadline);
    pthread_mutex_lock(&waiters->lock);
    while (*at != &me)
        at = &(*at)->next;
    *at = me.next;
    pthread_mutex_unlock(&waiters->lock);
    return have;
}

int port_judge(const struct port_limits *limits, const char *data, const struct linux_frame *frame)
{
    uint32_t most = limits->mtu + ETH_HLEN;
    bool sum = frame->flags & LINUX_FRAME_NEEDS_CSUM, gso = frame->gso_size != 0;
    if (frame->length < ETH_HLEN || frame->length > GSO_MAX_SIZE)
        return -EMSGSIZE;
    most += frame_is_tagged(data) ? VLAN_HLEN : 0;
    if (sum && (frame->csum_start < ETH_HLEN || frame->csum_start + frame->csum_offset + 2u > frame->length))
        return -EMSGSIZE;
    if (!gso && frame->length > most)
        return -EMSGSIZE;
    if (gso && (!sum || frame->gso_size < GSO_MIN_SIZE || frame->header_length <= frame->csum_start ||
                frame->header_length >= frame->length || (uint32_t)frame->header_length + frame->gso_size > most))
        return -EMSGSIZE;
    if (gso && (frame->length > limits->gso_max_size ||
                (frame->length - frame->header_length - 1u) / frame->gso_size >= limits->gso_max_segs))
        return -EMSGSIZE;
    if (sum && !limits->checksum)
        return -EOPNOTSUPP;
    if (gso && !(frame->gso_type == LINUX_GSO_TCPV6 ? limits->tso6 : limits->tso))
        return -EOPNOTSUPP;
    return 0;
}

/* ---- native ports ---- */

struct native_port {
    void *handle;
    struct port_waiters waiters;
    struct linux_port_stats stats;
    uint64_t last_sent;
    bool running, stopped, ended;
    bool enabled, scheduled, missed; /* of polling */
    struct native_port *next; /* of those to be polled */
    unsigned head, tail;      /* of ring; head - tail frames wait */
    uint64_t end;             /* where the next one goes in bytes */
    struct { uint64_t offset; struct linux_frame frame; } ring[LINUX_PORT_RING];
    char bytes[RING_BYTES];
};

static struct native_port *to_poll, **to_poll_end = &to_poll;

static void enqueue(struct native_port *port)
{
    port->next = NULL;
    *to_poll_end = port;
    to_poll_end = &port->next;
}

static void dequeue(struct native_port *port)
{
    for (struct native_port **at = &to_poll; *at; at = &(*at)->next)
        if (*at == port) {
            *at = port->next;
            if (!*at)
                to_poll_end = at;
            return;
        }
}

static bool waiting(void) { return to_poll != NULL; }

/* As Linux's net_rx_action: each that waits now has its turn, and those that are not done another one after that. */
static bool poll_all(void)
{
    unsigned turns = 0;
    for (struct native_port *port = to_poll; port; port = port->next)
        turns++;
    for (int left = POLL_BUDGET; turns && left > 0 && to_poll; turns--) {
        struct native_port *port = to_poll;
        dequeue(port);
        int work = native_python_poll(port->handle);
        left -= work > 0 ? work : 1;
        if (port->scheduled) {
            dequeue(port); /* it may have been scheduled anew */
            enqueue(port);
        }
    }
    return waiting();
}

static void unschedule(struct native_port *port)
{
    dequeue(port);
    port->scheduled = port->missed = false;
}

void native_port_poll_enable(struct native_port *port, bool on)
{
    port->enabled = on;
    if (!on)
        unschedule(port);
}

void native_port_schedule(struct native_port *port)
{
    if (!port->enabled || port->scheduled) {
        port->missed = port->scheduled;
        return;
    }
    port->scheduled = true;
    enqueue(port);
    if (!vmk_delivering)
        vmk_kick();
}

bool native_port_complete(struct native_port *port)
{
    bool missed = port->missed;
    unschedule(port);
    if (missed)
        native_port_schedule(port);
    return !missed;
}

struct native_port *native_port_create(void *handle)
{
    struct native_port *port = calloc(1, sizeof *port);
    if (!port)
        return NULL;
    port->handle = handle;
    port_waiters_init(&port->waiters);
    vmk_softirqs[VMK_SOFTIRQ_NATIVE] = (struct vmk_softirq){poll_all, waiting};
    return port;
}

void native_port_free(struct native_port *port)
{
    port_waiters_fini(&port->waiters);
    free(port);
}

/* ---- out ---- */

static int refusal(struct native_port *port, const struct port_limits *limits, const struct native_batch *batch)
{
    const char *data = batch->data;
    if (port->ended)
        return -ENODEV;
    for (uint32_t i = 0; i < batch->count; data += batch->frames[i++].length) {
        int error = port_judge(limits, data, &batch->frames[i]);
        if (error)
            return error;
    }
    vmk_service();
    vmk_deliver_lazily();
    return port->ended ? -ENODEV : !port->running ? -ENETDOWN : port->stopped ? -ENOBUFS : 0;
}

int native_port_send(struct native_port *port, const struct port_limits *limits, const struct native_batch *batch)
{
    vmk_baton_take();
    int error = refusal(port, limits, batch);
    if (error)
        vmk_baton_drop();
    else
        vmk_cork();
    return error;
}

void native_port_sent(struct native_port *port, const struct native_batch *batch)
{
    vmk_uncork();
    if (batch->taken) {
        port->stats.tx_frames += batch->taken;
        port->stats.tx_bytes += batch->offset;
        port->last_sent = vmk_now();
    }
    if (batch->taken < batch->count && !port->stopped) {
        port->stats.tx_busy += !batch->taken; /* a driver that takes a part says so that it is full */
        native_port_stop_queue(port);
    }
    if (vmk_deliver_lazily())
        vmk_kick();
    vmk_baton_drop();
}

void native_port_run(struct native_port *port, bool on) { port->running = on; }

void native_port_stop_queue(struct native_port *port)
{
    if (!port->stopped)
        port->last_sent = vmk_now(); /* it may have been idle for long */
    port->stopped = true;
}

void native_port_wake_queue(struct native_port *port)
{
    if (!port->stopped)
        return;
    port->stopped = false;
    port_waiters_wake(&port->waiters);
}

bool native_port_queue_stopped(const struct native_port *port) { return port->stopped; }
uint64_t native_port_last_sent(const struct native_port *port) { return port->last_sent; }
void native_port_excuse(struct native_port *port) { port->last_sent = vmk_now(); }

/* ---- in ---- */

/* Room for so many bytes in one piece; NULL when there is none. */
static char *room(struct native_port *port, uint64_t length)
{
    if (port->head - port->tail == LINUX_PORT_RING)
        return NULL;
    if (port->head == port->tail)
        port->end = 0; /* always the same memory, as long as somebody fetches in time */
    else if (port->end <= port->ring[port->tail % LINUX_PORT_RING].offset)
        return length <= port->ring[port->tail % LINUX_PORT_RING].offset - port->end ? port->bytes + port->end : NULL;
    if (length <= RING_BYTES - port->end)
        return port->bytes + port->end;
    port->end = 0;
    return port->head != port->tail && length <= port->ring[port->tail % LINUX_PORT_RING].offset ? port->bytes : NULL;
}

bool native_port_put(struct native_port *port, const struct native_piece *pieces, unsigned count, uint16_t flags, uint32_t vlan)
{
    uint64_t length = 0;
    for (unsigned i = 0; i < count; i++)
        length += pieces[i].length;
    bool whole = length >= ETH_HLEN;
    length += vlan ? VLAN_HLEN : 0;
    char *to = whole ? room(port, length) : NULL;
    if (!to) {
        port->stats.rx_dropped++;
        return false;
    }
    port->ring[port->head % LINUX_PORT_RING].offset = (uint64_t)(to - port->bytes);
    port->ring[port->head % LINUX_PORT_RING].frame = (struct linux_frame){.length = (uint32_t)length, .flags = flags};
    port->end = (uint64_t)(to - port->bytes) + length;
    for (unsigned i = 0; i < count; to += pieces[i++].length)
        memcpy(to, pieces[i].data, pieces[i].length);
    if (vlan) {
        char *first = to - (length - VLAN_HLEN), tag[VLAN_HLEN] = {(char)0x81, 0, (char)(vlan >> 8), (char)vlan};
        memmove(first + 12 + VLAN_HLEN, first + 12, length - 12 - VLAN_HLEN);
        memcpy(first + 12, tag, VLAN_HLEN);
    }
    if (port->head++ == port->tail)
        port_waiters_wake(&port->waiters);
    return true;
}

int native_port_receive(struct native_port *port, char *data, uint64_t size, uint32_t *lengths, struct linux_frame *frames,
                        unsigned max)
{
    unsigned count = 0;
    vmk_baton_take();
    if (port->head == port->tail) {
        vmk_service();
        vmk_deliver();
    }
    for (; count < max && port->head != port->tail; count++, port->tail++) {
        const struct linux_frame *frame = &port->ring[port->tail % LINUX_PORT_RING].frame;
        if (frame->length > size)
            break; /* there is room for it the next time */
        memcpy(data, port->bytes + port->ring[port->tail % LINUX_PORT_RING].offset, frame->length);
        data += frame->length;
        size -= frame->length;
        lengths[count] = frame->length;
        if (frames)
            frames[count] = *frame;
        port->stats.rx_frames++;
        port->stats.rx_bytes += frame->length;
    }
    vmk_baton_drop();
    return (int)count;
}

/* ---- waiting ---- */

static int ready(void *it)
{
    struct native_port *port = it;
    return (port->head != port->tail ? LINUX_PORT_RX : 0) | (!port->stopped ? LINUX_PORT_TX : 0) |
           (port->ended ? LINUX_PORT_END : 0);
}

int native_port_wait(struct native_port *port, int events, uint64_t timeout_ns)
{
    return port_waiters_wait(&port->waiters, ready, port, events, timeout_ns);
}

void native_port_end(struct native_port *port)
{
    port->ended = true;
    port_waiters_wake(&port->waiters);
}

void native_port_stats(struct native_port *port, struct linux_port_stats *out)
{
    vmk_baton_take();
    *out = port->stats;
    vmk_baton_drop();
}
