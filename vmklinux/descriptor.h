/* Fields of the structures that a device and a native driver share in memory, and a walk over many of these in one call. */
#ifndef VMKLINUX_DESCRIPTOR_H
#define VMKLINUX_DESCRIPTOR_H
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* ---- CDEF ---- */

/* `width` bits, from bit `shift` on, of the word of 1, 2, 4 or 8 bytes at `offset`; big: the word is big-endian. size 0: there
 * is no such field. */
struct native_field { uint16_t offset; uint8_t size, shift, width, big; };

/* Structures of which one begins every `stride` bytes; a number beyond the last of them counts on from the first. */
struct native_table { char *memory; uint32_t stride, count; };
/* Fetches `fields` fields of the structures with the numbers in slots, into columns: values[f * n] begins the f-th. */
void native_table_load(const struct native_table *table, const struct native_field *fields, unsigned m, const uint32_t *slots,
                       unsigned n, uint64_t *values);
/* The other way round, in the order of the fields, after all values were judged: the index of one too wide for its field, with
 * nothing written then; else -1. */
int64_t native_table_store(const struct native_table *table, const struct native_field *fields, unsigned m,
                           const uint32_t *slots, unsigned n, const uint64_t *values);

/* ---- END CDEF ---- */

static inline uint64_t native_word(const char *at, const struct native_field *field)
{
    uint8_t u8; uint16_t u16; uint32_t u32; uint64_t u64;
    switch (field->size) {
    case 1: memcpy(&u8, at, 1); return u8;
    case 2: memcpy(&u16, at, 2); return field->big ? __builtin_bswap16(u16) : u16;
    case 4: memcpy(&u32, at, 4); return field->big ? __builtin_bswap32(u32) : u32;
    default: memcpy(&u64, at, 8); return field->big ? __builtin_bswap64(u64) : u64;
    }
}

static inline void native_word_set(char *at, const struct native_field *field, uint64_t word)
{
    uint8_t u8 = (uint8_t)word; uint16_t u16 = (uint16_t)word; uint32_t u32 = (uint32_t)word;
    switch (field->size) {
    case 1: memcpy(at, &u8, 1); return;
    case 2: u16 = field->big ? __builtin_bswap16(u16) : u16; memcpy(at, &u16, 2); return;
    case 4: u32 = field->big ? __builtin_bswap32(u32) : u32; memcpy(at, &u32, 4); return;
    default: word = field->big ? __builtin_bswap64(word) : word; memcpy(at, &word, 8);
    }
}

static inline uint64_t native_most(const struct native_field *field) { return ~0ull >> (64 - field->width); }

static inline uint64_t native_get(const char *structure, const struct native_field *field)
{
    return native_word(structure + field->offset, field) >> field->shift & native_most(field);
}

/* A value that is too wide loses its upper bits. */
static inline void native_set(char *structure, const struct native_field *field, uint64_t value)
{
    char *at = structure + field->offset;
    if (field->width == field->size * 8) {
        native_word_set(at, field, value);
        return;
    }
    uint64_t mask = native_most(field) << field->shift;
    native_word_set(at, field, (native_word(at, field) & ~mask) | (value << field->shift & mask));
}

#endif
