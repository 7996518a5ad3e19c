/* What the files that read frames share: numbers in network order, RFC 1071's sum, and where headers have what. */
#ifndef VMKLINUX_INET_H
#define VMKLINUX_INET_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* include/uapi/linux/if_ether.h, in.h */
enum { ETH_HLEN = 14, VLAN_HLEN = 4 };
enum { ETH_P_IP = 0x0800, ETH_P_8021Q = 0x8100, ETH_P_IPV6 = 0x86dd, ETH_P_8021AD = 0x88a8 };
enum { IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17, IPPROTO_ICMPV6 = 58, IPPROTO_SCTP = 132 };

/* Headers without options, in bytes; the fields and flags of TCP's (RFC 9293, 3.1). */
enum { IPV4_HLEN = 20, IPV6_HLEN = 40, TCP_HLEN = 20 };
enum { TCP_SEQUENCE = 4, TCP_ACKNOWLEDGED = 8, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16 };
enum { TCP_FIN = 0x01, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_CWR = 0x80 };

static inline uint16_t load16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }
static inline uint32_t load32(const uint8_t *at) { return (uint32_t)load16(at) << 16 | load16(at + 2); }

static inline void store16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void store32(uint8_t *at, uint32_t value)
{
    store16(at, value >> 16);
    store16(at + 2, value);
}

/* RFC 1071's sum, not folded. An odd last byte counts as the high half of a word. */
static inline uint64_t inet_sum(const uint8_t *at, size_t length)
{
    uint64_t total = 0;
    for (; length >= 4; at += 4, length -= 4) {
        uint32_t word;
        memcpy(&word, at, 4);
        total += __builtin_bswap32(word);
    }
    if (length >= 2)
        total += load16(at);
    return total + (length & 1 ? (uint32_t)at[length - 1] << 8 : 0);
}

static inline uint16_t inet_fold(uint64_t total)
{
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint16_t)total;
}

/* What TCP's checksum covers besides its segment: the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1), not folded. */
static inline uint64_t tcp_pseudo_sum(const uint8_t *ip, _Bool v6, uint32_t tcp_length)
{
    return inet_sum(ip + (v6 ? 8 : 12), v6 ? 32 : 8) + IPPROTO_TCP + tcp_length;
}

#endif
