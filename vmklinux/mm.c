/* Memory for kernel code: slab, pages, page fragments, vmalloc (Linux mm/slab_common.c, page_alloc.c, vmalloc.c). */
#include <string.h>

#include "vmklinux/linux.h"

#define GFP_ZERO 0x100u  /* include/linux/gfp_types.h: ___GFP_ZERO */
#define GFP_COMP 0x40000u /* ___GFP_COMP */
#define PAGE_SIZE 4096ull

static void *zeroed(uint64_t address, uint64_t size, uint32_t gfp)
{
    if (address && gfp & GFP_ZERO)
        memset((void *)address, 0, size);
    return (void *)address;
}

static void *k_alloc(uint64_t size, uint32_t gfp, uint32_t site) { return zeroed(vmk_alloc(size, site), size, gfp); }

static void release(uint64_t address, uint32_t site)
{
    /* ZERO_SIZE_PTR is (void *)16; both it and NULL may be freed. */
    if (address > 16 && vmk_free(address))
        vmk_stop(VMK_STOP_PANIC, site, address);
}

static void *kmalloc_sized(uint64_t size, uint32_t gfp) { return size ? k_alloc(size, gfp, SITE()) : (void *)16; }
static void *kmalloc_from_cache(uint64_t cache, uint32_t gfp, uint64_t size)
{
    (void)cache;
    return k_alloc(size, gfp, SITE());
}
/* With a cache and a node, or with a bucket of 6.12's: caches and buckets only choose slabs, and there is one node. */
static void *kmalloc_from_cache_on(uint64_t cache, uint32_t gfp, int node, uint64_t size)
{
    (void)cache;
    (void)node;
    return k_alloc(size, gfp, SITE());
}
static void *kmalloc_from_bucket(uint64_t size, uint64_t bucket, uint32_t gfp)
{
    (void)bucket;
    return size ? k_alloc(size, gfp, SITE()) : (void *)16;
}
static void kfree(uint64_t address) { release(address, SITE()); }
static uint64_t ksize(uint64_t address) { return address > 16 ? vmk_alloc_size(address) : 0; }

static void *krealloc(uint64_t old, uint64_t size, uint32_t gfp)
{
    uint32_t site = SITE();
    uint64_t have = ksize(old);
    if (!size) {
        release(old, site);
        return (void *)16;
    }
    if (have >= size)
        return (void *)old;
    void *grown = k_alloc(size, gfp, site);
    if (grown && have) {
        memcpy(grown, (void *)old, have);
        release(old, site);
    }
    return grown;
}

static void *vmalloc(uint64_t size) { return (void *)vmk_run_alloc(size, SITE()); }
static void *vzalloc(uint64_t size) { return zeroed(vmk_run_alloc(size, SITE()), size, GFP_ZERO); }
static void *vcalloc(uint64_t count, uint64_t size)
{
    uint64_t bytes;
    return __builtin_mul_overflow(count, size, &bytes) ? NULL : zeroed(vmk_run_alloc(bytes, SITE()), bytes, GFP_ZERO);
}
static void *vmalloc_array(uint64_t count, uint64_t size)
{
    uint64_t bytes;
    return __builtin_mul_overflow(count, size, &bytes) ? NULL : (void *)vmk_run_alloc(bytes, SITE());
}
static void *kvmalloc_sized(uint64_t size, uint32_t gfp) { return k_alloc(size, gfp, SITE()); }
/* Objects are as large as they were asked to be, up to eight bytes: nothing is to be gained by asking for more. */
static uint64_t kmalloc_size_roundup(uint64_t size) { return size; }
/* vmalloc's memory is machine memory like any other: its page is found by arithmetic. */
static uint64_t vmalloc_to_page(uint64_t address)
{
    uint64_t physical = address - *(uint64_t *)SYMBOL(page_offset_base);
    return *(uint64_t *)SYMBOL(vmemmap_base) + physical / PAGE_SIZE * SIZE(page);
}
/* Whether there is memory at an address, and a struct page for it. */
static bool __virt_addr_valid(uint64_t address)
{
    struct vmk_memory_stats stats;
    vmk_memory_stats(&stats);
    return address - *(uint64_t *)SYMBOL(page_offset_base) < stats.size;
}
static uint64_t is_vmalloc_addr(uint64_t address)
{
    (void)address; /* vmalloc memory is contiguous machine memory here, so no address needs the other path */
    return 0;
}

