/* The DMA API (Linux kernel/dma/mapping.c): a DMA address is an offset into machine memory; nothing is copied. */
#include <string.h>

#include "vmklinux/linux.h"

#define DEVICES 64
#define SG_CHAIN 1u /* include/linux/scatterlist.h: in page_link, the list goes on elsewhere */
#define DMA_MAPPING_ERROR UINT64_MAX /* include/linux/dma-mapping.h */

static struct { uint64_t device; int64_t open; } mappings[DEVICES];

/* False when there are more devices than can be counted: nothing goes uncounted. */
bool linux_dma_count(uint64_t device, int change)
{
    int free_slot = -1;
    for (int i = 0; i < DEVICES; i++) {
        if (mappings[i].device == device) {
            mappings[i].open += change;
            return true;
        }
        if (!mappings[i].device && free_slot < 0)
            free_slot = i;
    }
    if (free_slot < 0)
        return false;
    mappings[free_slot].device = device;
    mappings[free_slot].open = change;
    return true;
}

int64_t linux_dma_end(uint64_t device)
{
    for (int i = 0; i < DEVICES; i++)
        if (mappings[i].device == device) {
            mappings[i].device = 0;
            return mappings[i].open;
        }
    return 0;
}

static uint64_t dma_map_page_attrs(uint64_t device, uint64_t page, uint64_t offset)
{
    if (!linux_dma_count(device, 1))
        return DMA_MAPPING_ERROR;
    return (page - *(uint64_t *)SYMBOL(vmemmap_base)) / SIZE(page) * 4096 + offset;
}

static void dma_unmap_page_attrs(uint64_t device) { linux_dma_count(device, -1); }

void linux_sg_addresses(uint64_t sg, uint32_t count)
{
    for (uint64_t entry = sg; count--; entry += SIZE(scatterlist)) {
        uint64_t link = FIELD(entry, scatterlist, page_link, uint64_t);
        if (link & SG_CHAIN)
            entry = link & ~3ull;
        uint64_t page = FIELD(entry, scatterlist, page_link, uint64_t) & ~3ull;
        FIELD(entry, scatterlist, dma_address, uint64_t) =
            (page - *(uint64_t *)SYMBOL(vmemmap_base)) / SIZE(page) * 4096 + FIELD(entry, scatterlist, offset, uint32_t);
        FIELD(entry, scatterlist, dma_length, uint32_t) = FIELD(entry, scatterlist, length, uint32_t);
    }
}

static uint32_t dma_map_sg_attrs(uint64_t device, uint64_t sg, int count)
{
    if (!linux_dma_count(device, 1))
        return 0;
    linux_sg_addresses(sg, (uint32_t)count);
    return (uint32_t)count;
}

static void dma_unmap_sg_attrs(uint64_t device) { linux_dma_count(device, -1); }

static void *dma_alloc_attrs(uint64_t device, uint64_t size, uint64_t *handle)
{
    uint64_t address = vmk_run_alloc(size, SITE());
    if (!address || !linux_dma_count(device, 1)) {
        vmk_free(address);
        return NULL;
    }
    memset((void *)address, 0, size);
    *handle = address - *(uint64_t *)SYMBOL(page_offset_base);
    return (void *)address;
}

static void dma_free_attrs(uint64_t device, uint64_t size, uint64_t address)
{
    (void)size;
    if (vmk_free(address))
        vmk_stop(VMK_STOP_PANIC, SITE(), address);
    linux_dma_count(device, -1);
}

/* Device and CPU see the same coherent memory: the device is another process with the same memfd mapped. */
static uint64_t sync_nothing(void) { return 0; }

/* Nothing bounces, so a mapping may be as large as memory and needs no hand-over. */
static uint64_t any_size(void) { return UINT64_MAX; }

#define COHERENT "Memory is coherent: device and driver map the same memfd."

const struct linux_api dma_api[] = {
    API(dma_map_page_attrs, "done", "Gives the DMA address of a page; counted per device until unmapped.", NULL),
    API(dma_unmap_page_attrs, "done", "Ends a mapping.", NULL),
    API(dma_map_sg_attrs, "done", "Gives a scatter list its DMA addresses; nothing is merged.", NULL),
    API(dma_unmap_sg_attrs, "done", "Ends such a mapping.", NULL),
    API(dma_alloc_attrs, "done", "Allocates cleared memory that the device shares.", NULL),
    API(dma_free_attrs, "done", "Frees what dma_alloc_attrs gave.", NULL),
    API_AS("dma_sync_single_for_cpu", sync_nothing, "no-op", "Hands a buffer back to the driver.", COHERENT),
    API_AS("dma_sync_single_for_device", sync_nothing, "no-op", "Hands a buffer to the device.", COHERENT),
    API_AS("__dma_sync_single_for_cpu", sync_nothing, "no-op", "Hands a buffer back to the driver.", COHERENT),
    API_AS("__dma_sync_single_for_device", sync_nothing, "no-op", "Hands a buffer to the device.", COHERENT),
    API_AS("dma_max_mapping_size", any_size, "done", "The most that one mapping can cover: no limit.", NULL),
    API_AS("dma_opt_mapping_size", any_size, "done", "The most that one mapping should cover: no limit.", NULL),
    API_AS("dma_need_sync", sync_nothing, "no-op", "Whether buffers are handed over: never.", COHERENT),
    API_AS("__dma_need_sync", sync_nothing, "no-op", "Whether buffers are handed over: never.", COHERENT),
    API_END,
};
