/* Machine memory: a buddy allocator for pages and slabs for small objects, each allocation with its owner.
 *
 * All bookkeeping lies outside machine memory, so that neither a driver nor a device can damage it. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vmkernel_core/core.h"

#define PAGE_SHIFT 12
#define PAGE_SIZE (1ull << PAGE_SHIFT)
#define MAX_ORDER 16
#define NONE UINT32_MAX

enum page_state { RESERVED, FREE_HEAD, BODY, PAGES, RUN, SLAB };

struct page {
    uint8_t state;
    uint8_t order;
    uint32_t site;
    uint32_t next, prev; /* free list of its order */
    struct slab *slab;   /* of every page of a slab */
};

struct slab {
    uint64_t base;
    uint16_t class, count, used, free_head;
    struct slab *next, *prev; /* list of slabs with room, of its class */
    uint32_t *site;           /* 0: free */
    uint16_t *link;           /* next free object */
};

static const uint16_t class_size[] = {8,   16,  32,  64,   96,   128,  192,  256,
                                      384, 512, 768, 1024, 1536, 2048, 4096, 8192};
#define CLASSES (sizeof class_size / sizeof *class_size)
static uint8_t class_of[8192 / 8 + 1];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t base, size;
static uint32_t page_count, pages_free;
static struct page *pages;
static uint32_t free_list[MAX_ORDER + 1];
static struct slab *partial[CLASSES];
static uint64_t objects, object_bytes;

/* Addresses that are kept free for vmk_map, by a mapping that nobody may touch; a bit for each page that is mapped there. */
static uint64_t held, held_end;
static uint8_t *taken;

static bool in_held(uint64_t address, uint64_t length) { return address >= held && address + length <= held_end; }
static bool is_taken(uint64_t page) { return taken[page / 8] >> page % 8 & 1; }

static void mark(uint64_t address, uint64_t length, bool mapped)
{
    for (uint64_t page = (address - held) / PAGE_SIZE; page < (address - held + length + PAGE_SIZE - 1) / PAGE_SIZE; page++)
        taken[page / 8] = (uint8_t)((taken[page / 8] & ~(1u << page % 8)) | (unsigned)mapped << page % 8);
}

int vmk_hold(uint64_t address, uint64_t length)
{
    uint8_t *pages_taken = calloc(length / PAGE_SIZE / 8 + 1, 1);
    int flags = MAP_FIXED_NOREPLACE | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (held || !pages_taken || mmap((void *)address, length, PROT_NONE, flags, -1, 0) == MAP_FAILED) {
        free(pages_taken);
        return held ? -EBUSY : pages_taken ? -errno : -ENOMEM;
    }
    held = address, held_end = address + length, taken = pages_taken;
    return 0;
}

int vmk_map(uint64_t address, uint64_t length, int prot, int shared, int fd, uint64_t offset)
{
    int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | (fd < 0 ? MAP_ANONYMOUS : 0) | MAP_NORESERVE;
    bool ours = in_held(address, length);
    if (ours)
        for (uint64_t page = (address - held) / PAGE_SIZE; page < (address - held + length + PAGE_SIZE - 1) / PAGE_SIZE; page++)
            if (is_taken(page))
                return -EEXIST;
    void *at = mmap((void *)address, length, prot, flags | (ours ? MAP_FIXED : MAP_FIXED_NOREPLACE), fd, (off_t)offset);
    if (at == MAP_FAILED)
        return -errno;
    if (ours)
        mark(address, length, true);
    return 0;
}

int vmk_unmap(uint64_t address, uint64_t length)
{
    if (!in_held(address, length))
        return munmap((void *)address, length) ? -errno : 0;
    int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (mmap((void *)address, length, PROT_NONE, flags, -1, 0) == MAP_FAILED)
        return -errno;
    mark(address, length, false);
    return 0;
}

