/* The checksum of protection information (Linux lib/crc-t10dif.c): T10's polynomial x^16+x^15+x^11+x^9+x^8+x^7+x^5+x^4+x^2+x+1
 * (SBC-3, 4.22.4), the highest bit first. Linux asks its crypto layer for it; here it is computed by a table. */
#include "vmklinux/linux.h"

#define POLYNOMIAL 0x8bb7u

static uint16_t of_byte(unsigned byte)
{
    unsigned crc = byte << 8;
    for (int bit = 0; bit < 8; bit++)
        crc = crc << 1 ^ (crc & 0x8000 ? POLYNOMIAL : 0);
    return (uint16_t)crc;
}

static uint16_t crc_t10dif_update(uint16_t crc, const uint8_t *buffer, uint64_t length)
{
    static uint16_t table[256];
    if (!table[1]) /* with the baton: nobody else fills it */
        for (unsigned byte = 0; byte < 256; byte++)
            table[byte] = of_byte(byte);
    while (length--)
        crc = (uint16_t)(crc << 8 ^ table[crc >> 8 ^ *buffer++]);
    return crc;
}

static uint16_t crc_t10dif(const uint8_t *buffer, uint64_t length) { return crc_t10dif_update(0, buffer, length); }

const struct linux_api crc_t10dif_api[] = {
    API(crc_t10dif, "done", "The T10 checksum of a block.", NULL),
    API(crc_t10dif_update, "done", "The T10 checksum of a block that goes on.", NULL),
    API_END,
};
