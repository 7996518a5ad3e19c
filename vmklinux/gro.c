/* Reception from the driver up to an uplink, and the merging of TCP segments on that way (Linux net/core/gro.c,
 * net/ipv4/tcp_offload.c).
 *
 * Segments that follow each other become one frame as virtio would tell it: gso_size is the size of the segments, and
 * the TCP checksum holds the pseudo header's sum only. Such a frame can be transmitted again by an uplink with TSO. */
#include <string.h>

#include "vmklinux/inet.h"
#include "vmklinux/linux.h"

#define MOST 65535u /* what the IP header can tell */
enum { NET_RX_SUCCESS = 0, NET_RX_DROP = 1, GRO_NORMAL = 3, GRO_CONSUMED = 4 };

/* A TCP segment in an skb: its headers, all of them in the linear part. */
struct segment {
    uint8_t *frame, *ip, *tcp;
    uint16_t headers, payload;
    bool v6;
};

static uint8_t *mac_header(void *skb)
{
    return FIELD(skb, sk_buff, head, uint8_t *) + FIELD(skb, sk_buff, mac_header, uint16_t);
}
static uint32_t linear_of(void *skb)
{
    return FIELD(skb, sk_buff, len, uint32_t) - FIELD(skb, sk_buff, data_len, uint32_t);
}

static bool is_tagged(void *skb)
{
    return HAS_BITS(sk_buff, vlan_present) ? BITS_GET(skb, sk_buff, vlan_present)
                                           : FIELD(skb, sk_buff, vlan_proto, uint16_t) != 0;
}

/* ---- up to the port ---- */

static int deliver_up(void *skb)
{
    struct linux_port *port = linux_port_of(FIELD(skb, sk_buff, dev, uint64_t));
    if (!port || port->head - port->tail == LINUX_PORT_RING) {
        if (port)
            port->stats.rx_dropped++;
        kfree_skb_now(skb);
        return NET_RX_DROP;
    }
    bool first = port->head == port->tail;
    port->ring[port->head++ % LINUX_PORT_RING] = skb;
    if (first)
        linux_port_wake(port);
    return NET_RX_SUCCESS;
}

/* A list of them, chained by their first member (Linux struct list_head list). */
static void netif_receive_skb_list(struct list_head *list)
{
    for (struct list_head *at = list->next, *next; at != list; at = next) {
        next = at->next;
        at->next = NULL;
        deliver_up(at);
    }
    list_init(list);
}

/* ---- merging ---- */

/* Finds the headers of TCP directly behind IP, without IP options; false for any other frame. */
static bool find_headers(void *skb, struct segment *s)
{
    uint8_t *end = FIELD(skb, sk_buff, data, uint8_t *) + linear_of(skb);
    s->frame = mac_header(skb);
    s->ip = s->frame + ETH_HLEN;
    if (s->ip + 40 > end)
        return false;
    uint16_t type = load16(s->frame + 12);
    s->v6 = type == ETH_P_IPV6;
    if (s->v6 ? s->ip[6] != IPPROTO_TCP : type != ETH_P_IP || s->ip[0] != 0x45 || s->ip[9] != IPPROTO_TCP)
        return false;
    s->tcp = s->ip + (s->v6 ? IPV6_HLEN : IPV4_HLEN);
    if (s->tcp + TCP_HLEN > end)
        return false;
    uint8_t *payload = s->tcp + (s->tcp[TCP_OFFSET] >> 4) * 4;
    if (payload < s->tcp + TCP_HLEN || payload > end)
        return false;
    s->headers = (uint16_t)(payload - s->frame);
    s->payload = (uint16_t)(FIELD(skb, sk_buff, len, uint32_t) -
                            (uint32_t)(payload - FIELD(skb, sk_buff, data, uint8_t *)));
    return true;
}

/* Bytes of the TCP segment, its header among them. */
static uint32_t tcp_length(const struct segment *s) { return s->payload + (uint32_t)(s->frame + s->headers - s->tcp); }