static void list_push(uint32_t index, unsigned order)
{
    struct page *page = &pages[index];
    page->state = FREE_HEAD;
    page->order = (uint8_t)order;
    page->prev = NONE;
    page->next = free_list[order];
    if (page->next != NONE)
        pages[page->next].prev = index;
    free_list[order] = index;
}

static void list_remove(uint32_t index)
{
    struct page *page = &pages[index];
    if (page->prev != NONE)
        pages[page->prev].next = page->next;
    else
        free_list[page->order] = page->next;
    if (page->next != NONE)
        pages[page->next].prev = page->prev;
    page->state = BODY;
}

int vmk_memory_init(uint64_t new_base, uint64_t new_size, uint64_t reserved)
{
    if (pages)
        return -EBUSY;
    base = new_base;
    size = new_size;
    page_count = (uint32_t)(size >> PAGE_SHIFT);
    pages = calloc(page_count, sizeof *pages);
    if (!pages)
        return -ENOMEM;
    memset(free_list, 0xff, sizeof free_list);
    memset(partial, 0, sizeof partial);
    objects = object_bytes = 0;
    for (unsigned c = 0, n = 0; n <= 8192 / 8; n++) {
        if (n * 8 > class_size[c])
            c++;
        class_of[n] = (uint8_t)c;
    }
    uint32_t index = (uint32_t)((reserved + PAGE_SIZE - 1) >> PAGE_SHIFT);
    pages_free = page_count - index;
    while (index < page_count) {
        unsigned order = index ? (unsigned)__builtin_ctz(index) : MAX_ORDER;
        if (order > MAX_ORDER)
            order = MAX_ORDER;
        while ((1ull << order) > page_count - index)
            order--;
        for (uint32_t body = 0; body < 1u << order; body++)
            pages[index + body].state = BODY; /* so that start_of finds the head from anywhere */
        list_push(index, order);
        index += 1u << order;
    }
    return 0;
}

static void slab_destroy(struct slab *slab)
{
    free(slab->site);
    free(slab->link);
    free(slab);
}

void vmk_memory_fini(void)
{
    for (uint32_t i = 0; pages && i < page_count; i++)
        if (pages[i].state == SLAB && pages[i].slab->base == base + ((uint64_t)i << PAGE_SHIFT))
            slab_destroy(pages[i].slab);
    free(pages);
    pages = NULL;
}

static uint32_t buddy_alloc(unsigned order, uint8_t state, uint32_t site)
{
    unsigned have = order;
    while (have <= MAX_ORDER && free_list[have] == NONE)
        have++;
    if (have > MAX_ORDER)
        return NONE;
    uint32_t index = free_list[have];
    list_remove(index);
    while (have > order) {
        have--;
        list_push(index + (1u << have), have);
    }
    pages[index].state = state;
    pages[index].order = (uint8_t)order;
    pages[index].site = site;
    pages_free -= 1u << order;
    return index;
}

static void buddy_free(uint32_t index)
{
    unsigned order = pages[index].order;
    pages_free += 1u << order;
    pages[index].state = BODY;
    for (; order < MAX_ORDER; order++) {
        uint32_t buddy = index ^ (1u << order);
        if (buddy >= page_count || pages[buddy].state != FREE_HEAD || pages[buddy].order != order)
            break;
        list_remove(buddy);
        index &= ~(1u << order);
    }
    list_push(index, order);
}

static unsigned order_for(uint64_t bytes)
{
    return bytes <= PAGE_SIZE ? 0 : 64 - (unsigned)__builtin_clzll((bytes - 1) >> PAGE_SHIFT);
}

static uint64_t pages_of(unsigned order, uint8_t state, uint32_t site)
{
    if (order > MAX_ORDER || !pages)
        return 0;
    pthread_mutex_lock(&lock);
    uint32_t index = buddy_alloc(order, state, site ? site : 1);
    pthread_mutex_unlock(&lock);
    return index == NONE ? 0 : base + ((uint64_t)index << PAGE_SHIFT);
}

