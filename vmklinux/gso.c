/* TCP segmentation in software (Linux net/core/gso.c, net/ipv4/tcp_offload.c): for drivers that find a frame which
 * their card cannot segment. */
#include <errno.h>
#include <string.h>

#include "vmklinux/linux.h"

enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_CWR = 0x80 };
enum { CHECKSUM_NONE = 0 };
enum { IPV4_HEADER = 20, IPV6_HEADER = 40, TCP_HEADER = 20, TCP_CSUM = 16, IPPROTO_OF_TCP = 6 };

static uint32_t add(uint32_t sum, const uint8_t *data, uint32_t length)
{
    for (uint32_t i = 0; i + 1 < length; i += 2)
        sum += (uint32_t)data[i] << 8 | data[i + 1];
    if (length & 1)
        sum += (uint32_t)data[length - 1] << 8;
    return sum;
}
static uint16_t fold(uint32_t sum)
{
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}
static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}
static uint32_t get16(const uint8_t *at) { return (uint32_t)at[0] << 8 | at[1]; }

/* Where the headers of a frame are, counted from its data. */
struct headers { uint32_t network, transport, length; bool v6; };

static bool find_headers(void *skb, struct headers *out)
{
    uint8_t *data = FIELD(skb, sk_buff, data, uint8_t *);
    uint32_t headroom = (uint32_t)(data - FIELD(skb, sk_buff, head, uint8_t *));
    uint32_t linear = FIELD(skb, sk_buff, len, uint32_t) - FIELD(skb, sk_buff, data_len, uint32_t);
    out->network = FIELD(skb, sk_buff, network_header, uint16_t) - headroom;
    out->transport = FIELD(skb, sk_buff, transport_header, uint16_t) - headroom;
    if (out->transport <= out->network || out->transport + TCP_HEADER > linear)
        return false;
    out->v6 = data[out->network] >> 4 == 6;
    out->length = out->transport + (data[out->transport + 12] >> 4) * 4u;
    return out->length <= linear && out->transport - out->network >= (out->v6 ? IPV6_HEADER : IPV4_HEADER);
}

/* The sum over the pseudo header of RFC 9293, 3.1, and RFC 8200, 8.1. */
static uint32_t pseudo(const uint8_t *network, bool v6, uint32_t tcp_length)
{
    return add(IPPROTO_OF_TCP + tcp_length, network + (v6 ? 8 : 12), v6 ? 32 : 8);
}

/* Makes headers copied from the large frame those of its segment: number `index`, `offset` bytes into the payload. */
static void adapt(void *segment, const struct headers *h, uint32_t index, uint32_t offset, bool last, bool card_sums)
{
    uint8_t *data = FIELD(segment, sk_buff, data, uint8_t *), *network = data + h->network, *tcp = data + h->transport;
    uint32_t length = FIELD(segment, sk_buff, len, uint32_t), tcp_length = length - h->transport, sequence;
    if (h->v6) {
        put16(network + 4, length - h->network - IPV6_HEADER);
    } else {
        put16(network + 2, length - h->network);
        put16(network + 4, get16(network + 4) + index);
        put16(network + 10, 0);
        put16(network + 10, (uint16_t)~fold(add(0, network, (network[0] & 15) * 4u)));
    }
    memcpy(&sequence, tcp + 4, 4);
    sequence = __builtin_bswap32(__builtin_bswap32(sequence) + offset);
    memcpy(tcp + 4, &sequence, 4);
    tcp[13] &= (uint8_t)~((last ? 0 : TCP_FIN | TCP_PSH) | (index ? TCP_CWR : 0));
    put16(tcp + TCP_CSUM, 0);
    uint16_t sum = fold(pseudo(network, h->v6, tcp_length));
    if (!card_sums)
        sum = (uint16_t)~fold(add(sum, tcp, tcp_length));
    put16(tcp + TCP_CSUM, sum);
    BITS_SET(segment, sk_buff, ip_summed, card_sums ? CHECKSUM_PARTIAL : CHECKSUM_NONE);
    FIELD(segment, sk_buff, csum_start, uint16_t) = FIELD(segment, sk_buff, transport_header, uint16_t);
    FIELD(segment, sk_buff, csum_offset, uint16_t) = TCP_CSUM;
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