/* Whether the TCP checksum is right: by what the device found, else counted, if the frame is in one piece. */
static bool checksum_good(void *skb, const struct segment *s)
{
    if (BITS_GET(skb, sk_buff, ip_summed) == CHECKSUM_UNNECESSARY)
        return true;
    if (FIELD(skb, sk_buff, data_len, uint32_t))
        return false;
    uint32_t length = tcp_length(s);
    return inet_fold(tcp_pseudo_sum(s->ip, s->v6, length) + inet_sum(s->tcp, length)) == 0xffff;
}

/* Whether the frame is a TCP segment that may be merged: with payload, the checksum right, no tag, no padding, not
 * fragmented, no flags but ACK and PSH. */
static bool read_segment(void *skb, struct segment *s)
{
    if (is_tagged(skb) || !find_headers(skb, s) ||
        FIELD(linux_skb_info(skb), skb_shared_info, frag_list, void *))
        return false;
    uint32_t packet = s->v6 ? IPV6_HLEN + (uint32_t)load16(s->ip + 4) : load16(s->ip + 2);
    /* With DF set nobody puts fragments together, so the identification means nothing (RFC 6864, 4.1). The most costly
     * comes last. */
    return s->payload && packet + ETH_HLEN == (uint32_t)s->headers + s->payload &&
           (s->v6 || load16(s->ip + 6) == 0x4000) && (s->tcp[TCP_FLAGS] & ~TCP_PSH) == TCP_ACK &&
           checksum_good(skb, s);
}

/* Same Ethernet and IP addresses and ports. */
static bool same_flow(const struct segment *a, const struct segment *b)
{
    return a->v6 == b->v6 && !memcmp(a->frame, b->frame, ETH_HLEN) && !memcmp(a->tcp, b->tcp, 4) &&
           (a->v6 ? !memcmp(a->ip + 8, b->ip + 8, 32) : !memcmp(a->ip + 12, b->ip + 12, 8));
}

/* Of the same flow: whether all else that the headers say is the same, too. */
static bool same_headers(const struct segment *a, const struct segment *b)
{
    bool ip = a->v6 ? !memcmp(a->ip, b->ip, 4) && a->ip[7] == b->ip[7] : a->ip[1] == b->ip[1] && a->ip[8] == b->ip[8];
    return ip && a->headers == b->headers && load32(a->tcp + TCP_ACKNOWLEDGED) == load32(b->tcp + TCP_ACKNOWLEDGED) &&
           !memcmp(a->tcp + TCP_HLEN, b->tcp + TCP_HLEN, (size_t)(a->frame + a->headers - a->tcp) - TCP_HLEN);
}

/* Makes the headers tell of the whole, and hands it up. */
static void hand_up(struct linux_gro_flow *flow)
{
    void *skb = flow->skb;
    struct segment s;
    flow->skb = NULL;
    if (flow->count > 1 && find_headers(skb, &s)) {
        uint32_t tcp = tcp_length(&s);
        store16(s.ip + (s.v6 ? 4 : 2), s.v6 ? tcp : tcp + IPV4_HLEN);
        if (!s.v6) {
            store16(s.ip + 10, 0);
            store16(s.ip + 10, (uint16_t)~inet_fold(inet_sum(s.ip, IPV4_HLEN)));
        }
        store16(s.tcp + TCP_CHECKSUM, inet_fold(tcp_pseudo_sum(s.ip, s.v6, tcp)));
        BITS_SET(skb, sk_buff, ip_summed, CHECKSUM_PARTIAL);
        FIELD(linux_skb_info(skb), skb_shared_info, gso_size, uint16_t) = flow->segment;
        FIELD(linux_skb_info(skb), skb_shared_info, gso_segs, uint16_t) = flow->count;
    }
    deliver_up(skb);
}

void linux_gro_flush(uint64_t device)
{
    struct linux_port *port = linux_port_of(device);
    for (unsigned i = 0; port && i < LINUX_GRO_FLOWS; i++)
        if (port->flows[i].skb)
            hand_up(&port->flows[i]);
}

void linux_gro_drop(struct linux_port *port)
{
    for (unsigned i = 0; i < LINUX_GRO_FLOWS; i++) {
        kfree_skb_now(port->flows[i].skb);
        port->flows[i].skb = NULL;
    }
}

