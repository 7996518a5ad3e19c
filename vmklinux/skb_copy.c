/* Copies of an sk_buff with data of their own (Linux net/core/skbuff.c). */
#include <string.h>

#include "vmklinux/linux.h"

#define HEADER_UNSET 0xffffu

static uint32_t headroom_of(void *skb)
{
    return (uint32_t)(FIELD(skb, sk_buff, data, uint8_t *) - FIELD(skb, sk_buff, head, uint8_t *));
}

static void copy_info(void *copy, void *skb)
{
    void *from = linux_skb_info(skb), *to = linux_skb_info(copy);
    FIELD(to, skb_shared_info, gso_size, uint16_t) = FIELD(from, skb_shared_info, gso_size, uint16_t);
    FIELD(to, skb_shared_info, gso_segs, uint16_t) = FIELD(from, skb_shared_info, gso_segs, uint16_t);
    FIELD(to, skb_shared_info, gso_type, uint32_t) = FIELD(from, skb_shared_info, gso_type, uint32_t);
}

void *linux_skb_like(void *skb, uint32_t room, uint32_t headroom, uint32_t site)
{
    void *copy = skb_new(room, headroom, site);
    if (!copy)
        return NULL;
    uint8_t *head = FIELD(copy, sk_buff, head, uint8_t *);
    uint32_t end = FIELD(copy, sk_buff, end, uint32_t), truesize = FIELD(copy, sk_buff, truesize, uint32_t);
    memcpy(copy, skb, SIZE(sk_buff));
    *(uint64_t *)copy = 0; /* sk_buff.next */
    FIELD(copy, sk_buff, head, uint8_t *) = head;
    FIELD(copy, sk_buff, data, uint8_t *) = head + headroom;
    FIELD(copy, sk_buff, tail, uint32_t) = headroom;
    FIELD(copy, sk_buff, end, uint32_t) = end;
    FIELD(copy, sk_buff, truesize, uint32_t) = truesize;
    FIELD(copy, sk_buff, users, int32_t) = 1;
    FIELD(copy, sk_buff, len, uint32_t) = FIELD(copy, sk_buff, data_len, uint32_t) = 0;
    FIELD(copy, sk_buff, destructor, uint64_t) = 0;
    BITS_SET(copy, sk_buff, cloned, 0);
    BITS_SET(copy, sk_buff, nohdr, 0);
    BITS_SET(copy, sk_buff, head_frag, 0);
    BITS_SET(copy, sk_buff, pp_recycle, 0);
    uint16_t moved = (uint16_t)(headroom - headroom_of(skb));
    uint16_t *const headers[] = {&FIELD(copy, sk_buff, network_header, uint16_t),
                                 &FIELD(copy, sk_buff, mac_header, uint16_t),
                                 &FIELD(copy, sk_buff, transport_header, uint16_t)};
    for (unsigned i = 0; i < 3; i++)
        if (*headers[i] != HEADER_UNSET)
            *headers[i] = (uint16_t)(*headers[i] + moved);
    FIELD(copy, sk_buff, csum_start, uint16_t) = (uint16_t)(FIELD(skb, sk_buff, csum_start, uint16_t) + moved);
    return copy;
}

void linux_skb_append(void *to, void *from, uint32_t offset, uint32_t length)
{
    uint8_t *place = FIELD(to, sk_buff, head, uint8_t *) + FIELD(to, sk_buff, tail, uint32_t);
    ((int (*)(void *, int, void *, int))SYMBOL(skb_copy_bits))(from, (int)offset, place, (int)length);
    FIELD(to, sk_buff, tail, uint32_t) += length;
    FIELD(to, sk_buff, len, uint32_t) += length;
}

static void *copy_of(void *skb, uint32_t headroom, uint32_t tailroom, uint32_t site)
{
    uint32_t length = FIELD(skb, sk_buff, len, uint32_t), behind = headroom_of(skb);
    void *copy = linux_skb_like(skb, length + tailroom, headroom, site);
    if (!copy)
        return NULL;
    copy_info(copy, skb);
    linux_skb_append(copy, skb, 0, length);
    if (behind > headroom)
        behind = headroom;
    memcpy(FIELD(copy, sk_buff, data, uint8_t *) - behind, FIELD(skb, sk_buff, data, uint8_t *) - behind, behind);
    return copy;
}

static void *skb_copy(void *skb) { return copy_of(skb, headroom_of(skb), 0, SITE()); }
static void *skb_copy_expand(void *skb, uint32_t headroom, uint32_t tailroom) { return copy_of(skb, headroom, tailroom, SITE()); }
static void *__pskb_copy_fclone(void *skb, uint32_t headroom) { return copy_of(skb, headroom, 0, SITE()); }

static void *skb_realloc_headroom(void *skb, uint32_t headroom)
{
    uint32_t have = headroom_of(skb);
    return copy_of(skb, headroom > have ? headroom : have, 0, SITE());
}

static void *skb_clone(void *skb)
{
    void *twin = (void *)vmk_alloc(SIZE(sk_buff), SITE());
    if (!twin)
        return NULL;
    __sync_add_and_fetch(&FIELD(linux_skb_info(skb), skb_shared_info, dataref, int32_t), 1);
    BITS_SET(skb, sk_buff, cloned, 1);
    memcpy(twin, skb, SIZE(sk_buff));
    *(uint64_t *)twin = 0; /* sk_buff.next */
    FIELD(twin, sk_buff, users, int32_t) = 1;
    FIELD(twin, sk_buff, destructor, uint64_t) = 0;
    BITS_SET(twin, sk_buff, nohdr, 0);
    return twin;
}

const struct linux_api skb_copy_api[] = {
    API(skb_copy, "done", "A copy with data of its own, all of it linear.", NULL),
    API(skb_copy_expand, "done", "A copy with the head room and tail room that is asked for.", NULL),
    API(skb_realloc_headroom, "done", "A copy with at least so much head room.", "Pages are copied too, not shared."),
    API(skb_clone, "done", "A second sk_buff for the same data.", NULL),
    API(__pskb_copy_fclone, "done", "A copy with a header of its own.", "Pages are copied too, not shared."),
    API_END,
};
