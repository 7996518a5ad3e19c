/* Worlds: threads that run kernel code, one at a time. Whoever holds the baton is the CPU.
 *
 * The baton is handed over in the order of asking, so that a program that transmits in a tight loop cannot
 * starve the idle loop or a work item. A sleeping world keeps its own stack and gives the baton away. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmkernel_core/core.h"

#define MAX_BUSES 16
#define MAX_EVENTS 256
#define DELIVERY_ROUNDS 16
/* How long the idle loop leaves the buses to a program that has just looked at them, and how often it looks while one
 * waits for them. */
#define ATTENDED_NS 1000000ull
#define GLANCE_NS 2000000ull
/* A level that its handler left asserted is asked again after this time, as a level would ask. */
#define LEVEL_NS 1000000ull
/* While a program keeps a device busy, interrupts are handled once in so long. */
#define LAZY_NS 300000ull
/* What becomes of the sleep of a world in a hurry, and the most: enough for others to do what it may still wait for. */
#define HURRY_PART 100
#define HURRY_NS 20000000ull
#define HWCAP2_FSGSBASE_BIT 2
#define PREEMPT_NEED_RESCHED 0x80000000u /* arch/x86/include/asm/preempt.h; inverted: set when nothing is needed */

struct vmk_frame {
    sigjmp_buf env;
    struct vmk_frame *previous;
    uint32_t owner;
    uint32_t preempt;
    int32_t sections; /* read-side sections (RCU) that the world was inside of */
    struct vmk_result *result;
};

struct vmk_world {
    pthread_cond_t turn;
    struct vmk_world *next;  /* in the queue for the baton */
    struct vmk_world *chain; /* of all worlds */
    struct vmk_frame *frame;
    uint64_t task, gs_base, interrupt_flag;
    unsigned depth;
    uint32_t preempt_count;
    int event; /* an eventfd, -1 until it is asked for */
    bool woken, ending, hurried;
};

struct vmk_softirq vmk_softirqs[VMK_SOFTIRQS];
static void no_tick(void) {}
void (*vmk_tick)(void) = no_tick;
uint64_t (*vmk_task_new)(void);
void (*vmk_task_free)(uint64_t task);
uint64_t vmk_interrupt_flag = 0x200;
struct vmk_cpu vmk_cpu;
bool vmk_delivering;
uint32_t vmk_modules_low = UINT32_MAX;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct vmk_world *holder, *queue, **queue_end = &queue, *worlds;
static __thread struct vmk_world *self;
static __thread bool idling; /* this is the idle loop: what it leaves waiting it looks at again by itself */
static pthread_key_t leave_key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int kick_fd = -1;
static atomic_int kicked;
static atomic_int attending; /* programs inside vmk_attend */
static _Atomic uint64_t attended_until;
static uint64_t last_delivery;
static struct vmk_bus *buses[MAX_BUSES];
static pthread_mutex_t buses_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vmk_event events[MAX_EVENTS];
static unsigned events_first, events_count;
static uint64_t events_lost;

uint64_t vmk_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void leave(void *arg)
{
    struct vmk_world *world = arg;
    pthread_mutex_lock(&lock);
    for (struct vmk_world **at = &worlds; *at; at = &(*at)->chain)
        if (*at == world) {
            *at = world->chain;
            break;
        }
    pthread_mutex_unlock(&lock);
    if (world->event >= 0)
        close(world->event);
    if (vmk_task_free && world->task != (uint64_t)world)
        vmk_task_free(world->task);
    pthread_cond_destroy(&world->turn);
    free(world);
}

static void set_up(void)
{
    pthread_key_create(&leave_key, leave);
    kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
}

static struct vmk_world *attach(void)
{
    if (self)
        return self;
    pthread_once(&once, set_up);
    struct vmk_world *world = calloc(1, sizeof *world);
    if (!world)
        abort();
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&world->turn, &attributes);
    pthread_condattr_destroy(&attributes);
    world->task = (uint64_t)world;
    world->interrupt_flag = 0x200;
    world->event = -1;
    pthread_mutex_lock(&lock);
    world->chain = worlds;
    worlds = world;
    pthread_mutex_unlock(&lock);
    pthread_setspecific(leave_key, world);
    return self = world;
}

