/* Message interrupts: whoever brings a device's message here writes an eventfd, one for each line.
 *
 * All eventfds of a platform are in one epoll set, edge-triggered: each write makes its eventfd an event, whether or not
 * the one before was read, so one epoll_wait takes in all messages and nothing is ever read. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "vmkernel_core/core.h"

#define AT_ONCE 64

struct messages {
    struct vmk_bus bus;
    atomic_uint open; /* lines: without any there is nothing to ask for */
};

static uint64_t no_read(struct vmk_bus *bus, int space, uint64_t address, unsigned size)
{
    (void)bus, (void)space, (void)address;
    return vmk_all_ones(size);
}

static void no_write(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t value)
{
    (void)bus, (void)space, (void)address, (void)size, (void)value;
}

static int service(struct vmk_bus *bus)
{
    struct messages *messages = (struct messages *)bus;
    struct epoll_event events[AT_ONCE];
    int count = atomic_load(&messages->open) ? AT_ONCE : 0;
    while (count == AT_ONCE) {
        count = epoll_wait(bus->fd, events, AT_ONCE, 0);
        for (int i = 0; i < count; i++)
            vmk_irq_pulse(events[i].data.u32);
    }
    return 0;
}

static void close_all(struct vmk_bus *bus)
{
    close(bus->fd);
    free(bus);
}

struct vmk_bus *vmk_bus_messages(void)
{
    static const struct vmk_bus_ops ops = {.read = no_read, .write = no_write, .service = service, .close = close_all};
    struct messages *messages = calloc(1, sizeof *messages);
    if (!messages)
        return NULL;
    messages->bus = (struct vmk_bus){.ops = &ops, .fd = epoll_create1(EPOLL_CLOEXEC)};
    if (messages->bus.fd < 0) {
        free(messages);
        return NULL;
    }
    return &messages->bus;
}

int vmk_messages_watch(struct vmk_bus *bus, int fd, unsigned line)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = line};
    if (epoll_ctl(bus->fd, EPOLL_CTL_ADD, fd, &event))
        return -errno;
    atomic_fetch_add(&((struct messages *)bus)->open, 1);
    return 0;
}

int vmk_messages_open(struct vmk_bus *bus, int eventfd, unsigned line)
{
    uint64_t earlier;
    if (read(eventfd, &earlier, sizeof earlier) < 0 && errno != EAGAIN)
        return -errno;
    return vmk_messages_watch(bus, eventfd, line);
}

int vmk_messages_close(struct vmk_bus *bus, int eventfd)
{
    if (epoll_ctl(bus->fd, EPOLL_CTL_DEL, eventfd, NULL))
        return -errno;
    atomic_fetch_sub(&((struct messages *)bus)->open, 1);
    return 0;
}
