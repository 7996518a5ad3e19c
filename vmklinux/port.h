/* Ports: what an uplink holds of a network device. Here: the port of a native driver's device (port.c), and what a port of
 * either engine needs. */
#ifndef VMKLINUX_PORT_H
#define VMKLINUX_PORT_H
#include <pthread.h>

#include "vmkernel_core/core.h"

struct linux_frame; /* linux.h */
struct linux_port_stats;

/* ---- CDEF ---- */

/* What a device takes of frames to send. mtu in bytes; checksum, tso, tso6: whether these offloads are on; a frame to be
 * cut is of at most gso_max_size bytes and becomes at most gso_max_segs. */
struct port_limits { uint32_t mtu, gso_max_size, gso_max_segs; bool checksum, tso, tso6; };

/* A native driver's port. `handle` is given to native_python_poll. NULL: no memory. */
struct native_port;
struct native_port *native_port_create(void *handle);
void native_port_free(struct native_port *port);

/* Frames to send: they lie one after the other in data. The driver has taken the first `taken` of them, which end at `offset`. */
struct native_batch { const char *data; const struct linux_frame *frames; uint32_t count, taken; uint64_t offset; };
/* Takes the baton, judges the frames, delivers what waits and corks the buses: the driver may have them now. 0; -EMSGSIZE or
 * -EOPNOTSUPP as linux_port_transmit has them, -ENETDOWN, -ENODEV, -ENOBUFS for a queue that is stopped: then there is
 * nothing to finish. */
int native_port_send(struct native_port *port, const struct port_limits *limits, const struct native_batch *batch);
/* Counts what was taken, stops the queue if that is not all, lets the doorbells go, delivers and drops the baton. */
void native_port_sent(struct native_port *port, const struct native_batch *batch);

/* What follows, up to the statistics, is for the driver, with the baton. */

struct native_piece { const void *data; uint32_t length; };
/* A frame came in, in `count` pieces. flags: LINUX_FRAME_CSUM_GOOD or 0. vlan: a tag that the device took out, | 0x10000, to be
 * put back; or 0. False, and counted as dropped, when there is no room for it or it has no whole header. */
bool native_port_put(struct native_port *port, const struct native_piece *pieces, unsigned count, uint16_t flags, uint32_t vlan);
/* Whether the device is open and has a link; whether it takes frames now. Who waits for room is woken. */
void native_port_run(struct native_port *port, bool on);
void native_port_stop_queue(struct native_port *port);
void native_port_wake_queue(struct native_port *port);
bool native_port_queue_stopped(const struct native_port *port);
/* The time (vmk_now) from which it counts how long the queue is stopped: when that began, or later the last frame that the
 * device took, or the last look that found it stopped for too long (native_port_excuse). */
uint64_t native_port_last_sent(const struct native_port *port);
void native_port_excuse(struct native_port *port);
/* NAPI. Once scheduled, native_python_poll runs after the interrupt handlers until native_port_complete; that is false, and
 * it runs once more, when it was scheduled meanwhile. At first, and when it is disabled, scheduling does nothing. */
enum { NATIVE_POLL_WEIGHT = 64 }; /* NAPI_POLL_WEIGHT: frames that a device may hand up before the next one's turn */
void native_port_poll_enable(struct native_port *port, bool on);
void native_port_schedule(struct native_port *port);
bool native_port_complete(struct native_port *port);

/* The rest is as with a linux_port. */
int native_port_receive(struct native_port *port, char *data, uint64_t size, uint32_t *lengths, struct linux_frame *frames,
                        unsigned max);
int native_port_wait(struct native_port *port, int events, uint64_t timeout_ns);
void native_port_end(struct native_port *port);
void native_port_stats(struct native_port *port, struct linux_port_stats *out);

/* ---- END CDEF ---- */

/* port.c: those who wait for a port. */
struct port_waiter;
struct port_waiters { pthread_mutex_t lock; struct port_waiter *first; };
void port_waiters_init(struct port_waiters *waiters);
void port_waiters_fini(struct port_waiters *waiters);
void port_waiters_wake(struct port_waiters *waiters);
/* Until ready(port) has one of `events`, or the time is up; those that it has. */
int port_waiters_wait(struct port_waiters *waiters, int (*ready)(void *port), void *port, int events, uint64_t timeout_ns);

/* 0, -EMSGSIZE for what is no frame of this device's, -EOPNOTSUPP for an offload that is not on. */
int port_judge(const struct port_limits *limits, const char *data, const struct linux_frame *frame);

/* Whether a frame has a VLAN tag. */
static inline bool frame_is_tagged(const char *data) { return data[12] == (char)0x81 && data[13] == 0; }

#endif