static void set_gs(struct vmk_world *world)
{
    world->gs_base = vmk_cpu.gs_base;
    if (getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_BIT)
        __asm__ volatile("wrgsbase %0" : : "r"(vmk_cpu.gs_base));
    else
        syscall(SYS_arch_prctl, ARCH_SET_GS, vmk_cpu.gs_base);
}

/* The CPU now runs this world: its GS, its current, its interrupt flag and preemption count. */
static void switch_to(struct vmk_world *world)
{
    vmk_interrupt_flag = world->interrupt_flag;
    if (!vmk_cpu.gs_base)
        return;
    if (world->gs_base != vmk_cpu.gs_base)
        set_gs(world);
    if (world->task == (uint64_t)world && vmk_task_new) {
        world->task = vmk_task_new();
        world->preempt_count = *(uint32_t *)vmk_cpu.preempt_slot;
    }
    *(uint64_t *)vmk_cpu.current_slot = world->task;
    *(uint32_t *)vmk_cpu.preempt_slot = world->preempt_count;
}

static void switch_from(struct vmk_world *world)
{
    world->interrupt_flag = vmk_interrupt_flag;
    if (vmk_cpu.gs_base)
        world->preempt_count = *(uint32_t *)vmk_cpu.preempt_slot;
}

static void acquire(struct vmk_world *world)
{
    pthread_mutex_lock(&lock);
    if (!holder && !queue) {
        holder = world;
    } else {
        world->next = NULL;
        *queue_end = world;
        queue_end = &world->next;
        while (holder != world)
            pthread_cond_wait(&world->turn, &lock);
    }
    pthread_mutex_unlock(&lock);
    switch_to(world);
    vmk_tick();
}

/* With `lock`. */
static void pass_on(void)
{
    holder = queue;
    if (!holder)
        return;
    queue = holder->next;
    if (!queue)
        queue_end = &queue;
    pthread_cond_signal(&holder->turn);
}

static void release(struct vmk_world *world)
{
    switch_from(world);
    pthread_mutex_lock(&lock);
    pass_on();
    pthread_mutex_unlock(&lock);
}

void vmk_baton_take(void)
{
    struct vmk_world *world = attach();
    if (!world->depth++)
        acquire(world);
}

void vmk_baton_drop(void)
{
    if (--self->depth)
        return;
    bool kick = !idling && vmk_irq_waiting() && vmk_now() >= atomic_load(&attended_until);
    release(self);
    if (kick)
        vmk_kick();
}

bool vmk_holds_baton(void) { return self && self->depth > 0; }

uint64_t vmk_world_task(void) { return attach()->task; }
bool vmk_in_kernel(void) { return self && self->frame; }

void vmk_cpu_set(const struct vmk_cpu *cpu)
{
    pthread_mutex_lock(&lock);
    vmk_cpu = *cpu;
    /* Tasks of the kernel before have gone with its memory; each world gets a new one when it runs again. */
    for (struct vmk_world *world = worlds; world; world = world->chain) {
        world->task = (uint64_t)world;
        world->gs_base = 0;
        world->interrupt_flag = 0x200;
    }
    pthread_mutex_unlock(&lock);
}

static int32_t *reading(const struct vmk_world *world) { return (int32_t *)(world->task + vmk_cpu.reading_offset); }

bool vmk_world_reading(void)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (struct vmk_world *world = worlds; world && !found; world = world->chain)
        if (world != self && world->task != (uint64_t)world && world->depth)
            found = *reading(world) || world->preempt_count & ~PREEMPT_NEED_RESCHED;
    pthread_mutex_unlock(&lock);
    return found;
}

void vmk_modules_from(uint32_t address) { vmk_modules_low = address; }

static bool softirq_waiting(void)
{
    bool some = false;
    for (int i = 0; i < VMK_SOFTIRQS && !some; i++)
        some = vmk_softirqs[i].waiting && vmk_softirqs[i].waiting();
    return some;
}

