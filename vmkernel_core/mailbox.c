/* Asking QEMU's processor for register accesses (firmware.c says why). One thread at a time: bus_qtest.c's lock. */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>

#include "vmkernel_core/core.h"
#include "vmkernel_core/mailbox.h"

#define SPINS 4000     /* looks without letting another thread have this core: some 20 us */
#define YIELDS 2000    /* then so many that do, before the caller may see whether QEMU still lives */

struct vmk_mailbox {
    _Atomic uint32_t asked;
    uint32_t spin;
    uint32_t pad1[14];
    _Atomic uint32_t done, asleep, naps;
    uint32_t pad2[13];
    struct { uint32_t what, address, value, pad; } ring[MAILBOX_ENTRIES];
};
_Static_assert(offsetof(struct vmk_mailbox, done) == MAILBOX_DONE, "layout");
_Static_assert(offsetof(struct vmk_mailbox, asleep) == MAILBOX_ASLEEP, "layout");
_Static_assert(offsetof(struct vmk_mailbox, naps) == MAILBOX_NAPS, "layout");
_Static_assert(offsetof(struct vmk_mailbox, ring) == MAILBOX_RING, "layout");

struct vmk_mailbox *vmk_mailbox_at(void *memory) { return (struct vmk_mailbox *)((char *)memory + MAILBOX_ADDRESS); }

void vmk_mailbox_spin(struct vmk_mailbox *box, unsigned spin) { *(volatile uint32_t *)&box->spin = spin; }

bool vmk_mailbox_asleep(struct vmk_mailbox *box) { return atomic_load(&box->asleep) != 0; }

uint32_t vmk_mailbox_naps(struct vmk_mailbox *box) { return atomic_load(&box->naps); }

bool vmk_mailbox_takes(int space, uint64_t address, unsigned size)
{
    return (size == 1 || size == 2 || size == 4) && address <= UINT32_MAX - size && (unsigned)space < 2;
}

int vmk_mailbox_wait(struct vmk_mailbox *box, unsigned left)
{
    uint32_t asked = atomic_load_explicit(&box->asked, memory_order_relaxed);
    for (unsigned i = 0; i < SPINS + YIELDS; i++) {
        if (asked - atomic_load_explicit(&box->done, memory_order_acquire) <= left)
            return 0;
        if (i < SPINS)
            __builtin_ia32_pause();
        else
            sched_yield();
    }
    return -EAGAIN;
}

void vmk_mailbox_ask(struct vmk_mailbox *box, int write, int space, uint64_t address, unsigned size, uint32_t value)
{
    uint32_t number = atomic_load_explicit(&box->asked, memory_order_relaxed);
    unsigned what = (space == VMK_SPACE_IO ? 6u : 0u) + (write ? 3u : 0u) + (size == 4 ? 2u : size == 2 ? 1u : 0u);
    box->ring[number % MAILBOX_ENTRIES].what = what;
    box->ring[number % MAILBOX_ENTRIES].address = (uint32_t)address;
    box->ring[number % MAILBOX_ENTRIES].value = value;
    atomic_store(&box->asked, number + 1); /* sequentially consistent: before the caller looks whether it is asleep */
}

uint32_t vmk_mailbox_value(struct vmk_mailbox *box)
{
    return box->ring[(atomic_load_explicit(&box->asked, memory_order_relaxed) - 1) % MAILBOX_ENTRIES].value;
}
