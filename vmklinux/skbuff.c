/* sk_buff: allocation and release (Linux net/core/skbuff.c). What only moves pointers or bytes inside one (skb_put,
 * skb_copy_bits, __pskb_pull_tail ...) runs from the image. */
#include <string.h>

#include "vmklinux/linux.h"

#define NET_SKB_PAD 64u          /* include/linux/skbuff.h on x86: max(32, L1_CACHE_BYTES) */
#define DATAREF_SHIFT 16         /* SKB_DATAREF_SHIFT */
#define HEADER_UNSET 0xffffu     /* a header offset that was not set yet */
#define CACHE_LINE 64u

static uint32_t info_size(void) { return (SIZE(skb_shared_info) + CACHE_LINE - 1) & ~(CACHE_LINE - 1); }
static uint8_t *head_of(void *skb) { return FIELD(skb, sk_buff, head, uint8_t *); }

/* Lays an skb over `size` bytes at `head`, of which the last are the shared info. */
static void *skb_over(uint8_t *head, uint32_t size, bool fragment, uint32_t site)
{
    void *skb = (void *)vmk_alloc(SIZE(sk_buff), site);
    if (!skb)
        return NULL;
    uint32_t end = size - info_size();
    memset(skb, 0, SIZE(sk_buff));
    FIELD(skb, sk_buff, head, uint8_t *) = head;
    FIELD(skb, sk_buff, data, uint8_t *) = head;
    FIELD(skb, sk_buff, end, uint32_t) = end;
    FIELD(skb, sk_buff, truesize, uint32_t) = size + SIZE(sk_buff);
    FIELD(skb, sk_buff, users, int32_t) = 1;
    FIELD(skb, sk_buff, mac_header, uint16_t) = HEADER_UNSET;
    FIELD(skb, sk_buff, transport_header, uint16_t) = HEADER_UNSET;
    BITS_SET(skb, sk_buff, head_frag, fragment);
    memset(head + end, 0, SIZE(skb_shared_info));
    FIELD(head + end, skb_shared_info, dataref, int32_t) = 1;
    return skb;
}

void *skb_new(uint32_t room, uint32_t headroom, uint32_t site)
{
    uint32_t size = ((room + headroom + CACHE_LINE - 1) & ~(CACHE_LINE - 1)) + info_size();
    uint8_t *head = (uint8_t *)vmk_alloc(size, site);
    void *skb = head ? skb_over(head, size, false, site) : NULL;
    if (!skb) {
        if (head)
            vmk_free((uint64_t)head);
        return NULL;
    }
    FIELD(skb, sk_buff, data, uint8_t *) = head + headroom;
    FIELD(skb, sk_buff, tail, uint32_t) = headroom;
    return skb;
}

static void *__alloc_skb(uint32_t size) { return skb_new(size, 0, SITE()); }

static void *for_device(uint64_t dev, uint32_t length, uint32_t site)
{
    void *skb = skb_new(length, NET_SKB_PAD, site);
    if (skb)
        FIELD(skb, sk_buff, dev, uint64_t) = dev;
    return skb;
}

static void *__netdev_alloc_skb(uint64_t dev, uint32_t length) { return for_device(dev, length, SITE()); }
static void *napi_alloc_skb(uint64_t napi, uint32_t length)
{
    return for_device(FIELD(napi, napi_struct, dev, uint64_t), length, SITE());
}

static void *build_skb(uint8_t *data, uint32_t fragment_size)
{
    uint32_t size = fragment_size ? fragment_size : (uint32_t)vmk_alloc_size((uint64_t)data);
    return skb_over(data, size, fragment_size != 0, SITE());
}

static void *slab_build_skb(uint8_t *data) { return skb_over(data, (uint32_t)vmk_alloc_size((uint64_t)data), false, SITE()); }

/* ---- release ---- */

