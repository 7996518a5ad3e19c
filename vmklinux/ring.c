/* Rings of descriptors of network devices, after a description of their fields. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmklinux/inet.h"
#include "vmklinux/linux.h"
#include "vmklinux/ring.h"

#define PIECES 64u /* buffers that a frame may lie in */
#define MORE UINT32_MAX /* of a slot: the frame goes on in the next one */

typedef struct native_ring_layout layout_t;

static char *descriptor(const layout_t *layout, uint64_t slot)
{
    return layout->table.memory + slot % layout->table.count * layout->table.stride;
}

static uint64_t buffer_at(const layout_t *layout, uint64_t slot)
{
    return slot % layout->table.count * layout->buffer_stride;
}

static void put(char *at, const struct native_field *field, uint64_t value)
{
    if (field->size)
        native_set(at, field, value);
}

static bool holds(const char *at, const struct native_test *test)
{
    return native_get(at, &test->field) == test->value;
}

/* What the device wrote before it said so is fetched after it. */
static bool is_done(const layout_t *layout, uint64_t slot)
{
    bool done = holds(descriptor(layout, slot), &layout->done);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return done;
}

/* A store of a whole word that nothing before it may follow: the device sees it when it sees the rest. */
static void publish(char *at, const struct native_field *field, uint64_t value)
{
    char word[8];
    memcpy(word, at + field->offset, field->size);
    struct native_field here = *field;
    here.offset = 0;
    native_set(word, &here, value);
    char *to = at + field->offset;
    uint8_t u8; uint16_t u16; uint32_t u32; uint64_t u64;
    switch (field->size) {
    case 1: memcpy(&u8, word, 1); __atomic_store_n((uint8_t *)to, u8, __ATOMIC_RELEASE); return;
    case 2: memcpy(&u16, word, 2); __atomic_store_n((uint16_t *)to, u16, __ATOMIC_RELEASE); return;
    case 4: memcpy(&u32, word, 4); __atomic_store_n((uint32_t *)to, u32, __ATOMIC_RELEASE); return;
    default: memcpy(&u64, word, 8); __atomic_store_n((uint64_t *)to, u64, __ATOMIC_RELEASE);
    }
}

/* Everything of a descriptor but what frames differ in. */
static char *begin(const layout_t *layout, uint64_t slot, const char *blank)
{
    char *at = descriptor(layout, slot);
    memcpy(at, blank, layout->size);
    put(at, &layout->address, layout->buffers_dma + buffer_at(layout, slot));
    put(at, &layout->link, layout->table_dma + (slot + 1) % layout->table.count * layout->table.stride);
    return at;
}

static uint64_t told(const layout_t *layout, uint64_t length) { return layout->negated ? 0 - length : length; }

/* ---- transmission ---- */

struct native_tx {
    layout_t layout;
    uint64_t head, published, tail;
    uint64_t stopped; /* the slot at which the device stops, once something was published */
    uint32_t content[]; /* of a slot: the frame's bytes when it ends there, 0 for what is no frame, or MORE */
};

struct native_tx *native_tx_create(const layout_t *layout)
{
    struct native_tx *ring = calloc(1, sizeof *ring + sizeof ring->content[0] * layout->table.count);
    if (ring)
        ring->layout = *layout;
    return ring;
}

void native_tx_free(struct native_tx *ring) { free(ring); }

static uint32_t *content(struct native_tx *ring, uint64_t slot)
{
    return &ring->content[slot % ring->layout.table.count];
}

static uint32_t room(const struct native_tx *ring)
{
    return ring->layout.table.count - ring->layout.spare - (uint32_t)(ring->tail - ring->head);
}

uint32_t native_tx_reset(struct native_tx *ring)
{
    uint32_t frames = 0;
    for (uint64_t slot = ring->head; slot != ring->tail; slot++)
        frames += *content(ring, slot) && *content(ring, slot) != MORE;
    for (uint64_t slot = 0; slot < ring->layout.table.count; slot++)
        begin(&ring->layout, slot, ring->layout.blank);
    ring->head = ring->published = ring->tail = 0;
    return frames;
}

void native_tx_state(const struct native_tx *ring, struct native_tx_state *out)
{
    *out = (struct native_tx_state){ring->head, ring->published, ring->tail, room(ring)};
}

int64_t native_tx_claim(struct native_tx *ring, bool alone)
{
    if (!room(ring))
        return -ENOSPC;
    begin(&ring->layout, ring->tail, ring->layout.blank);
    *content(ring, ring->tail) = alone ? 0 : MORE;
    return (int64_t)ring->tail++;
}

