/* Where the headers of a received frame end (Linux net/core/flow_dissector.c, net/ethernet/eth.c). */
#include "vmklinux/inet.h"
#include "vmklinux/linux.h"

/* Bytes of the header behind IP's, 0 for one that is not known. */
static uint32_t transport_length(unsigned protocol, const uint8_t *header, uint32_t left)
{
    switch (protocol) {
    case IPPROTO_TCP: {
        uint32_t length = left > TCP_OFFSET ? (uint32_t)(header[TCP_OFFSET] >> 4) * 4 : 0;
        return length < TCP_HLEN ? TCP_HLEN : length;
    }
    case IPPROTO_ICMP:
    case IPPROTO_UDP:
    case IPPROTO_ICMPV6:
        return 8;
    case IPPROTO_SCTP:
        return 12;
    default:
        return 0;
    }
}

/* Of `length` bytes at `data`. */
static uint32_t eth_get_headlen(uint64_t device, const uint8_t *data, uint32_t length)
{
    (void)device;
    uint32_t at = ETH_HLEN;
    if (length < at)
        return length;
    unsigned type = load16(data + 12), transport = 0;
    while ((type == ETH_P_8021Q || type == ETH_P_8021AD) && at + VLAN_HLEN <= length) {
        type = load16(data + at + 2);
        at += VLAN_HLEN;
    }
    if (type == ETH_P_IP && at + IPV4_HLEN <= length) {
        bool first = !(load16(data + at + 6) & 0x1fff); /* of the fragments of a packet, the one with the header */
        transport = first ? data[at + 9] : 0;
        at += (uint32_t)(data[at] & 15) * 4;
    } else if (type == ETH_P_IPV6 && at + IPV6_HLEN <= length) {
        transport = data[at + 6];
        at += IPV6_HLEN;
    }
    if (at < length)
        at += transport_length(transport, data + at, length - at);
    return at < length ? at : length;
}

const struct linux_api flow_dissector_api[] = {
    API(eth_get_headlen, "partial", "How long the headers of a frame are, so that they can be copied.",
        "IPv6 extension headers and tunnels count as payload, which is then copied less."),
    API_END,
};