/* Gives the baton away until woken or the time is up; comes back with it. */
uint64_t vmk_world_sleep(uint64_t timeout_ns)
{
    struct vmk_world *world = attach();
    uint64_t now = vmk_now(), deadline = timeout_ns > UINT64_MAX - now ? UINT64_MAX : now + timeout_ns;
    bool held = world->depth > 0;
    if (held) {
        vmk_uncork();
        if (vmk_irq_waiting() || softirq_waiting())
            vmk_kick(); /* what came in while it ran may be what it is going to wait for */
        switch_from(world);
    }
    pthread_mutex_lock(&lock);
    if (held)
        pass_on();
    bool over = false;
    while (!world->woken && !world->ending && !over) {
        if (deadline == UINT64_MAX) {
            pthread_cond_wait(&world->turn, &lock);
            continue;
        }
        /* One that is told to hurry in the middle of its sleep has its time cut, too. */
        uint64_t part = (deadline - now) / HURRY_PART, end = deadline;
        if (world->hurried)
            end = now + (part < HURRY_NS ? part : HURRY_NS);
        struct timespec until = {(time_t)(end / 1000000000ull), (long)(end % 1000000000ull)};
        over = pthread_cond_timedwait(&world->turn, &lock, &until) == ETIMEDOUT;
    }
    over &= !world->woken;
    world->woken = false;
    pthread_mutex_unlock(&lock);
    if (held)
        acquire(world);
    now = vmk_now();
    return !over && now < deadline ? deadline - now : 0;
}

/* With `lock`; NULL when its thread has ended. */
static struct vmk_world *world_of(uint64_t task)
{
    struct vmk_world *world = worlds;
    while (world && world->task != task)
        world = world->chain;
    return world;
}

static void wake(uint64_t task, bool ending)
{
    pthread_mutex_lock(&lock);
    struct vmk_world *world = world_of(task);
    if (world) {
        world->woken = true;
        world->ending |= ending;
        pthread_cond_signal(&world->turn);
    }
    pthread_mutex_unlock(&lock);
}

void vmk_world_wake(uint64_t task) { wake(task, false); }
void vmk_world_end(uint64_t task) { wake(task, true); }

void vmk_world_hurry(uint64_t task, bool on)
{
    pthread_mutex_lock(&lock);
    struct vmk_world *world = world_of(task);
    if (world) {
        world->hurried = on;
        pthread_cond_signal(&world->turn);
    }
    pthread_mutex_unlock(&lock);
}
bool vmk_world_ending(void) { return attach()->ending; }

/* ---- calls and stops ---- */

uint32_t vmk_owner(void) { return self && self->frame ? self->frame->owner : 0; }

uint32_t vmk_site(uint64_t caller)
{
    return caller >= vmk_modules_low && caller <= UINT32_MAX ? (uint32_t)caller : vmk_owner();
}

void vmk_stop(int reason, uint32_t site, uint64_t detail)
{
    struct vmk_frame *frame = self->frame;
    *frame->result = (struct vmk_result){.stop = reason, .site = site, .detail = detail, .owner = frame->owner};
    siglongjmp(frame->env, 1);
}

/* Runs fn(arg) so that a stop inside ends only that. What the stopped code left of the CPU's state is undone. */
static void run_in_frame(struct vmk_world *world, void (*fn)(void *), void *arg, uint32_t owner,
                         struct vmk_result *result)
{
    struct vmk_frame frame = {.previous = world->frame, .owner = owner, .result = result};
    if (owner < vmk_modules_low && world->frame) /* a helper of the image's: still for the same module */
        frame.owner = world->frame->owner;
    if (vmk_cpu.gs_base) {
        frame.preempt = *(uint32_t *)vmk_cpu.preempt_slot;
        frame.sections = *reading(world);
    }
    uint64_t interrupt_flag = vmk_interrupt_flag;
    unsigned depth = world->depth;
    bool delivering = vmk_delivering;
    *result = (struct vmk_result){0};
    world->frame = &frame;
    if (sigsetjmp(frame.env, 0) == 0) {
        fn(arg);
    } else {
        world->depth = depth;
        vmk_interrupt_flag = interrupt_flag;
        vmk_delivering = delivering;
        if (vmk_cpu.gs_base) {
            *(uint32_t *)vmk_cpu.preempt_slot = frame.preempt;
            *reading(world) = frame.sections;
        }
    }
    world->frame = frame.previous;
}

static void event_put(struct vmk_event event)
{
    pthread_mutex_lock(&events_lock);
    if (events_count == MAX_EVENTS)
        events_lost++;
    else
        events[(events_first + events_count++) % MAX_EVENTS] = event;
    pthread_mutex_unlock(&events_lock);
    vmk_kick();
}

