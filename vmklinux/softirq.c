/* Softirqs: tasklets (Linux kernel/softirq.c) and irq_poll (lib/irq_poll.c); NET_RX, between them, is netdevice.c's,
 * BLOCK scsi_lib.c's.
 *
 * They run at delivery points, in the order of Linux's softirq numbers. Who schedules one elsewhere kicks the idle loop. */
#include "vmklinux/linux.h"

#define SOFTIRQ_OFFSET 0x100u /* include/linux/preempt.h: in preempt_count while a softirq runs */
#define IRQ_POLL_BUDGET 256   /* lib/irq_poll.c: of one pass over all */
/* How long a driver's call waits for a softirq to end before the driver is stopped, and how long it sleeps in between. */
#define WAIT_LIMIT_NS 10000000000ull
#define WAIT_STEP_NS 20000ull

static bool bit(uint64_t word, int64_t number) { return word >> number & 1; }

static uint32_t *preempt_count(void) { return (uint32_t *)vmk_cpu.preempt_slot; }

static void scheduled(void)
{
    if (!vmk_delivering)
        vmk_kick();
}

/* Lets softirqs go on while `bit_number` of *state is set, delivering them from here if that may be. */
static void wait_while(volatile uint64_t *state, int64_t bit_number, uint32_t site)
{
    uint64_t limit = vmk_now() + WAIT_LIMIT_NS;
    while (bit(*state, bit_number)) {
        if (vmk_now() > limit)
            vmk_stop(VMK_STOP_PANIC, site, (uint64_t)state);
        vmk_deliver();
        if (bit(*state, bit_number))
            vmk_world_sleep(WAIT_STEP_NS);
        if (vmk_world_ending())
            vmk_stop(VMK_STOP_ENDED, 0, 0);
    }
}

/* ---- tasklets ---- */

struct tasklets {
    uint64_t first, last;
};
static struct tasklets high_tasklets, tasklets;

static uint64_t *tasklet_next(uint64_t tasklet) { return &FIELD(tasklet, tasklet_struct, next, uint64_t); }
static uint64_t *tasklet_state(uint64_t tasklet) { return &FIELD(tasklet, tasklet_struct, state, uint64_t); }
static uint64_t tasklet_func(uint64_t tasklet) { return FIELD(tasklet, tasklet_struct, func, uint64_t); }
static bool tasklet_disabled(uint64_t tasklet) { return FIELD(tasklet, tasklet_struct, count, int) != 0; }

static void append(struct tasklets *list, uint64_t tasklet)
{
    *tasklet_next(tasklet) = 0;
    if (list->first)
        *tasklet_next(list->last) = tasklet;
    else
        list->first = tasklet;
    list->last = tasklet;
}

static uint64_t take_first(struct tasklets *list)
{
    uint64_t tasklet = list->first;
    list->first = *tasklet_next(tasklet);
    return tasklet;
}

static void run_tasklet(void *arg)
{
    uint64_t tasklet = (uint64_t)arg;
    void (*function)(uint64_t) = (void (*)(uint64_t))tasklet_func(tasklet);
    function(FIELD(tasklet, tasklet_struct, use_callback, bool) ? tasklet : FIELD(tasklet, tasklet_struct, data, uint64_t));
}

static void run_tasklets(struct tasklets *list)
{
    uint64_t last = list->last;
    if (!list->first)
        return;
    *preempt_count() += SOFTIRQ_OFFSET;
    for (uint64_t tasklet = 0; list->first && tasklet != last;) {
        tasklet = take_first(list);
        if (tasklet_disabled(tasklet)) { /* it waits on, scheduled */
            append(list, tasklet);
            continue;
        }
        *tasklet_state(tasklet) &= ~(1ull << ENUM(TASKLET_STATE_SCHED));
        *tasklet_state(tasklet) |= 1ull << ENUM(TASKLET_STATE_RUN);
        vmk_guarded(run_tasklet, (void *)tasklet, (uint32_t)tasklet_func(tasklet));
        *tasklet_state(tasklet) &= ~(1ull << ENUM(TASKLET_STATE_RUN));
    }
    *preempt_count() -= SOFTIRQ_OFFSET;
}

