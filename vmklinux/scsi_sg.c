/* Scatter lists of SCSI commands: how data becomes segments that the device takes, and their DMA (of Linux: block/blk-merge.c,
 * drivers/scsi/scsi_lib_dma.c). */
#include <errno.h>
#include <string.h>

#include "vmklinux/scsi_priv.h"

static uint64_t physical(uint64_t address) { return address - *(uint64_t *)SYMBOL(page_offset_base); }

static struct linux_sg_limits limits_of(struct linux_scsi_device *device)
{
    uint64_t queue = FIELD(device->sdev, scsi_device, request_queue, uint64_t);
    uint32_t table = FIELD(device->host->shost, Scsi_Host, sg_tablesize, uint16_t);
    uint32_t segments = FIELD(queue, request_queue, max_segments, uint16_t);
    return (struct linux_sg_limits){
        .boundary = FIELD(queue, request_queue, seg_boundary_mask, uint64_t),
        .virt_boundary = FIELD(queue, request_queue, virt_boundary_mask, uint64_t),
        .alignment = FIELD(queue, request_queue, dma_alignment, uint32_t),
        .size = FIELD(queue, request_queue, max_segment_size, uint32_t),
        .segments = segments < table || !table ? segments : table,
    };
}

static void put_segment(uint64_t entry, uint64_t at, uint32_t size)
{
    memset((void *)entry, 0, SIZE(scatterlist));
    FIELD(entry, scatterlist, page_link, uint64_t) = *(uint64_t *)SYMBOL(vmemmap_base) + at / PAGE * SIZE(page);
    FIELD(entry, scatterlist, offset, uint32_t) = at % PAGE;
    FIELD(entry, scatterlist, length, uint32_t) = size;
}

/* A segment is put into a scatter list, or into an array. */
struct sg_out {
    uint64_t sg;
    struct vmk_sg_elem *array;
};

static void put(const struct sg_out *out, uint32_t index, uint64_t start, uint64_t size)
{
    if (out->sg)
        put_segment(out->sg + index * SIZE(scatterlist), start, (uint32_t)size);
    if (out->array)
        out->array[index] = (struct vmk_sg_elem){start, size};
}

/* `aligned`: pieces that do not begin and end as the limits want it end the data; the block layer would copy them. */
static uint32_t cut(const struct linux_sg_limits *limits, const struct vmk_sg_elem *element, uint32_t elements, uint64_t skip,
                    uint32_t length, bool aligned, const struct sg_out *out, uint32_t *fits)
{
    const struct vmk_sg_elem *end = element + elements;
    uint64_t start = 0, size = 0; /* the segment that grows */
    uint32_t count = 0, left = length;
    for (; left && element < end; element++) {
        if (skip >= element->length) {
            skip -= element->length;
            continue;
        }
        uint64_t at = element->address + skip, part = element->length - skip < left ? element->length - skip : left;
        skip = 0;
        if (aligned && (at & limits->alignment || (part < left && part & limits->alignment)))
            break;
        while (part) {
            if (!count || at != start + size || size == limits->size || (start | limits->boundary) < at) {
                if (count == limits->segments || (count && ((start + size) | at) & limits->virt_boundary))
                    goto full;
                if (count)
                    put(out, count - 1, start, size);
                count++;
                start = at;
                size = 0;
            }
            uint64_t room = (start | limits->boundary) - at, more = limits->size - size; /* room: less one */
            more = more - 1 < room ? more : room + 1;
            more = more < part ? more : part;
            size += more;
            at += more;
            part -= more;
            left -= (uint32_t)more;
        }
    }
full:
    *fits = length - left;
    if (count)
        put(out, count - 1, start, size);
    return count;
}

uint32_t linux_sg_cut(const struct linux_sg_limits *limits, const struct vmk_sg_elem *pieces, uint32_t count, uint64_t offset,
                      uint32_t length, struct vmk_sg_elem *out, uint32_t *fits)
{
    struct sg_out to = {0, out};
    return cut(limits, pieces, count, offset, length, true, &to, fits);
}

/* The same for a command of a Linux driver's, to the scatter list at `sg`, unless that is 0. */
uint32_t scsi_fill_sg(struct linux_scsi_device *device, const struct linux_scsi_io *io, uint64_t sg, uint32_t *fits)
{
    struct linux_sg_limits limits = limits_of(device);
    struct vmk_sg_elem contiguous = {io->data ? physical(io->data) : 0, io->length};
    const struct vmk_sg_elem *pieces = io->data ? &contiguous : (const void *)io->pieces;
    struct sg_out to = {sg, NULL};
    uint32_t count = cut(&limits, pieces, io->data ? 1 : io->count, io->offset, io->length, !io->data, &to, fits);
    if (count && sg)
        FIELD(sg + (count - 1) * SIZE(scatterlist), scatterlist, page_link, uint64_t) |= SG_END;
    return count;
}

/* Where a command that reads or writes blocks begins, in blocks. */
/* ---- DMA of a command's data ---- */

static int scsi_dma_map(uint64_t cmnd)
{
    uint64_t sdb = (uint64_t)INNER(cmnd, scsi_cmnd, sdb), sg = FIELD(sdb, sg_table, sgl, uint64_t);
    uint32_t count = FIELD(sdb, sg_table, nents, uint32_t);
    struct linux_scsi_host *host;
    struct slot *slot = scsi_slot_at(cmnd, &host);
    if (!count)
        return 0;
    if (!slot || !linux_dma_count(FIELD(host->shost, Scsi_Host, dma_dev, uint64_t), 1))
        return -ENOMEM;
    slot->mapped = true;
    linux_sg_addresses(sg, count);
    return (int)count;
}

void scsi_unmap(struct linux_scsi_host *host, struct slot *slot)
{
    if (slot->mapped)
        linux_dma_count(FIELD(host->shost, Scsi_Host, dma_dev, uint64_t), -1);
    slot->mapped = false;
}

static void scsi_dma_unmap(uint64_t cmnd)
{
    struct linux_scsi_host *host;
    struct slot *slot = scsi_slot_at(cmnd, &host);
    if (slot)
        scsi_unmap(host, slot);
}

/* All of machine memory is mapped: what is left of kmap_atomic is finding the place. */
static uint64_t scsi_kmap_atomic_sg(uint64_t sg, int count, uint64_t *offset, uint64_t *length)
{
    for (; count-- > 0; sg += SIZE(scatterlist)) {
        uint32_t size = FIELD(sg, scatterlist, length, uint32_t);
        if (*offset >= size) {
            *offset -= size;
            continue;
        }
        uint64_t at = linux_page_address(FIELD(sg, scatterlist, page_link, uint64_t) & ~3ull) +
                      FIELD(sg, scatterlist, offset, uint32_t) + *offset;
        *offset = at % PAGE;
        *length = *length < PAGE - *offset ? *length : PAGE - *offset;
        return at - *offset;
    }
    return 0;
}

static void scsi_kunmap_atomic_sg(void) {}

const struct linux_api scsi_sg_api[] = {
    API(scsi_dma_map, "done", "Gives a command's scatter list its DMA addresses.", NULL),
    API(scsi_dma_unmap, "done", "Ends that mapping.", NULL),
    API(scsi_kmap_atomic_sg, "done", "Finds the page that a byte of a scatter list lies in.", NULL),
    API(scsi_kunmap_atomic_sg, "no-op", "Ends that.", "Machine memory stays mapped."),
    API_END,
};
