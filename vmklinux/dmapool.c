/* Pools of small blocks that driver and device share (Linux mm/dmapool.c). */
#include <string.h>

#include "vmklinux/linux.h"

#define PAGE 4096u
#define LEAST 8u /* bytes of a block */

/* A page, or a larger block, of coherent memory, and which of its blocks are out. */
struct pool_page {
    struct pool_page *next;
    uint64_t address, used[PAGE / LEAST / 64];
};

struct dma_pool {
    uint64_t device, size, boundary, length; /* length: bytes of a page */
    unsigned blocks;                         /* of a page */
    uint32_t owner;
    struct pool_page *pages;
};

static uint64_t block_offset(const struct dma_pool *pool, unsigned number)
{
    uint64_t in_a_row = pool->boundary / pool->size;
    return number / in_a_row * pool->boundary + number % in_a_row * pool->size;
}

static void *dma_pool_create(uint64_t name, uint64_t device, uint64_t size, uint64_t align, uint64_t boundary)
{
    (void)name;
    align = align ? align : 1;
    if (!device || !size || align & (align - 1) || size > INT32_MAX || boundary & (boundary - 1))
        return NULL;
    size = ((size < LEAST ? LEAST : size) + align - 1) & ~(align - 1);
    if (boundary && boundary < size)
        return NULL;
    struct dma_pool *pool = (void *)vmk_alloc(sizeof *pool, SITE());
    if (!pool)
        return NULL;
    uint64_t length = size > PAGE ? size : PAGE;
    if (!boundary || boundary > length)
        boundary = length;
    *pool = (struct dma_pool){.device = device, .size = size, .boundary = boundary, .length = length, .owner = SITE()};
    pool->blocks = length / boundary * (boundary / size);
    return pool;
}

static struct pool_page *page_new(struct dma_pool *pool)
{
    struct pool_page *page = (void *)vmk_alloc(sizeof *page, pool->owner);
    uint64_t address = page ? vmk_run_alloc(pool->length, pool->owner) : 0;
    if (!address || !linux_dma_count(pool->device, 1)) {
        if (address)
            vmk_free(address);
        if (page)
            vmk_free((uint64_t)page);
        return NULL;
    }
    memset(page, 0, sizeof *page);
    page->address = address;
    page->next = pool->pages;
    return pool->pages = page;
}

static uint64_t block_take(struct dma_pool *pool, struct pool_page *page)
{
    for (unsigned number = 0; number < pool->blocks; number++)
        if (!(page->used[number / 64] >> number % 64 & 1)) {
            page->used[number / 64] |= 1ull << number % 64;
            return page->address + block_offset(pool, number);
        }
    return 0;
}

static void *dma_pool_alloc(struct dma_pool *pool, uint64_t gfp, uint64_t *handle)
{
    (void)gfp;
    uint64_t block = 0;
    for (struct pool_page *page = pool->pages; page && !block; page = page->next)
        block = block_take(pool, page);
    if (!block) {
        struct pool_page *page = page_new(pool);
        if (!page)
            return NULL;
        block = block_take(pool, page);
    }
    memset((void *)block, 0, pool->size);
    *handle = block - *(uint64_t *)SYMBOL(page_offset_base);
    return (void *)block;
}

static void dma_pool_free(struct dma_pool *pool, uint64_t block)
{
    for (struct pool_page *page = pool->pages; page; page = page->next) {
        if (block - page->address >= pool->length)
            continue;
        for (unsigned number = 0; number < pool->blocks; number++)
            if (page->address + block_offset(pool, number) == block && page->used[number / 64] >> number % 64 & 1) {
                page->used[number / 64] &= ~(1ull << number % 64);
                return;
            }
    }
    vmk_stop(VMK_STOP_PANIC, SITE(), block);
}

/* A page of which a block is still out stays, and is found as a leak: the device may write to it. */
static void dma_pool_destroy(struct dma_pool *pool)
{
    if (!pool)
        return;
    for (struct pool_page *page = pool->pages, *next; page; page = next) {
        next = page->next;
        bool out = false;
        for (unsigned word = 0; word < PAGE / LEAST / 64; word++)
            out |= page->used[word] != 0;
        if (!out) {
            vmk_free(page->address);
            linux_dma_count(pool->device, -1);
        }
        vmk_free((uint64_t)page);
    }
    vmk_free((uint64_t)pool);
}

const struct linux_api dmapool_api[] = {
    API(dma_pool_create, "done", "Makes a pool of blocks that the device shares.", NULL),
    API(dma_pool_alloc, "done", "Takes a block; it is always cleared.", NULL),
    API(dma_pool_free, "done", "Gives a block back; a stray or second free stops the driver.", NULL),
    API(dma_pool_destroy, "done", "Frees a pool; pages of which a block is still out are a leak.", NULL),
    API_END,
};