/* ---- caches ---- */

static uint64_t cache_new(uint32_t size, uint32_t align, uint64_t ctor, uint32_t site)
{
    uint64_t cache = vmk_alloc(SIZE(kmem_cache), site);
    if (!cache)
        return 0;
    memset((void *)cache, 0, SIZE(kmem_cache));
    /* Slots are aligned to their size only when that is a power of two: round up to the alignment asked for. */
    FIELD(cache, kmem_cache, size, uint32_t) = align > 8 ? (size + align - 1) & ~(align - 1) : size;
    FIELD(cache, kmem_cache, ctor, uint64_t) = ctor;
    return cache;
}

static uint64_t kmem_cache_create(const char *name, uint32_t size, uint32_t align, uint32_t flags, uint64_t ctor)
{
    (void)name;
    (void)flags;
    return cache_new(size, align, ctor, SITE());
}

/* Since 6.12; `args` lie on the caller's stack, where its inline wrapper put them. */
static uint64_t __kmem_cache_create_args(const char *name, uint32_t size, uint64_t args, uint32_t flags)
{
    (void)name;
    (void)flags;
    return cache_new(size, FIELD(args, kmem_cache_args, align, uint32_t), FIELD(args, kmem_cache_args, ctor, uint64_t), SITE());
}

/* The cache of xa_node that lib/radix-tree.c makes for itself when Linux boots; the image's containers ask with it, a null.
 * Nodes are the kernel's, not the driver's whose call made them: idr_preload keeps some for whoever comes next. */
static void *radix_tree_node_alloc(uint32_t gfp)
{
    void *node = k_alloc(SIZE(xa_node), gfp | GFP_ZERO, 0);
    if (node)
        list_init((struct list_head *)INNER(node, xa_node, private_list));
    return node;
}

static void *kmem_cache_alloc(uint64_t cache, uint32_t gfp)
{
    if (!cache)
        return radix_tree_node_alloc(gfp);
    uint32_t size = FIELD(cache, kmem_cache, size, uint32_t);
    uint64_t ctor = FIELD(cache, kmem_cache, ctor, uint64_t);
    void *object = k_alloc(size, gfp, SITE());
    if (object && ctor)
        ((void (*)(void *))ctor)(object);
    return object;
}

static void *kmem_cache_alloc_lru(uint64_t cache, uint64_t lru, uint32_t gfp)
{
    (void)lru;
    return kmem_cache_alloc(cache, gfp);
}

static void kmem_cache_free(uint64_t cache, uint64_t object)
{
    (void)cache;
    release(object, SITE());
}

static void kmem_cache_destroy(uint64_t cache) { release(cache, SITE()); }

/* ---- pages ---- */

static uint64_t page_of(uint64_t address)
{
    return *(uint64_t *)SYMBOL(vmemmap_base) +
           (address - *(uint64_t *)SYMBOL(page_offset_base)) / PAGE_SIZE * SIZE(page);
}

uint64_t linux_page_address(uint64_t page)
{
    return *(uint64_t *)SYMBOL(page_offset_base) + (page - *(uint64_t *)SYMBOL(vmemmap_base)) / SIZE(page) * PAGE_SIZE;
}

static uint64_t pages_new(uint32_t gfp, uint32_t order, uint32_t site)
{
    uint64_t address = vmk_pages_alloc(order, site);
    if (!address)
        return 0;
    uint64_t page = page_of(address);
    zeroed(address, PAGE_SIZE << order, gfp);
    memset((void *)page, 0, (uint64_t)SIZE(page) << order);
    FIELD(page, page, refcount, int32_t) = 1;
    if (order && gfp & GFP_COMP) {
        FIELD(page, page, flags, uint64_t) |= 1ull << ENUM(PG_head);
        for (uint64_t i = 1; i < 1ull << order; i++)
            FIELD(page + i * SIZE(page), page, compound_head, uint64_t) = page | 1;
    }
    return page;
}

uint64_t linux_pages_new(uint32_t order, uint32_t site) { return pages_new(GFP_COMP, order, site); }