uint64_t linux_frag_page(const void *frag)
{
    return (HAS_FIELD(skb_frag, netmem) ? FIELD(frag, skb_frag, netmem, uint64_t)
                                        : FIELD(frag, skb_frag, page, uint64_t)) & ~1ull;
}

uint32_t linux_frag_size(void) { return SIZE(skb_frag) != LINUX_ABSENT ? SIZE(skb_frag) : SIZE(bio_vec); }

void linux_frag_add(void *info, uint64_t page, uint32_t size)
{
    uint8_t *count = &FIELD(info, skb_shared_info, nr_frags, uint8_t);
    char *frag = INNER(info, skb_shared_info, frags) + (*count)++ * linux_frag_size();
    if (HAS_FIELD(skb_frag, netmem)) {
        FIELD(frag, skb_frag, netmem, uint64_t) = page;
        FIELD(frag, skb_frag, len, uint32_t) = size;
        FIELD(frag, skb_frag, offset, uint32_t) = 0;
    } else {
        FIELD(frag, skb_frag, page, uint64_t) = page;
        FIELD(frag, skb_frag, size, uint32_t) = size;
        FIELD(frag, skb_frag, bv_offset, uint32_t) = 0;
    }
}

const char *linux_frag_data(const void *frag, uint32_t *size)
{
    bool netmem = HAS_FIELD(skb_frag, netmem);
    *size = netmem ? FIELD(frag, skb_frag, len, uint32_t) : FIELD(frag, skb_frag, size, uint32_t);
    return (const char *)linux_page_address(linux_frag_page(frag)) +
           (netmem ? FIELD(frag, skb_frag, offset, uint32_t) : FIELD(frag, skb_frag, bv_offset, uint32_t));
}

static void release_data(void *skb)
{
    void *info = linux_skb_info(skb);
    int32_t *references = &FIELD(info, skb_shared_info, dataref, int32_t);
    int32_t ours = BITS_GET(skb, sk_buff, nohdr) ? (1 << DATAREF_SHIFT) + 1 : 1;
    if (BITS_GET(skb, sk_buff, cloned) && __sync_sub_and_fetch(references, ours))
        return;
    for (unsigned i = 0; i < FIELD(info, skb_shared_info, nr_frags, uint8_t); i++)
        linux_page_put(linux_frag_page(INNER(info, skb_shared_info, frags) + i * linux_frag_size()));
    for (void *next, *part = FIELD(info, skb_shared_info, frag_list, void *); part; part = next) {
        next = *(void **)part; /* sk_buff.next is the first member: it shares its place with a list_head's */
        kfree_skb_now(part);
    }
    linux_frag_free((uint64_t)head_of(skb), vmk_owner());
}

void kfree_skb_now(void *skb)
{
    if (!skb || __sync_sub_and_fetch(&FIELD(skb, sk_buff, users, int32_t), 1))
        return;
    void (*destructor)(void *) = FIELD(skb, sk_buff, destructor, void (*)(void *));
    if (destructor)
        destructor(skb);
    if (head_of(skb))
        release_data(skb);
    if (vmk_free((uint64_t)skb))
        vmk_stop(VMK_STOP_PANIC, vmk_owner(), (uint64_t)skb);
}

static void kfree_skb_of(uint64_t sk, void *skb)
{
    (void)sk;
    kfree_skb_now(skb);
}

/* ---- growing ---- */