uint64_t vmk_pages_alloc(unsigned order, uint32_t site) { return pages_of(order, PAGES, site); }

uint64_t vmk_run_alloc(uint64_t bytes, uint32_t site) { return pages_of(order_for(bytes), RUN, site); }

static struct slab *slab_create(unsigned class)
{
    unsigned order = order_for((uint64_t)class_size[class] * 8);
    uint16_t count = (uint16_t)((PAGE_SIZE << order) / class_size[class]);
    struct slab *slab = calloc(1, sizeof *slab);
    uint32_t *site = calloc(count, sizeof *site);
    uint16_t *link = calloc(count, sizeof *link);
    uint32_t index = slab && site && link ? buddy_alloc(order, SLAB, 1) : NONE;
    if (index == NONE) {
        free(slab);
        free(site);
        free(link);
        return NULL;
    }
    for (uint32_t i = 0; i < 1u << order; i++) {
        pages[index + i].state = SLAB;
        pages[index + i].slab = slab;
    }
    for (uint16_t i = 0; i < count; i++)
        link[i] = (uint16_t)(i + 1);
    *slab = (struct slab){.base = base + ((uint64_t)index << PAGE_SHIFT), .class = (uint16_t)class,
                          .count = count, .site = site, .link = link};
    return slab;
}

static void partial_push(struct slab *slab)
{
    slab->prev = NULL;
    slab->next = partial[slab->class];
    if (slab->next)
        slab->next->prev = slab;
    partial[slab->class] = slab;
}

static void partial_remove(struct slab *slab)
{
    if (slab->prev)
        slab->prev->next = slab->next;
    else
        partial[slab->class] = slab->next;
    if (slab->next)
        slab->next->prev = slab->prev;
}

uint64_t vmk_alloc(uint64_t bytes, uint32_t site)
{
    if (bytes > class_size[CLASSES - 1])
        return vmk_run_alloc(bytes, site);
    if (!pages)
        return 0;
    unsigned class = class_of[(bytes + 7) / 8];
    pthread_mutex_lock(&lock);
    struct slab *slab = partial[class];
    if (!slab && (slab = slab_create(class)))
        partial_push(slab);
    uint64_t address = 0;
    if (slab) {
        uint16_t i = slab->free_head;
        slab->free_head = slab->link[i];
        slab->site[i] = site ? site : 1;
        if (++slab->used == slab->count)
            partial_remove(slab);
        objects++;
        object_bytes += class_size[class];
        address = slab->base + (uint64_t)i * class_size[class];
    }
    pthread_mutex_unlock(&lock);
    return address;
}

static int slab_free(struct slab *slab, uint64_t address)
{
    uint64_t offset = address - slab->base, i = offset / class_size[slab->class];
    if (offset % class_size[slab->class] || i >= slab->count || !slab->site[i])
        return -EINVAL;
    slab->site[i] = 0;
    slab->link[i] = slab->free_head;
    slab->free_head = (uint16_t)i;
    objects--;
    object_bytes -= class_size[slab->class];
    if (slab->used-- == slab->count)
        partial_push(slab);
    /* The last slab of a class is kept, so that a lone object does not make and unmake one each time. */
    if (!slab->used && (slab->prev || slab->next)) {
        partial_remove(slab);
        uint32_t index = (uint32_t)((slab->base - base) >> PAGE_SHIFT);
        for (uint32_t p = 0; p < 1u << pages[index].order; p++) {
            pages[index + p].state = BODY;
            pages[index + p].slab = NULL;
        }
        buddy_free(index);
        slab_destroy(slab);
    }
    return 0;
}

static struct page *page_at(uint64_t address)
{
    return pages && address >= base && address < base + size ? &pages[(address - base) >> PAGE_SHIFT] : NULL;
}