static void page_free(uint64_t page, uint32_t site)
{
    uint64_t address = linux_page_address(page);
    memset((void *)page, 0, vmk_alloc_size(address) / PAGE_SIZE * SIZE(page));
    release(address, site);
}

void linux_page_put(uint64_t page)
{
    uint64_t head = FIELD(page, page, compound_head, uint64_t);
    page = head & 1 ? head - 1 : page;
    if (linux_page_pool_keeps(page))
        return;
    if (__sync_sub_and_fetch(&FIELD(page, page, refcount, int32_t), 1) == 0)
        page_free(page, vmk_owner());
}

static uint64_t alloc_pages(uint32_t gfp, uint32_t order) { return pages_new(gfp, order, SITE()); }
static uint64_t alloc_pages_on(uint32_t gfp, uint32_t order, int node, uint64_t mask)
{
    (void)node;
    (void)mask;
    return pages_new(gfp, order, SITE());
}
static uint64_t __get_free_pages(uint32_t gfp, uint32_t order)
{
    uint64_t page = pages_new(gfp, order, SITE());
    return page ? linux_page_address(page) : 0;
}
static uint64_t get_zeroed_page(uint32_t gfp)
{
    uint64_t page = pages_new(gfp | GFP_ZERO, 0, SITE());
    return page ? linux_page_address(page) : 0;
}
static void __free_pages(uint64_t page, uint32_t order)
{
    (void)order;
    if (__sync_sub_and_fetch(&FIELD(page, page, refcount, int32_t), 1) == 0)
        page_free(page, SITE());
}
static void free_pages(uint64_t address, uint32_t order)
{
    (void)order;
    if (address)
        page_free(page_of(address), SITE());
}
/* The inlined put_page has counted down to zero. */
static void __folio_put(uint64_t folio) { page_free(folio, SITE()); }

/* ---- fragments: each of ours is an object of its own, so that each has an owner and is really freed; others are pieces
 * of pages that drivers cut up themselves (skb_page_frag_refill), each of which holds a reference ---- */

static void *__netdev_alloc_frag_align(uint32_t size, uint32_t mask)
{
    /* mask is -alignment; slots of a multiple of a power of two are aligned to it. */
    return (void *)vmk_alloc((size - mask - 1) & mask, SITE());
}
/* Linux finds a fragment by its page: drivers hand in an address somewhere inside. */
void linux_frag_free(uint64_t address, uint32_t site)
{
    if (vmk_in_pages(address))
        linux_page_put(page_of(address));
    else if (vmk_free_around(address))
        vmk_stop(VMK_STOP_PANIC, site, address);
}
static void page_frag_free(uint64_t address) { linux_frag_free(address, SITE()); }

/* Drops what a driver still holds of a page that it handed out in pieces. */
static void __page_frag_cache_drain(uint64_t page, uint32_t count)
{
    if (__sync_sub_and_fetch(&FIELD(page, page, refcount, int32_t), (int32_t)count) == 0)
        page_free(page, SITE());
}

/* ---- exact runs ---- */

static void *alloc_pages_exact(uint64_t size, uint32_t gfp) { return zeroed(vmk_run_alloc(size, SITE()), size, gfp); }
static void free_pages_exact(uint64_t address) { release(address, SITE()); }

/* ---- per-CPU: an object in machine memory, told as its distance from the first CPU's area; those of the other CPUs lie
 * behind it as their areas lie behind that one, outside of machine memory ---- */

static unsigned cpus = 1;
static uint64_t cpu_stride;

void linux_cpus(unsigned count, uint64_t stride)
{
    cpus = count;
    cpu_stride = stride;
}

static uint64_t __alloc_percpu(uint64_t size, uint64_t align)
{
    uint64_t address = (uint64_t)k_alloc((size + align - 1) & ~(align - 1), GFP_ZERO, SITE());
    for (unsigned cpu = 1; address && cpu < cpus; cpu++)
        memset((void *)(address + cpu * cpu_stride), 0, size);
    return address ? address - vmk_cpu.gs_base : 0;
}

static void free_percpu(uint64_t place)
{
    if (place)
        release(place + vmk_cpu.gs_base, SITE());
}