/* Chains a segment to its flow. */
static void append(struct linux_port *port, struct linux_gro_flow *flow, void *skb, const struct segment *s)
{
    uint8_t *data = s->frame + s->headers;
    uint32_t length = s->payload;
    mac_header(flow->skb)[s->tcp - s->frame + TCP_FLAGS] |= s->tcp[TCP_FLAGS] & TCP_PSH;
    FIELD(skb, sk_buff, len, uint32_t) = length;
    FIELD(skb, sk_buff, data, uint8_t *) = data;
    *(void **)skb = NULL;
    if (flow->last)
        *(void **)flow->last = skb;
    else
        FIELD(linux_skb_info(flow->skb), skb_shared_info, frag_list, void *) = skb;
    flow->last = skb;
    flow->next_sequence += length;
    flow->count++;
    FIELD(flow->skb, sk_buff, len, uint32_t) += length;
    FIELD(flow->skb, sk_buff, data_len, uint32_t) += length;
    FIELD(flow->skb, sk_buff, truesize, uint32_t) += FIELD(skb, sk_buff, truesize, uint32_t);
    port->stats.rx_merged++;
}

/* Whether it was taken: chained to a flow, or kept as the first of one. */
static bool merge(struct linux_port *port, void *skb, const struct segment *s)
{
    struct linux_gro_flow *place = NULL;
    bool last = s->tcp[TCP_FLAGS] & TCP_PSH;
    for (unsigned i = 0; i < LINUX_GRO_FLOWS; i++) {
        struct linux_gro_flow *flow = &port->flows[i];
        struct segment first;
        if (!flow->skb) {
            place = place ? place : flow;
            continue;
        }
        if (!find_headers(flow->skb, &first) || !same_flow(&first, s))
            continue;
        bool fits = same_headers(&first, s) && load32(s->tcp + TCP_SEQUENCE) == flow->next_sequence &&
                    s->payload <= flow->segment &&
                    FIELD(flow->skb, sk_buff, len, uint32_t) + s->payload <= MOST - ETH_HLEN;
        if (fits)
            append(port, flow, skb, s);
        if (!fits || last || s->payload < flow->segment)
            hand_up(flow);
        if (fits)
            return true;
        place = flow;
        break;
    }
    if (!place || last)
        return false;
    *place = (struct linux_gro_flow){skb, NULL, load32(s->tcp + TCP_SEQUENCE) + s->payload, s->headers, s->payload, 1};
    return true;
}

/* A frame of a flow that cannot be merged must not overtake what is held back of it: then all goes up. */
static int napi_gro_receive(uint64_t napi, void *skb)
{
    (void)napi;
    uint64_t device = FIELD(skb, sk_buff, dev, uint64_t);
    struct linux_port *port = linux_port_of(device);
    if (port && FIELD(device, net_device, features, uint64_t) >> ENUM(NETIF_F_GRO) & 1) {
        struct segment s;
        if (!read_segment(skb, &s))
            linux_gro_flush(device);
        else if (merge(port, skb, &s))
            return GRO_NORMAL;
    }
    return deliver_up(skb) ? GRO_CONSUMED : GRO_NORMAL;
}

static int napi_gro_frags(uint64_t napi)
{
    void *skb = FIELD(napi, napi_struct, skb, void *);
    FIELD(napi, napi_struct, skb, void *) = NULL;
    FIELD(skb, sk_buff, mac_header, uint16_t) =
        (uint16_t)(FIELD(skb, sk_buff, data, uint8_t *) - FIELD(skb, sk_buff, head, uint8_t *));
    return napi_gro_receive(napi, skb);
}

static void napi_gro_flush(uint64_t napi) { linux_gro_flush(FIELD(napi, napi_struct, dev, uint64_t)); }

/* ---- out of the port ---- */

