/* Rings of descriptors of network devices, driven by a description of their fields: native drivers have no C of their own. */
#ifndef VMKLINUX_RING_H
#define VMKLINUX_RING_H
#include "vmklinux/descriptor.h"
#include "vmklinux/port.h"

/* ---- CDEF ---- */

enum { NATIVE_RING_TESTS = 8, NATIVE_RING_BLANK = 64 };

/* A field that has, or is to have, a value. */
struct native_test { struct native_field field; uint64_t value; };

/* What both kinds of rings have. Every slot has a descriptor and a buffer. Numbers of slots run on; modulo the table's count
 * they are places. */
struct native_ring_layout {
    struct native_table table;
    uint64_t table_dma;               /* of slot 0's descriptor, as the device sees it */
    char *buffers;                    /* slot 0's buffer; one begins every buffer_stride bytes */
    uint64_t buffers_dma;
    uint32_t buffer_stride, buffer_size;
    uint32_t spare;                   /* slots that the device never has: 1 where it takes a full ring for an empty one */
    uint32_t size;                    /* of a descriptor: so much of `blank` is written before its fields */
    char blank[NATIVE_RING_BLANK];
    struct native_field address;      /* where the buffer is */
    struct native_field link;         /* where the next slot's descriptor is */
    struct native_field length;       /* bytes in the buffer */
    bool negated;                     /* lengths that the device is told are two's complements */
    uint32_t least;                   /* shorter frames to send are filled up to it with zeros; at most buffer_size */
    struct native_field first, last;  /* set in the first and the last descriptor of a frame */
    struct native_test own;           /* makes the device the owner of a descriptor: its word is stored whole, last */
    struct native_field stop;         /* the device goes no further; set in the last descriptor that is for it */
    struct native_test done;          /* the device has done with the descriptor */
    struct native_field tagged, tag;  /* there is a VLAN tag, to be put in or taken out; its control word */
};

/* Frames to send. */
struct native_tx;
struct native_tx *native_tx_create(const struct native_ring_layout *layout); /* NULL: no memory */
void native_tx_free(struct native_tx *ring);
/* Forgets what it holds. How many frames that were. */
uint32_t native_tx_reset(struct native_tx *ring);
/* head: the oldest slot that was not reclaimed; published: the first that the device does not have; tail: the next to be used. */
struct native_tx_state { uint64_t head, published, tail; uint32_t room; };
void native_tx_state(const struct native_tx *ring, struct native_tx_state *out);
/* Takes the next slot for a descriptor that the driver writes; `alone`: the device is done with it by itself, else it belongs to
 * the frame that is posted next. It is not published. Its number, or -ENOSPC. */
int64_t native_tx_claim(struct native_tx *ring, bool alone);
/* Copies one frame into slots, with another blank. Not published. 0 or -ENOSPC. */
int native_tx_put(struct native_tx *ring, const char *data, uint32_t length, const char *blank);
/* Hands what is there over to the device. */
void native_tx_publish(struct native_tx *ring);
/* Copies frames of the batch into slots, as long as there is room and they ask for no offload that takes more than a descriptor's
 * field, and publishes them. How many; the batch knows, too. */
uint32_t native_tx_post(struct native_tx *ring, struct native_batch *batch);
/* Takes back what the device has done. */
struct native_tx_done { uint32_t frames; uint64_t bytes; };
void native_tx_reclaim(struct native_tx *ring, struct native_tx_done *out);

/* Frames that came in. */
struct native_rx_layout {
    struct native_ring_layout ring;
    struct native_field capacity;     /* told the size of the buffer */
    bool whole;                       /* the length in the last descriptor is the whole frame's */
    uint32_t trailer;                 /* bytes at its end that are not the frame's: a checksum */
    uint32_t bad_count, good_count;
    struct native_test bad[NATIVE_RING_TESTS];  /* any of these in the last descriptor: the frame is dropped */
    struct native_test good[NATIVE_RING_TESTS]; /* all of these, and there are some: its checksum is right */
};
struct native_rx;
struct native_rx *native_rx_create(const struct native_rx_layout *layout); /* NULL: no memory */
void native_rx_free(struct native_rx *ring);
/* Gives all slots but the spare ones to the device, from slot 0 on. */
void native_rx_reset(struct native_rx *ring);
/* head: the oldest slot that the device has; tail: one behind the newest. errors: frames that were bad, or of which a part was
 * missing; dropped: that the port had no room for. */
struct native_rx_state { uint64_t head, tail, frames, errors, dropped; };
void native_rx_state(const struct native_rx *ring, struct native_rx_state *out);
/* How many frames, `most` at most, the device has done with. */
uint32_t native_rx_ready(const struct native_rx *ring, uint32_t most);
/* Hands at most `budget` frames to the port, and their slots back to the device. How many there were, the bad ones counted. */
uint32_t native_rx_harvest(struct native_rx *ring, struct native_port *port, uint32_t budget);

/* ---- END CDEF ---- */

#endif
