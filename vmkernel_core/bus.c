/* Buses: one way in for every kind, and the kind that asks Python. */
#include <stdlib.h>

#include "vmkernel_core/core.h"

/* Made by cffi ('extern "Python+C"' in core_build.py); they take the GIL. */
extern uint64_t vmk_python_bus_read(void *handle, int space, uint64_t address, unsigned size);
extern void vmk_python_bus_write(void *handle, int space, uint64_t address, unsigned size, uint64_t value);

/* Any thread counts. */
static uint64_t accesses;

static void count(unsigned more) { __atomic_fetch_add(&accesses, more, __ATOMIC_RELAXED); }

uint64_t vmk_bus_accesses(void) { return __atomic_load_n(&accesses, __ATOMIC_RELAXED); }

/* `gone` is set once, by whichever thread notices, and read by all: no order beyond itself is needed. */
int vmk_bus_gone(struct vmk_bus *bus) { return __atomic_load_n(&bus->gone, __ATOMIC_RELAXED); }

int vmk_bus_fd(struct vmk_bus *bus) { return vmk_bus_gone(bus) ? -1 : bus->fd; }

uint64_t vmk_bus_read(struct vmk_bus *bus, int space, uint64_t address, unsigned size)
{
    if (vmk_bus_gone(bus))
        return vmk_all_ones(size);
    count(1);
    return bus->ops->read(bus, space, address, size);
}

void vmk_bus_read_rep(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t *values, unsigned often)
{
    if (bus->ops->read_rep && !vmk_bus_gone(bus)) {
        count(often);
        bus->ops->read_rep(bus, space, address, size, values, often);
    } else
        for (unsigned i = 0; i < often; i++)
            values[i] = vmk_bus_read(bus, space, address, size);
}

void vmk_bus_write(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t value)
{
    if (!vmk_bus_gone(bus)) {
        count(1);
        bus->ops->write(bus, space, address, size, value);
    }
}

void vmk_bus_write_rep(struct vmk_bus *bus, int space, uint64_t address, unsigned size, const uint64_t *values, unsigned often)
{
    for (unsigned i = 0; i < often; i++)
        vmk_bus_write(bus, space, address, size, values[i]);
}

void vmk_bus_flush(struct vmk_bus *bus)
{
    if (bus->ops->flush && !vmk_bus_gone(bus))
        bus->ops->flush(bus);
}

void vmk_bus_cork(struct vmk_bus *bus, int on)
{
    if (bus->ops->cork)
        bus->ops->cork(bus, on);
}

int vmk_bus_service(struct vmk_bus *bus) { return bus->ops->service(bus); }

void vmk_bus_close(struct vmk_bus *bus)
{
    if (bus)
        bus->ops->close(bus);
}

/* ---- A bus that calls Python ---------------------------------------------------------------------------- */

struct python_bus {
    struct vmk_bus bus;
    void *handle;
};

static uint64_t python_read(struct vmk_bus *bus, int space, uint64_t address, unsigned size)
{
    return vmk_python_bus_read(((struct python_bus *)bus)->handle, space, address, size);
}

static void python_write(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t value)
{
    vmk_python_bus_write(((struct python_bus *)bus)->handle, space, address, size, value);
}

/* A model has no news to fetch: it sets its interrupt lines itself, from whatever thread. */
static int python_service(struct vmk_bus *bus)
{
    (void)bus;
    return 0;
}

static void python_close(struct vmk_bus *bus) { free(bus); }

struct vmk_bus *vmk_bus_python(void *handle)
{
    static const struct vmk_bus_ops ops = {.read = python_read, .write = python_write, .service = python_service, .close = python_close};
    struct python_bus *python = calloc(1, sizeof *python);
    if (!python)
        return NULL;
    python->bus = (struct vmk_bus){.ops = &ops, .fd = -1};
    python->handle = handle;
    return &python->bus;
}
