/* Where the headers of a received frame end (Linux net/core/flow_dissector.c, net/ethernet/eth.c). */
#include <string.h>

#include "vmklinux/linux.h"

#define ETH_HLEN 14u
#define VLAN_HLEN 4u
#define ETH_P_8021Q 0x8100u /* include/uapi/linux/if_ether.h */
#define ETH_P_8021AD 0x88a8u
#define ETH_P_IP 0x0800u
#define ETH_P_IPV6 0x86ddu
#define IPV6_HLEN 40u

/* Bytes of the header behind IP's (include/uapi/linux/in.h for the numbers), 0 for one that is not known. */
static uint32_t transport_length(unsigned protocol, const uint8_t *header, uint32_t left)
{
    switch (protocol) {
    case 6: { /* TCP: its data offset is the high half of byte 12, in words */
        uint32_t length = left > 12 ? (uint32_t)(header[12] >> 4) * 4 : 0;
        return length < 20 ? 20 : length;
    }
    case 1:   /* ICMP */
    case 17:  /* UDP */
    case 58:  /* ICMPv6 */
        return 8;
    case 132: /* SCTP */
        return 12;
    default:
        return 0;
    }
}

static unsigned big16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

/* Of `length` bytes at `data`. */
static uint32_t eth_get_headlen(uint64_t device, const uint8_t *data, uint32_t length)
{
    (void)device;
    uint32_t at = ETH_HLEN;
    if (length < at)
        return length;
    unsigned type = big16(data + 12), transport = 0;
    while ((type == ETH_P_8021Q || type == ETH_P_8021AD) && at + VLAN_HLEN <= length) {
        type = big16(data + at + 2);
        at += VLAN_HLEN;
    }
    if (type == ETH_P_IP && at + 20 <= length) {
        bool first = !(big16(data + at + 6) & 0x1fff); /* of the fragments of a packet, the one with the header */
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