static bool one_is_enabled(const struct tasklets *list)
{
    for (uint64_t tasklet = list->first; tasklet; tasklet = *tasklet_next(tasklet))
        if (!tasklet_disabled(tasklet))
            return true;
    return false;
}

static void forget_tasklets(struct tasklets *list, uint64_t low, uint64_t high)
{
    struct tasklets kept = {0, 0};
    while (list->first) {
        uint64_t tasklet = take_first(list);
        if (tasklet_func(tasklet) < low || tasklet_func(tasklet) >= high)
            append(&kept, tasklet);
    }
    *list = kept;
}

static void tasklet_make(uint64_t tasklet, uint64_t function, bool use_callback, uint64_t data)
{
    *tasklet_next(tasklet) = *tasklet_state(tasklet) = 0;
    FIELD(tasklet, tasklet_struct, count, int) = 0;
    FIELD(tasklet, tasklet_struct, use_callback, bool) = use_callback;
    FIELD(tasklet, tasklet_struct, func, uint64_t) = function;
    FIELD(tasklet, tasklet_struct, data, uint64_t) = data;
}

static void tasklet_setup(uint64_t tasklet, uint64_t callback) { tasklet_make(tasklet, callback, true, 0); }

static void tasklet_init(uint64_t tasklet, uint64_t function, uint64_t data)
{
    tasklet_make(tasklet, function, false, data);
}

static void __tasklet_schedule(uint64_t tasklet)
{
    append(&tasklets, tasklet);
    scheduled();
}

static void __tasklet_hi_schedule(uint64_t tasklet)
{
    append(&high_tasklets, tasklet);
    scheduled();
}

static void tasklet_unlock_wait(uint64_t tasklet) { wait_while(tasklet_state(tasklet), ENUM(TASKLET_STATE_RUN), SITE()); }

static void tasklet_kill(uint64_t tasklet)
{
    wait_while(tasklet_state(tasklet), ENUM(TASKLET_STATE_SCHED), SITE());
    wait_while(tasklet_state(tasklet), ENUM(TASKLET_STATE_RUN), SITE());
}

/* ---- irq_poll ---- */

static struct list_head polls;

static struct list_head *poll_entry(uint64_t poll) { return (struct list_head *)INNER(poll, irq_poll, list); }
static uint64_t poll_at(struct list_head *entry) { return (uint64_t)entry - linux_field[L_irq_poll__list]; }
static uint64_t *poll_state(uint64_t poll) { return &FIELD(poll, irq_poll, state, uint64_t); }
static uint64_t poll_function(uint64_t poll) { return FIELD(poll, irq_poll, poll, uint64_t); }

static void irq_poll_init(uint64_t poll, int weight, uint64_t function)
{
    list_init(poll_entry(poll));
    *poll_state(poll) = 0;
    FIELD(poll, irq_poll, weight, int) = weight;
    FIELD(poll, irq_poll, poll, uint64_t) = function;
}

static void irq_poll_sched(uint64_t poll)
{
    uint64_t *state = poll_state(poll);
    if (bit(*state, ENUM(IRQ_POLL_F_DISABLE)) || bit(*state, ENUM(IRQ_POLL_F_SCHED)))
        return;
    *state |= 1ull << ENUM(IRQ_POLL_F_SCHED);
    list_add_tail(poll_entry(poll), &polls);
    scheduled();
}

static void irq_poll_complete(uint64_t poll)
{
    list_del(poll_entry(poll));
    *poll_state(poll) &= ~(1ull << ENUM(IRQ_POLL_F_SCHED));
}

static void irq_poll_disable(uint64_t poll)
{
    uint64_t *state = poll_state(poll);
    *state |= 1ull << ENUM(IRQ_POLL_F_DISABLE);
    wait_while(state, ENUM(IRQ_POLL_F_SCHED), SITE());
    *state |= 1ull << ENUM(IRQ_POLL_F_SCHED); /* held, so that nobody can schedule it */
    *state &= ~(1ull << ENUM(IRQ_POLL_F_DISABLE));
}