/* Copies an skb from `start`, in its linear part, to its end. Where the copy ends. */
static char *copy_from(void *skb, const uint8_t *start, char *to)
{
    void *info = linux_skb_info(skb);
    size_t linear = (size_t)(FIELD(skb, sk_buff, tail, uint32_t) + FIELD(skb, sk_buff, head, uint8_t *) - start);
    memcpy(to, start, linear);
    to += linear;
    for (unsigned i = 0; i < FIELD(info, skb_shared_info, nr_frags, uint8_t); i++) {
        uint32_t size;
        const char *data = linux_frag_data(INNER(info, skb_shared_info, frags) + i * linux_frag_size(), &size);
        memcpy(to, data, size);
        to += size;
    }
    for (void *part = FIELD(info, skb_shared_info, frag_list, void *); part; part = *(void **)part)
        to = copy_from(part, FIELD(part, sk_buff, data, const uint8_t *), to);
    return to;
}

/* Copies the whole frame of an skb from its MAC header on, with its tag put back; its length, 0 when it does not fit or is
 * none: QEMU's eepro100 says that a frame is there before it says how long it is, and a driver may look in between. */
static uint32_t copy_out(void *skb, char *to, uint64_t room)
{
    uint8_t *start = mac_header(skb);
    uint32_t length = FIELD(skb, sk_buff, len, uint32_t) + (uint32_t)(FIELD(skb, sk_buff, data, uint8_t *) - start);
    uint32_t tag = is_tagged(skb) ? 4 : 0;
    if (length < ETH_HLEN || length + tag > room)
        return 0;
    if (tag) {
        uint16_t parts[2] = {FIELD(skb, sk_buff, vlan_proto, uint16_t),
                             __builtin_bswap16(FIELD(skb, sk_buff, vlan_tci, uint16_t))};
        memcpy(to, start, 12);
        memcpy(to + 12, parts, 4);
        copy_from(skb, start + 12, to + 16);
    } else {
        copy_from(skb, start, to);
    }
    return length + tag;
}

static struct linux_frame describe(void *skb, uint32_t length)
{
    struct linux_frame frame = {.length = length};
    struct segment s;
    uint32_t summed = BITS_GET(skb, sk_buff, ip_summed);
    frame.flags = summed == CHECKSUM_UNNECESSARY ? LINUX_FRAME_CSUM_GOOD : 0;
    if (summed == CHECKSUM_PARTIAL && find_headers(skb, &s))
        frame = (struct linux_frame){
            length, 0, LINUX_FRAME_NEEDS_CSUM, s.v6 ? LINUX_GSO_TCPV6 : LINUX_GSO_TCPV4, s.headers,
            FIELD(linux_skb_info(skb), skb_shared_info, gso_size, uint16_t), (uint16_t)(s.tcp - s.frame), TCP_CHECKSUM};
    return frame;
}

int linux_port_receive(struct linux_port *port, char *data, uint64_t size, uint32_t *lengths,
                       struct linux_frame *frames, unsigned max)
{
    unsigned count = 0;
    vmk_baton_take();
    if (port->head == port->tail) {
        vmk_service();
        vmk_deliver();
    }
    while (count < max && port->head != port->tail) {
        void *skb = port->ring[port->tail % LINUX_PORT_RING];
        uint32_t length = copy_out(skb, data, size);
        if (!length && count)
            break; /* there is room for it the next time */
        if (!length) {
            port->tail++;
            port->stats.rx_dropped++;
            kfree_skb_now(skb);
            continue;
        }
        if (frames)
            frames[count] = describe(skb, length);
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

const struct linux_api gro_api[] = {
    API(napi_gro_receive, "done", "Hands a received frame up.", "Merges TCP over IPv4 and IPv6 only, when GRO is on."),
    API(napi_gro_frags, "done", "Hands up a frame made of pages.", NULL),
    API(napi_gro_flush, "done", "Hands up what is held back to be merged.", NULL),
    API_AS("netif_receive_skb", deliver_up, "done", "Hands a received frame up.", NULL),
    API_AS("netif_receive_skb_core", deliver_up, "done", "Hands a received frame up.", NULL),
    API(netif_receive_skb_list, "done", "Hands received frames up.", NULL),
    API_AS("netif_rx", deliver_up, "done", "Hands a received frame up.", NULL),
    API_END,
};