static int pskb_expand_head(void *skb, int before, int after, uint32_t gfp)
{
    (void)gfp;
    uint8_t *old = head_of(skb);
    uint32_t end = FIELD(skb, sk_buff, end, uint32_t), tail = FIELD(skb, sk_buff, tail, uint32_t);
    uint32_t room = (end + (uint32_t)before + (uint32_t)after + CACHE_LINE - 1) & ~(CACHE_LINE - 1);
    uint8_t *head = (uint8_t *)vmk_alloc(room + info_size(), SITE());
    if (!head)
        return -12; /* -ENOMEM */
    memcpy(head + before, old, tail);
    memcpy(head + room, old + end, SIZE(skb_shared_info));
    if (BITS_GET(skb, sk_buff, cloned)) {
        for (unsigned i = 0; i < FIELD(head + room, skb_shared_info, nr_frags, uint8_t); i++) {
            uint64_t page = linux_frag_page(INNER(head + room, skb_shared_info, frags) + i * linux_frag_size());
            uint64_t compound = FIELD(page, page, compound_head, uint64_t);
            __sync_add_and_fetch(&FIELD(compound & 1 ? compound - 1 : page, page, refcount, int32_t), 1);
        }
        release_data(skb);
    } else {
        linux_frag_free((uint64_t)old, vmk_owner());
    }
    FIELD(head + room, skb_shared_info, dataref, int32_t) = 1;
    FIELD(skb, sk_buff, data, uint8_t *) += head - old + before;
    FIELD(skb, sk_buff, head, uint8_t *) = head;
    FIELD(skb, sk_buff, end, uint32_t) = room;
    FIELD(skb, sk_buff, tail, uint32_t) += (uint32_t)before;
    BITS_SET(skb, sk_buff, cloned, 0);
    BITS_SET(skb, sk_buff, nohdr, 0);
    BITS_SET(skb, sk_buff, head_frag, 0);
    uint16_t *const headers[] = {&FIELD(skb, sk_buff, network_header, uint16_t),
                                 &FIELD(skb, sk_buff, mac_header, uint16_t),
                                 &FIELD(skb, sk_buff, transport_header, uint16_t)};
    for (unsigned i = 0; i < 3; i++)
        if (*headers[i] != HEADER_UNSET)
            *headers[i] = (uint16_t)(*headers[i] + before);
    FIELD(skb, sk_buff, csum_start, uint16_t) = (uint16_t)(FIELD(skb, sk_buff, csum_start, uint16_t) + before);
    return 0;
}

const struct linux_api skbuff_api[] = {
    API(__alloc_skb, "partial", "Allocates an skb with its data.", "No fast clones: the flag asks for a plain one."),
    API(__netdev_alloc_skb, "done", "Allocates an skb for reception.", NULL),
    API(napi_alloc_skb, "done", "Allocates an skb for reception in NAPI.", NULL),
    API_AS("__napi_alloc_skb", napi_alloc_skb, "done", "Allocates an skb for reception in NAPI.", NULL),
    API(build_skb, "done", "Puts an skb around a buffer.", NULL),
    API_AS("slab_build_skb", slab_build_skb, "done", "Puts an skb around an object of kmalloc's.", NULL),
    API_AS("napi_build_skb", build_skb, "done", "Puts an skb around a buffer.", NULL),
    API_AS("consume_skb", kfree_skb_now, "done", "Frees an skb that was used up.", NULL),
    API_AS("kfree_skb_reason", kfree_skb_now, "partial", "Frees an skb that was dropped.", "The reason is not kept."),
    API_AS("sk_skb_reason_drop", kfree_skb_of, "partial", "Frees an skb that was dropped.", "The reason is not kept."),
    API_AS("__kfree_skb", kfree_skb_now, "done", "Frees an skb.", NULL),
    API_AS("__dev_kfree_skb_any", kfree_skb_now, "done", "Frees an skb in any context, at once.", NULL),
    API_AS("dev_kfree_skb_any_reason", kfree_skb_now, "done", "Frees an skb in any context, at once.", NULL),
    API_AS("__dev_kfree_skb_irq", kfree_skb_now, "done", "Frees an skb in interrupt context, at once.", NULL),
    API_AS("dev_kfree_skb_irq_reason", kfree_skb_now, "done", "Frees an skb in interrupt context, at once.", NULL),
    API_AS("napi_consume_skb", kfree_skb_now, "done", "Frees an skb in NAPI.", "Without Linux's per-CPU reuse cache."),
    API(pskb_expand_head, "done", "Gives an skb a larger head of its own.", NULL),
    API_END,
};