static bool fill(struct native_tx *ring, const char *data, uint32_t length, const char *blank, uint32_t vlan)
{
    const layout_t *layout = &ring->layout;
    if (((uint64_t)length + layout->buffer_size - 1) / layout->buffer_size > room(ring))
        return false;
    for (uint32_t offset = 0, size; offset < length; offset += size) {
        size = length - offset < layout->buffer_size ? length - offset : layout->buffer_size;
        bool last = offset + size == length;
        char *at = begin(layout, ring->tail, blank);
        uint32_t sent = length < layout->least ? layout->least : size;
        memcpy(layout->buffers + buffer_at(layout, ring->tail), data + offset, size);
        memset(layout->buffers + buffer_at(layout, ring->tail) + size, 0, sent - size);
        native_set(at, &layout->length, told(layout, sent));
        if (vlan) {
            put(at, &layout->tagged, 1);
            put(at, &layout->tag, vlan & 0xffff);
        }
        if (!offset)
            put(at, &layout->first, 1);
        if (last)
            put(at, &layout->last, 1);
        *content(ring, ring->tail++) = last ? length : MORE;
    }
    return true;
}

int native_tx_put(struct native_tx *ring, const char *data, uint32_t length, const char *blank)
{
    return fill(ring, data, length, blank, 0) ? 0 : -ENOSPC;
}

void native_tx_publish(struct native_tx *ring)
{
    const layout_t *layout = &ring->layout;
    if (ring->published == ring->tail)
        return;
    if (layout->stop.size)
        native_set(descriptor(layout, ring->tail - 1), &layout->stop, 1);
    /* From the last to the first: a device that polls finds the first only when it may go on to the last. */
    for (uint64_t slot = ring->tail; layout->own.field.size && slot-- > ring->published;)
        publish(descriptor(layout, slot), &layout->own.field, layout->own.value);
    if (layout->stop.size && ring->published)
        publish(descriptor(layout, ring->stopped), &layout->stop, 0);
    ring->stopped = ring->tail - 1;
    ring->published = ring->tail;
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* a doorbell may follow */
}

uint32_t native_tx_post(struct native_tx *ring, struct native_batch *batch)
{
    uint32_t before = batch->taken;
    for (; batch->taken < batch->count; batch->taken++) {
        const struct linux_frame *frame = &batch->frames[batch->taken];
        if (frame->flags & LINUX_FRAME_NEEDS_CSUM || frame->gso_size || (frame->vlan && !ring->layout.tag.size))
            break;
        if (!fill(ring, batch->data + batch->offset, frame->length, ring->layout.blank, frame->vlan))
            break;
        batch->offset += frame->length;
    }
    native_tx_publish(ring);
    return batch->taken - before;
}

void native_tx_reclaim(struct native_tx *ring, struct native_tx_done *out)
{
    *out = (struct native_tx_done){0, 0};
    for (uint64_t end = ring->head; end != ring->published; end++) {
        uint32_t length = *content(ring, end);
        if (length == MORE)
            continue;
        if (!is_done(&ring->layout, end))
            return;
        out->frames += length != 0;
        out->bytes += length;
        ring->head = end + 1;
    }
}

/* ---- reception ---- */

struct native_rx {
    struct native_rx_layout layout;
    uint64_t head, tail;
    uint64_t stopped; /* the slot at which the device stops */
    uint64_t frames, errors, dropped;
};

struct native_rx *native_rx_create(const struct native_rx_layout *layout)
{
    struct native_rx *ring = calloc(1, sizeof *ring);
    if (ring)
        ring->layout = *layout;
    return ring;
}

void native_rx_free(struct native_rx *ring) { free(ring); }

static void arm(struct native_rx *ring, bool stop)
{
    const layout_t *layout = &ring->layout.ring;
    char *at = begin(layout, ring->tail++, layout->blank);
    put(at, &ring->layout.capacity, told(layout, layout->buffer_size));
    if (stop)
        put(at, &layout->stop, 1);
    if (layout->own.field.size)
        publish(at, &layout->own.field, layout->own.value);
}