void vmk_guarded(void (*fn)(void *), void *arg, uint32_t owner)
{
    struct vmk_result result;
    struct vmk_world *world = attach();
    run_in_frame(world, fn, arg, owner, &result);
    if (result.stop && result.stop != VMK_STOP_ENDED)
        event_put((struct vmk_event){VMK_EVENT_STOPPED, result.site, result.stop, result.owner, result.detail});
}

struct call {
    uint64_t (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
    const uint64_t *args;
    uint64_t value;
};

static void run_call(void *arg)
{
    struct call *call = arg;
    const uint64_t *a = call->args;
    call->value = call->function(a[0], a[1], a[2], a[3], a[4], a[5]);
}

void vmk_enter(void (*fn)(void *), void *arg, uint32_t owner, struct vmk_result *result, bool lazily)
{
    vmk_baton_take();
    run_in_frame(self, fn, arg, owner, result);
    if (!self->frame && (lazily ? vmk_deliver_lazily() : vmk_deliver()))
        vmk_kick();
    vmk_baton_drop();
}

void vmk_call(uint64_t function, const uint64_t args[6], uint32_t owner, struct vmk_result *out)
{
    struct call call = {(uint64_t(*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t))function, args, 0};
    vmk_enter(run_call, &call, owner, out, false);
    if (!out->stop)
        out->value = call.value;
}

bool vmk_deliver(void)
{
    bool more = false;
    if (vmk_delivering || !vmk_interrupt_flag)
        return true;
    vmk_delivering = true;
    for (int round = 0; round < DELIVERY_ROUNDS; round++) {
        more = vmk_irq_run();
        for (int i = 0; i < VMK_SOFTIRQS; i++)
            if (vmk_softirqs[i].run)
                more |= vmk_softirqs[i].run();
        if (!more)
            break;
    }
    vmk_delivering = false;
    last_delivery = vmk_now();
    return more;
}

bool vmk_deliver_lazily(void)
{
    uint64_t now = vmk_now();
    if (!atomic_load(&attending) && now - last_delivery < LAZY_NS) {
        if (now >= atomic_exchange(&attended_until, now + ATTENDED_NS))
            vmk_kick(); /* the idle loop may sleep until a bus has news, and these have been taken in: it shall look then */
        return false;
    }
    return vmk_deliver();
}

/* ---- events ---- */

void vmk_event_put(uint32_t kind, uint32_t site, uint64_t detail)
{
    event_put((struct vmk_event){kind, site, 0, vmk_owner(), detail});
}

int vmk_event_next(struct vmk_event *out)
{
    int have = 1;
    pthread_mutex_lock(&events_lock);
    if (events_lost) {
        *out = (struct vmk_event){.kind = VMK_EVENT_LOST, .detail = events_lost};
        events_lost = 0;
    } else if (events_count) {
        *out = events[events_first];
        events_first = (events_first + 1) % MAX_EVENTS;
        events_count--;
    } else {
        have = 0;
    }
    pthread_mutex_unlock(&events_lock);
    return have;
}

/* ---- the idle loop ---- */

void vmk_kick(void)
{
    pthread_once(&once, set_up);
    if (!atomic_exchange(&kicked, 1))
        vmk_event_post(kick_fd);
}

int vmk_idle_watch(struct vmk_bus *bus)
{
    int error = -ENOSPC;
    pthread_mutex_lock(&buses_lock);
    for (int i = 0; error && i < MAX_BUSES; i++)
        if (!buses[i]) {
            buses[i] = bus;
            error = 0;
        }
    pthread_mutex_unlock(&buses_lock);
    vmk_kick();
    return error;
}

void vmk_idle_unwatch(struct vmk_bus *bus)
{
    /* With the baton nobody is inside vmk_bus_service of the idle loop. */
    vmk_baton_take();
    pthread_mutex_lock(&buses_lock);
    for (int i = 0; i < MAX_BUSES; i++)
        if (buses[i] == bus)
            buses[i] = NULL;
    pthread_mutex_unlock(&buses_lock);
    vmk_baton_drop();
    vmk_kick();
}

/* The watched buses for poll, behind what is in fds already; how many there are in all. */
static nfds_t add_buses(struct pollfd *fds, nfds_t count)
{
    pthread_mutex_lock(&buses_lock);
    for (int i = 0; i < MAX_BUSES; i++)
        if (buses[i] && vmk_bus_fd(buses[i]) >= 0)
            fds[count++] = (struct pollfd){.fd = vmk_bus_fd(buses[i]), .events = POLLIN};
    pthread_mutex_unlock(&buses_lock);
    return count;
}

/* Waits for what is in fds, of which the first is an eventfd of this thread's, and takes that back. */
static void wait_for(struct pollfd *fds, nfds_t count, uint64_t deadline_ns, uint64_t most_ns)
{
    uint64_t now = vmk_now(), wait = deadline_ns > now ? deadline_ns - now : 0;
    wait = wait < most_ns ? wait : most_ns;
    struct timespec timeout = {(time_t)(wait / 1000000000ull), (long)(wait % 1000000000ull)};
    ppoll(fds, count, &timeout, NULL);
    if (fds[0].revents) {
        uint64_t drained;
        ssize_t got = read(fds[0].fd, &drained, sizeof drained);
        (void)got; /* only this thread reads it, and it is readable */
    }
}

int vmk_world_event(void)
{
    struct vmk_world *world = attach();
    if (world->event < 0)
        world->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return world->event;
}

void vmk_event_post(int event)
{
    uint64_t one = 1;
    ssize_t written = write(event, &one, sizeof one);
    (void)written; /* the counter cannot overflow */
}

void vmk_attend(uint64_t deadline_ns)
{
    atomic_fetch_add(&attending, 1);
    if (deadline_ns) {
        struct pollfd fds[MAX_BUSES + 1] = {{.fd = vmk_world_event(), .events = POLLIN}};
        wait_for(fds, add_buses(fds, 1), deadline_ns, vmk_irq_waiting() ? LEVEL_NS : UINT64_MAX);
    }
    vmk_baton_take();
    vmk_service();
    if (vmk_deliver())
        vmk_kick();
    atomic_store(&attended_until, vmk_now() + ATTENDED_NS);
    atomic_fetch_sub(&attending, 1);
    vmk_baton_drop();
}

void vmk_attend_until(const uint32_t *ended, uint64_t deadline_ns)
{
    while (!__atomic_load_n(ended, __ATOMIC_ACQUIRE) && vmk_now() < deadline_ns)
        vmk_attend(deadline_ns);
}

bool vmk_service(void)
{
    bool all_there = true;
    vmk_traps_keep();
    for (int i = 0; i < MAX_BUSES; i++)
        if (buses[i])
            all_there &= vmk_bus_service(buses[i]) == 0;
    return all_there;
}

static bool corked;

static void cork(bool on)
{
    corked = on;
    for (int i = 0; i < MAX_BUSES; i++)
        if (buses[i])
            vmk_bus_cork(buses[i], on);
}
void vmk_cork(void) { cork(true); }
void vmk_uncork(void)
{
    if (corked)
        cork(false);
}

int vmk_idle(uint64_t deadline_ns)
{
    struct vmk_world *world = attach();
    idling = true;
    struct pollfd fds[MAX_BUSES + 1] = {{.fd = kick_fd, .events = POLLIN}};
    uint64_t now = vmk_now(), until = atomic_load(&attended_until), most = UINT64_MAX;
    nfds_t count = 1;
    int reasons = 0;
    if (atomic_load(&attending))
        most = GLANCE_NS;
    else if (now < until)
        most = until - now;
    else
        count = add_buses(fds, 1);
    if (world->depth == 0 && vmk_irq_waiting() && most > LEVEL_NS)
        most = LEVEL_NS;
    wait_for(fds, count, deadline_ns, most);
    /* A kicker that has set the flag and not yet written wakes the next wait, for nothing. */
    if (atomic_exchange(&kicked, 0))
        reasons |= 2;
    vmk_baton_take();
    if (!vmk_service())
        reasons |= 4;
    if (vmk_deliver())
        vmk_kick();
    vmk_baton_drop();
    if (vmk_now() >= deadline_ns)
        reasons |= 1;
    pthread_mutex_lock(&events_lock);
    if (events_count || events_lost)
        reasons |= 8;
    pthread_mutex_unlock(&events_lock);
    return reasons;
}
