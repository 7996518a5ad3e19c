/* Page pools (Linux net/core/page_pool.c): pages for reception, mapped for DMA already.
 *
 * Nothing is kept for reuse: a page comes from the allocator and goes back to it, which is as cheap here. The page
 * itself tells how many hold a part of it, so no page needs its pool, and a pool may go before its pages. */
#include <errno.h>
#include <string.h>

#include "vmklinux/linux.h"

#define GFP_ZERO 0x100u    /* ___GFP_ZERO */
#define POOL_PAGE 0x40ull /* in pp_magic, as Linux's PP_SIGNATURE without the poison: no pointer, and even */

static uint64_t page_pool_create(uint64_t parameters)
{
    uint64_t pool = vmk_alloc(SIZE(page_pool), SITE());
    if (!pool)
        return (uint64_t)-ENOMEM;
    memset((void *)pool, 0, SIZE(page_pool));
    if (HAS_FIELD(page_pool, slow)) {
        uint32_t fast = SIZE(page_pool_params_fast);
        memcpy(INNER(pool, page_pool, p), (void *)parameters, fast);
        memcpy(INNER(pool, page_pool, slow), (char *)parameters + fast, SIZE(page_pool_params) - fast);
    } else {
        memcpy(INNER(pool, page_pool, p), (void *)parameters, SIZE(page_pool_params));
    }
    FIELD(pool, page_pool, user_cnt, int32_t) = 1;
    return pool;
}

/* The driver holds a pool, and each receive queue that was told to XDP (xdp.py). */
static void page_pool_destroy(uint64_t pool)
{
    if (pool && !--FIELD(pool, page_pool, user_cnt, int32_t) && vmk_free(pool))
        vmk_stop(VMK_STOP_PANIC, SITE(), pool);
}

static uint64_t *parts_of(uint64_t page)
{
    return HAS_FIELD(page, pp_ref_count) ? &FIELD(page, page, pp_ref_count, uint64_t)
                                         : &FIELD(page, page, pp_frag_count, uint64_t);
}

static uint64_t take(uint64_t pool, uint32_t gfp, uint32_t site)
{
    uint64_t page = linux_pages_new(FIELD(pool, page_pool, order, uint32_t), site);
    if (!page)
        return 0;
    if (gfp & GFP_ZERO)
        memset((void *)linux_page_address(page), 0, 4096ull << FIELD(pool, page_pool, order, uint32_t));
    FIELD(page, page, pp_magic, uint64_t) = POOL_PAGE;
    FIELD(page, page, pp, uint64_t) = pool;
    FIELD(page, page, dma_addr, uint64_t) = linux_page_address(page) - *(uint64_t *)SYMBOL(page_offset_base);
    *parts_of(page) = 1;
    return page;
}

static uint64_t page_pool_alloc_pages(uint64_t pool, uint32_t gfp) { return take(pool, gfp, SITE()); }

static uint64_t page_pool_alloc_frag(uint64_t pool, uint32_t *offset, uint32_t size, uint32_t gfp)
{
    (void)size;
    *offset = 0;
    return take(pool, gfp, SITE());
}

/* The page becomes an ordinary one, of which its holder has a reference. */
static void page_pool_release_page(uint64_t pool, uint64_t page)
{
    (void)pool;
    FIELD(page, page, pp_magic, uint64_t) = 0;
    FIELD(page, page, pp, uint64_t) = 0;
    FIELD(page, page, dma_addr, uint64_t) = 0;
    *parts_of(page) = 0;
}

static void page_pool_put_unrefed_page(uint64_t pool, uint64_t page)
{
    page_pool_release_page(pool, page);
    linux_page_put(page);
}

bool linux_page_pool_keeps(uint64_t page)
{
    if (FIELD(page, page, pp_magic, uint64_t) != POOL_PAGE)
        return false;
    if (--*parts_of(page))
        return true;
    page_pool_release_page(0, page);
    return false;
}

#define NO_REUSE "Pages are not kept for reuse: the allocator is as quick."
#define ONE_NODE "There is one memory node."

const struct linux_api page_pool_api[] = {
    API(page_pool_create, "done", "Makes a page pool.", NO_REUSE),
    API(page_pool_destroy, "done", "Frees a page pool with its last user; pages that are out stay valid.", NO_REUSE),
    API(page_pool_alloc_pages, "done", "Takes a page, mapped for DMA.", NO_REUSE),
    API(page_pool_alloc_frag, "done", "Takes a part of a page: each gets a page of its own.", NO_REUSE),
    API(page_pool_release_page, "done", "Makes a pool's page an ordinary one.", NULL),
    API(page_pool_put_unrefed_page, "done", "Gives back a page that nobody holds a part of.", NO_REUSE),
    API_AS("page_pool_put_unrefed_netmem", page_pool_put_unrefed_page, "done", "Gives back a page.", NO_REUSE),
    API_AS("page_pool_put_defragged_page", page_pool_put_unrefed_page, "done", "Gives back a page.", NO_REUSE),
    API_AS("page_pool_update_nid", linux_nothing, "no-op", "Moves a pool to another memory node.", ONE_NODE),
    API_AS("page_pool_nid_changed", linux_nothing, "no-op", "Moves a pool to another memory node.", ONE_NODE),
    API_AS("page_pool_disable_direct_recycling", linux_nothing, "no-op", "Ends reuse without a lock.", NO_REUSE),
    API_END,
};