void native_rx_reset(struct native_rx *ring)
{
    const layout_t *layout = &ring->layout.ring;
    uint64_t slots = layout->table.count - layout->spare;
    ring->head = ring->tail = 0;
    while (ring->tail < slots)
        arm(ring, ring->tail + 1 == slots);
    ring->stopped = slots - 1;
    for (uint64_t slot = slots; slot < layout->table.count; slot++)
        begin(layout, slot, layout->blank);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void native_rx_state(const struct native_rx *ring, struct native_rx_state *out)
{
    *out = (struct native_rx_state){ring->head, ring->tail, ring->frames, ring->errors, ring->dropped};
}

/* Where the frame that begins at the slot ends: one behind its last; 0 when the device has not done with it. */
static uint64_t frame_end(const struct native_rx *ring, uint64_t slot)
{
    const layout_t *layout = &ring->layout.ring;
    if (slot == ring->tail)
        return 0;
    for (; slot != ring->tail; slot++) {
        if (!is_done(layout, slot))
            return 0;
        if (!layout->last.size || native_get(descriptor(layout, slot), &layout->last))
            return slot + 1;
    }
    return ring->tail; /* it fills the ring and has no end: the device would wait for ever */
}

static bool any_bad(const struct native_rx_layout *layout, const char *at)
{
    for (unsigned i = 0; i < layout->bad_count; i++)
        if (holds(at, &layout->bad[i]))
            return true;
    return false;
}

static bool all_good(const struct native_rx_layout *layout, const char *at)
{
    for (unsigned i = 0; i < layout->good_count; i++)
        if (!holds(at, &layout->good[i]))
            return false;
    return layout->good_count != 0;
}

/* The frame in [head, end). False when it is none. */
static bool take(struct native_rx *ring, struct native_port *port, uint64_t end)
{
    const struct native_rx_layout *layout = &ring->layout;
    const layout_t *common = &layout->ring;
    const char *last = descriptor(common, end - 1);
    struct native_piece pieces[PIECES];
    uint64_t slots = end - ring->head, sizes[PIECES], total = 0;
    unsigned count = 0;
    if (slots > PIECES || any_bad(layout, last) || (common->last.size && !native_get(last, &common->last)) ||
        (common->first.size && !native_get(descriptor(common, ring->head), &common->first)))
        return false;
    for (uint64_t i = 0; i < slots; i++)
        sizes[i] = native_get(descriptor(common, ring->head + i), &common->length);
    /* Each length was fetched once: what a device writes there later does not undo what is found out about it here. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    for (uint64_t i = 0; i < slots; i++) {
        total = layout->whole ? sizes[i] : total + sizes[i];
        if (layout->whole)
            sizes[i] = common->buffer_size;
        else if (sizes[i] > common->buffer_size)
            return false;
    }
    if (total < layout->trailer + ETH_HLEN || total > slots * common->buffer_size)
        return false;
    for (uint64_t left = total - layout->trailer; left; left -= pieces[count++].length)
        pieces[count] = (struct native_piece){common->buffers + buffer_at(common, ring->head + count),
                                              (uint32_t)(sizes[count] < left ? sizes[count] : left)};
    bool tagged = common->tagged.size && native_get(last, &common->tagged);
    uint32_t vlan = tagged ? 0x10000u | (uint32_t)native_get(last, &common->tag) : 0;
    ring->frames++;
    if (!native_port_put(port, pieces, count, all_good(layout, last) ? LINUX_FRAME_CSUM_GOOD : 0, vlan))
        ring->dropped++;
    return true;
}

uint32_t native_rx_ready(const struct native_rx *ring, uint32_t most)
{
    uint32_t ready = 0;
    for (uint64_t end = ring->head; ready < most && (end = frame_end(ring, end)); ready++)
        ;
    return ready;
}

uint32_t native_rx_harvest(struct native_rx *ring, struct native_port *port, uint32_t budget)
{
    const layout_t *layout = &ring->layout.ring;
    uint64_t tail = ring->tail, end;
    uint32_t done = 0;
    for (; done < budget && (end = frame_end(ring, ring->head)); done++) {
        if (!take(ring, port, end))
            ring->errors++;
        for (; ring->head != end; ring->head++)
            arm(ring, false);
    }
    if (ring->tail != tail && layout->stop.size) {
        char *stop = descriptor(layout, ring->tail - 1), *before = descriptor(layout, ring->stopped);
        publish(stop, &layout->stop, 1);
        if (before != stop) /* it is where it was when the whole ring was taken at once */
            publish(before, &layout->stop, 0);
        ring->stopped = ring->tail - 1;
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST); /* a doorbell may follow */
    return done;
}