static int free_locked(uint64_t address)
{
    struct page *page = page_at(address);
    if (page && page->state == SLAB)
        return slab_free(page->slab, address);
    if (!page || (page->state != PAGES && page->state != RUN) || address % PAGE_SIZE)
        return -EINVAL;
    buddy_free((uint32_t)(page - pages));
    return 0;
}

static uint64_t start_of(uint64_t address)
{
    struct page *page = page_at(address);
    if (page && page->state == SLAB) {
        uint64_t step = class_size[page->slab->class];
        return page->slab->base + (address - page->slab->base) / step * step;
    }
    while (page && page > pages && page->state == BODY)
        page--;
    return page ? base + ((uint64_t)(page - pages) << PAGE_SHIFT) : 0;
}

int vmk_free_around(uint64_t address)
{
    pthread_mutex_lock(&lock);
    int error = free_locked(start_of(address));
    pthread_mutex_unlock(&lock);
    return error;
}

bool vmk_in_pages(uint64_t address)
{
    pthread_mutex_lock(&lock);
    struct page *page = page_at(start_of(address));
    bool found = page && page->state == PAGES;
    pthread_mutex_unlock(&lock);
    return found;
}

int vmk_free(uint64_t address)
{
    pthread_mutex_lock(&lock);
    int error = free_locked(address);
    pthread_mutex_unlock(&lock);
    return error;
}

uint64_t vmk_alloc_size(uint64_t address)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&lock);
    struct page *page = page_at(address);
    if (page && page->state == SLAB) {
        struct slab *slab = page->slab;
        uint64_t i = (address - slab->base) / class_size[slab->class];
        bytes = i < slab->count && slab->site[i] ? class_size[slab->class] : 0;
    } else if (page && (page->state == PAGES || page->state == RUN)) {
        bytes = PAGE_SIZE << page->order;
    }
    pthread_mutex_unlock(&lock);
    return bytes;
}

static uint64_t owned(uint32_t low, uint32_t high, struct vmk_allocation *out, uint64_t max)
{
    uint64_t found = 0;
    for (uint32_t p = 0; pages && p < page_count; p++) {
        struct page *page = &pages[p];
        uint64_t address = base + ((uint64_t)p << PAGE_SHIFT);
        if ((page->state == PAGES || page->state == RUN) && page->site >= low && page->site < high) {
            if (found++ < max)
                out[found - 1] = (struct vmk_allocation){address, PAGE_SIZE << page->order, page->site,
                                                         page->state == PAGES ? 1 : 2};
        } else if (page->state == SLAB && page->slab->base == address) {
            struct slab *slab = page->slab;
            for (uint16_t i = 0; i < slab->count; i++)
                if (slab->site[i] >= low && slab->site[i] < high && slab->site[i])
                    if (found++ < max)
                        out[found - 1] = (struct vmk_allocation){
                            slab->base + (uint64_t)i * class_size[slab->class], class_size[slab->class],
                            slab->site[i], 0};
        }
    }
    return found;
}

uint64_t vmk_allocations(uint32_t low, uint32_t high, struct vmk_allocation *out, uint64_t max)
{
    pthread_mutex_lock(&lock);
    uint64_t found = owned(low, high, out, max);
    pthread_mutex_unlock(&lock);
    return found;
}

uint64_t vmk_free_owned(uint32_t low, uint32_t high)
{
    struct vmk_allocation batch[64];
    uint64_t freed = 0, found;
    pthread_mutex_lock(&lock);
    while ((found = owned(low, high, batch, 64)))
        for (uint64_t i = 0; i < found && i < 64; i++, freed++)
            free_locked(batch[i].address);
    pthread_mutex_unlock(&lock);
    return freed;
}

void vmk_memory_stats(struct vmk_memory_stats *out)
{
    pthread_mutex_lock(&lock);
    *out = (struct vmk_memory_stats){size, page_count, pages_free, objects, object_bytes};
    pthread_mutex_unlock(&lock);
}
