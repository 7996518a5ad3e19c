/* TCP segmentation in software (Linux net/core/gso.c, net/ipv4/tcp_offload.c): for drivers that find a frame which
 * their card cannot segment. */
#include <errno.h>

#include "vmklinux/inet.h"
#include "vmklinux/linux.h"

enum { CHECKSUM_NONE = 0 };

/* Where the headers of a frame are, counted from its data. */
struct headers { uint32_t network, transport, length; bool v6; };

static bool find_headers(void *skb, struct headers *out)
{
    uint8_t *data = FIELD(skb, sk_buff, data, uint8_t *);
    uint32_t headroom = (uint32_t)(data - FIELD(skb, sk_buff, head, uint8_t *));
    uint32_t linear = FIELD(skb, sk_buff, len, uint32_t) - FIELD(skb, sk_buff, data_len, uint32_t);
    out->network = FIELD(skb, sk_buff, network_header, uint16_t) - headroom;
    out->transport = FIELD(skb, sk_buff, transport_header, uint16_t) - headroom;
    if (out->transport <= out->network || out->transport + TCP_HLEN > linear)
        return false;
    out->v6 = data[out->network] >> 4 == 6;
    out->length = out->transport + (data[out->transport + TCP_OFFSET] >> 4) * 4u;
    return out->length <= linear && out->transport - out->network >= (out->v6 ? IPV6_HLEN : IPV4_HLEN);
}

/* Makes headers copied from the large frame those of its segment: number `index`, `offset` bytes into the payload. */
static void adapt(void *segment, const struct headers *h, uint32_t index, uint32_t offset, bool last, bool card_sums)
{
    uint8_t *data = FIELD(segment, sk_buff, data, uint8_t *), *network = data + h->network, *tcp = data + h->transport;
    uint32_t length = FIELD(segment, sk_buff, len, uint32_t), tcp_length = length - h->transport;
    if (h->v6) {
        store16(network + 4, length - h->network - IPV6_HLEN);
    } else {
        store16(network + 2, length - h->network);
        store16(network + 4, load16(network + 4) + index);
        store16(network + 10, 0);
        store16(network + 10, (uint16_t)~inet_fold(inet_sum(network, (network[0] & 15) * 4u)));
    }
    store32(tcp + TCP_SEQUENCE, load32(tcp + TCP_SEQUENCE) + offset);
    tcp[TCP_FLAGS] &= (uint8_t)~((last ? 0 : TCP_FIN | TCP_PSH) | (index ? TCP_CWR : 0));
    store16(tcp + TCP_CHECKSUM, 0);
    uint16_t sum = inet_fold(tcp_pseudo_sum(network, h->v6, tcp_length));
    if (!card_sums)
        sum = (uint16_t)~inet_fold(sum + inet_sum(tcp, tcp_length));
    store16(tcp + TCP_CHECKSUM, sum);
    BITS_SET(segment, sk_buff, ip_summed, card_sums ? CHECKSUM_PARTIAL : CHECKSUM_NONE);
    FIELD(segment, sk_buff, csum_start, uint16_t) = FIELD(segment, sk_buff, transport_header, uint16_t);
    FIELD(segment, sk_buff, csum_offset, uint16_t) = TCP_CHECKSUM;
}

static void free_list(void *skb)
{
    for (void *next; skb; skb = next) {
        next = *(void **)skb; /* sk_buff.next */
        kfree_skb_now(skb);
    }
}

static void *__skb_gso_segment(void *skb, uint64_t features)
{
    uint32_t site = SITE(), length = FIELD(skb, sk_buff, len, uint32_t);
    uint32_t size = FIELD(linux_skb_info(skb), skb_shared_info, gso_size, uint16_t);
    uint64_t type = FIELD(linux_skb_info(skb), skb_shared_info, gso_type, uint32_t);
    uint32_t headroom = (uint32_t)(FIELD(skb, sk_buff, data, uint8_t *) - FIELD(skb, sk_buff, head, uint8_t *));
    struct headers h;
    if (!(type & (uint64_t)(ENUM(SKB_GSO_TCPV4) | ENUM(SKB_GSO_TCPV6))))
        return (void *)-EPROTONOSUPPORT;
    if (!size || !find_headers(skb, &h))
        return (void *)-EINVAL;
    bool card_sums = features & (1ull << ENUM(NETIF_F_HW_CSUM) |
                                 1ull << (h.v6 ? ENUM(NETIF_F_IPV6_CSUM) : ENUM(NETIF_F_IP_CSUM)));
    void *first = NULL, **end = &first;
    for (uint32_t offset = 0, index = 0; h.length + offset < length; offset += size, index++) {
        uint32_t left = length - h.length - offset, part = left < size ? left : size;
        void *segment = linux_skb_like(skb, h.length + part, headroom, site);
        if (!segment) {
            free_list(first);
            return (void *)-ENOMEM;
        }
        linux_skb_append(segment, skb, 0, h.length);
        linux_skb_append(segment, skb, h.length + offset, part);
        adapt(segment, &h, index, offset, part == left, card_sums);
        *end = segment;
        end = segment;
    }
    return first;
}

const struct linux_api gso_api[] = {
    API(__skb_gso_segment, "partial", "Cuts a large TCP frame into frames of their own.",
        "TCP over IPv4 and IPv6 only, not inside a tunnel; other protocols give -EPROTONOSUPPORT."),
    API_END,
};