#define OWN_FRAGMENT "A fragment is an object of its own and is not reached through its page's reference count."

const struct linux_api mm_api[] = {
    API_AS("__kmalloc", kmalloc_sized, "done", "Allocates memory for the calling module.", NULL),
    API_AS("__kmalloc_noprof", kmalloc_sized, "done", "Allocates memory for the calling module.", NULL),
    API_AS("__kmalloc_node", kmalloc_sized, "done", "Allocates memory; there is one node.", NULL),
    API_AS("kmalloc_trace", kmalloc_from_cache, "done", "Allocates an object of a fixed size.", NULL),
    API_AS("__kmalloc_cache_noprof", kmalloc_from_cache, "done", "Allocates an object of a fixed size.", NULL),
    API_AS("kmalloc_large", kmalloc_sized, "done", "Allocates more than slabs hold.", NULL),
    API_AS("__kmalloc_large_noprof", kmalloc_sized, "done", "Allocates more than slabs hold.", NULL),
    API_AS("kmalloc_large_node", kmalloc_sized, "done", "Allocates more than slabs hold; there is one node.", NULL),
    API_AS("__kmalloc_large_node_noprof", kmalloc_sized, "done", "Allocates more than slabs hold; there is one node.", NULL),
    API_AS("__kmalloc_node_track_caller", kmalloc_sized, "done", "Allocates for the caller's caller.",
           "The owner is the module that runs, which is the same one."),
    API_AS("__kmalloc_node_track_caller_noprof", kmalloc_from_bucket, "done", "Allocates for the caller's caller.",
           "The owner is the module that runs, which is the same one."),
    API_AS("__kmalloc_node_noprof", kmalloc_from_bucket, "done", "Allocates memory; there is one node.", NULL),
    API_AS("kmalloc_node_trace", kmalloc_from_cache_on, "done", "Allocates an object of a fixed size.", NULL),
    API_AS("__kmalloc_cache_node_noprof", kmalloc_from_cache_on, "done", "Allocates an object of a fixed size.", NULL),
    API(kmalloc_size_roundup, "done", "The size that an allocation of a size really has: the same.", NULL),
    API(kfree, "done", "Frees an object; a double or stray free stops the driver.", NULL),
    API_AS("__ksize", ksize, "done", "The usable size of an object; the image's memory pools ask.", NULL),
    API(ksize, "done", "The usable size of an object.", NULL),
    API(krealloc, "done", "Grows an object.", NULL),
    API_AS("krealloc_noprof", krealloc, "done", "Grows an object.", NULL),
    API(vmalloc, "done", "Allocates a run of pages.", "The run is contiguous in machine memory too."),
    API_AS("vmalloc_noprof", vmalloc, "done", "Allocates a run of pages.", "Contiguous in machine memory too."),
    API(vzalloc, "done", "Allocates a cleared run of pages.", "Contiguous in machine memory too."),
    API_AS("vzalloc_noprof", vzalloc, "done", "Allocates a cleared run of pages.", "Contiguous in machine memory too."),
    API_AS("vmalloc_node", vmalloc, "done", "Allocates a run of pages; there is one node.", NULL),
    API_AS("vmalloc_node_noprof", vmalloc, "done", "Allocates a run of pages; there is one node.", NULL),
    API_AS("vzalloc_node", vzalloc, "done", "Allocates a cleared run of pages; there is one node.", NULL),
    API_AS("vzalloc_node_noprof", vzalloc, "done", "Allocates a cleared run of pages; there is one node.", NULL),
    API(vmalloc_array, "done", "Allocates a run of pages for an array.", "NULL when the size overflows."),
    API_AS("vmalloc_array_noprof", vmalloc_array, "done", "Allocates a run of pages for an array.",
           "NULL when the size overflows."),
    API(vcalloc, "done", "Allocates a cleared run of pages for an array.", "NULL when the size overflows."),
    API_AS("vcalloc_noprof", vcalloc, "done", "Allocates a cleared run of pages for an array.",
           "NULL when the size overflows."),
    API_AS("vfree", kfree, "done", "Frees a run of pages.", NULL),
    API_AS("kvmalloc_node", kvmalloc_sized, "done", "Allocates from slabs or pages, whichever fits.", NULL),
    API_AS("__kvmalloc_node_noprof", kmalloc_from_bucket, "done", "Allocates from slabs or pages, whichever fits.", NULL),
    API_AS("kvfree", kfree, "done", "Frees what kvmalloc gave.", NULL),
    API(vmalloc_to_page, "done", "The page at an address that vmalloc gave.", NULL),
    API(__virt_addr_valid, "done", "Whether an address lies in machine memory.", NULL),
    API(is_vmalloc_addr, "done", "Never: all memory here can be reached by DMA as it is.", NULL),
    API(kmem_cache_create, "partial", "Makes a cache of objects of one size.",
        "Caches share slabs by size; SLAB_* flags are not looked at."),
    API(__kmem_cache_create_args, "partial", "Makes a cache of objects of one size.",
        "Caches share slabs by size; SLAB_* flags and regions for user space are not looked at."),
    API(kmem_cache_destroy, "done", "Frees a cache; objects still out are reported as leaks.", NULL),
    API(kmem_cache_alloc, "done", "Allocates an object of a cache.", NULL),
    API_AS("kmem_cache_alloc_noprof", kmem_cache_alloc, "done", "Allocates an object of a cache.", NULL),
    API_AS("kmem_cache_alloc_node", kmem_cache_alloc, "done", "Allocates an object of a cache; there is one node.", NULL),
    API_AS("kmem_cache_alloc_node_noprof", kmem_cache_alloc, "done", "Allocates an object of a cache.", NULL),
    API_AS("kmem_cache_alloc_lru", kmem_cache_alloc_lru, "done", "Allocates an object of a cache.", NULL),
    API_AS("kmem_cache_alloc_lru_noprof", kmem_cache_alloc_lru, "done", "Allocates an object of a cache.", NULL),
    API(kmem_cache_free, "done", "Frees an object of a cache.", NULL),
    API(alloc_pages, "done", "Allocates 2^order pages.", NULL),
    API_AS("alloc_pages_noprof", alloc_pages, "done", "Allocates 2^order pages.", NULL),
    API_AS("__alloc_pages", alloc_pages_on, "done", "Allocates 2^order pages; there is one node.", NULL),
    API_AS("__alloc_pages_noprof", alloc_pages_on, "done", "Allocates 2^order pages; there is one node.", NULL),
    API(__get_free_pages, "done", "Allocates 2^order pages, by address.", NULL),
    API_AS("get_free_pages_noprof", __get_free_pages, "done", "Allocates 2^order pages, by address.", NULL),
    API(get_zeroed_page, "done", "Allocates a cleared page, by address.", NULL),
    API_AS("get_zeroed_page_noprof", get_zeroed_page, "done", "Allocates a cleared page, by address.", NULL),
    API(__free_pages, "done", "Drops a reference to pages and frees them with the last.", NULL),
    API(free_pages, "done", "Frees pages by address.", NULL),
    API(__folio_put, "done", "Frees pages whose last reference has gone.", NULL),
    API_AS("__napi_alloc_frag_align", __netdev_alloc_frag_align, "done", "Allocates a receive buffer.", OWN_FRAGMENT),
    API(__netdev_alloc_frag_align, "done", "Allocates a receive buffer.", OWN_FRAGMENT),
    API(__alloc_percpu, "done", "Allocates a cleared per-CPU variable.", NULL),
    API_AS("__alloc_percpu_gfp", __alloc_percpu, "done", "Allocates a cleared per-CPU variable.", NULL),
    API_AS("pcpu_alloc_noprof", __alloc_percpu, "done", "Allocates a cleared per-CPU variable.", NULL),
    API(free_percpu, "done", "Frees a per-CPU variable.", NULL),
    API(__page_frag_cache_drain, "done", "Drops references to a page and frees it with the last.", NULL),
    API(alloc_pages_exact, "done", "Allocates pages by their size in bytes.", NULL),
    API_AS("alloc_pages_exact_noprof", alloc_pages_exact, "done", "Allocates pages by their size in bytes.", NULL),
    API(free_pages_exact, "done", "Frees what alloc_pages_exact gave.", NULL),
    API(page_frag_free, "done", "Frees a receive buffer.", NULL),
    API_END,
};