static void irq_poll_enable(uint64_t poll) { *poll_state(poll) &= ~(1ull << ENUM(IRQ_POLL_F_SCHED)); }

struct polling {
    uint64_t poll;
    int weight, work;
};

static void run_poll(void *arg)
{
    struct polling *polling = arg;
    polling->work = ((int (*)(uint64_t, int))poll_function(polling->poll))(polling->poll, polling->weight);
}

static void run_polls(void)
{
    struct list_head *last = polls.prev;
    if (last == &polls)
        return;
    *preempt_count() += SOFTIRQ_OFFSET;
    for (int left = IRQ_POLL_BUDGET; left > 0 && polls.next != &polls;) {
        struct list_head *entry = polls.next;
        uint64_t poll = poll_at(entry);
        struct polling polling = {poll, FIELD(poll, irq_poll, weight, int), -1};
        vmk_guarded(run_poll, &polling, (uint32_t)poll_function(poll));
        if (polling.work < 0) { /* the driver was stopped inside */
            list_del(entry);
            continue;
        }
        left -= polling.work > 0 ? polling.work : 1;
        if (polling.work >= polling.weight) {
            if (bit(*poll_state(poll), ENUM(IRQ_POLL_F_DISABLE))) {
                irq_poll_complete(poll);
            } else {
                list_del(entry);
                list_add_tail(entry, &polls);
            }
        }
        if (entry == last)
            break;
    }
    *preempt_count() -= SOFTIRQ_OFFSET;
}

/* ---- all of them ---- */

static bool waiting(void) { return one_is_enabled(&high_tasklets) || one_is_enabled(&tasklets) || polls.next != &polls || linux_scsi_waiting(); }

static bool run(void)
{
    run_tasklets(&high_tasklets);
    bool more = linux_softirq_run();
    linux_scsi_softirq();
    run_polls();
    run_tasklets(&tasklets);
    return more || waiting();
}

void linux_softirq_start(void)
{
    high_tasklets = tasklets = (struct tasklets){0, 0};
    list_init(&polls);
    vmk_softirqs[VMK_SOFTIRQ_LINUX] = (struct vmk_softirq){run, waiting};
}

void linux_softirq_forget(uint64_t low, uint64_t high)
{
    vmk_baton_take();
    forget_tasklets(&high_tasklets, low, high);
    forget_tasklets(&tasklets, low, high);
    for (struct list_head *entry = polls.next, *next; entry && entry != &polls; entry = next) {
        uint64_t function = poll_function(poll_at(entry));
        next = entry->next;
        if (function >= low && function < high)
            list_del(entry);
    }
    vmk_baton_drop();
}

const struct linux_api softirq_api[] = {
    API(tasklet_setup, "done", "Initialises a tasklet.", NULL),
    API(tasklet_init, "done", "Initialises a tasklet of the old kind.", NULL),
    API(__tasklet_schedule, "done", "Queues a tasklet.", NULL),
    API(__tasklet_hi_schedule, "done", "Queues a tasklet that runs before network reception.", NULL),
    API(tasklet_unlock_wait, "done", "Waits until a tasklet does not run.", NULL),
    API_AS("tasklet_unlock_spin_wait", tasklet_unlock_wait, "done", "Waits until a tasklet does not run.", NULL),
    API(tasklet_kill, "done", "Waits until a tasklet neither runs nor is queued.",
        "One that stays disabled for 10 s stops the driver, where Linux waits for ever."),
    API(irq_poll_init, "done", "Initialises an irq_poll.", NULL),
    API(irq_poll_sched, "done", "Queues an irq_poll for polling.", NULL),
    API(irq_poll_complete, "done", "Ends polling.", NULL),
    API(irq_poll_disable, "done", "Waits for polling to end and keeps the irq_poll.", NULL),
    API(irq_poll_enable, "done", "Lets an irq_poll be scheduled.", NULL),
    API_END,
};
