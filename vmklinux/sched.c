/* Sleeping, waking and time (Linux kernel/sched/core.c, kernel/time/, kernel/locking/mutex.c, arch/x86/lib/delay.c).
 *
 * Wait queues run from the image, on top of schedule, schedule_timeout and the wake functions here. Mutexes,
 * completions and semaphores are ours: the image's own wake their waiters by functions that it does not export
 * (wake_up_q, try_to_wake_up), which would reach into a run queue that does not exist. */
#define _GNU_SOURCE
#include <time.h>

#include "vmklinux/linux.h"

#define MAX_SCHEDULE_TIMEOUT INT64_MAX
/* A sleep costs the timer slack of 50 us on top: up to here a delay spins, beyond it the CPU is let go. */
#define SPIN_LIMIT_NS 100000ull
#define MUTEX_FLAGS 7ull

unsigned linux_hz(void);

static uint32_t *state(void) { return &FIELD(vmk_world_task(), task_struct, state, uint32_t); }

/* Sleeps once. Nothing that lies on this stack may be known elsewhere: a world that is ended does not come back. */
static uint64_t nap(uint64_t timeout_ns)
{
    uint64_t left = vmk_world_sleep(timeout_ns);
    if (vmk_world_ending())
        vmk_stop(VMK_STOP_ENDED, 0, 0);
    return left;
}

static void schedule(void)
{
    uint32_t *mine = state();
    if (!*mine)
        nap(0); /* it offers the CPU: others may have to do what it waits for */
    while (*mine)
        nap(UINT64_MAX);
}

static uint64_t to_ns(int64_t jiffies)
{
    return jiffies == MAX_SCHEDULE_TIMEOUT ? UINT64_MAX : (uint64_t)jiffies * (1000000000ull / linux_hz());
}

static int64_t schedule_timeout(int64_t timeout)
{
    if (timeout == MAX_SCHEDULE_TIMEOUT) {
        schedule();
        return timeout;
    }
    uint64_t tick = 1000000000ull / linux_hz(), left = timeout > 0 ? to_ns(timeout) : 0;
    uint32_t *mine = state();
    while (*mine && left)
        left = nap(left);
    *mine = 0;
    return (int64_t)((left + tick - 1) / tick);
}

/* Whoever asked for the CPU meanwhile comes first. */
static void yield(void) { vmk_world_sleep(0); }

static int wake_up_process(uint64_t task)
{
    uint32_t *its = &FIELD(task, task_struct, state, uint32_t);
    if (!*its)
        return 0;
    *its = 0;
    vmk_world_wake(task);
    return 1;
}

static int default_wake_function(uint64_t entry) { return wake_up_process(FIELD(entry, wait_queue_entry, private, uint64_t)); }

static void sleep_for(uint64_t ns)
{
    for (uint64_t left = ns; left;)
        left = nap(left);
    vmk_tick();
}

static void msleep(uint32_t ms) { sleep_for(ms * 1000000ull); }
static uint64_t msleep_interruptible(uint32_t ms)
{
    sleep_for(ms * 1000000ull);
    return 0;
}
static void usleep_range_state(uint64_t least_us) { sleep_for(least_us * 1000); }

static void delay(uint64_t ns)
{
    uint64_t end = vmk_now() + ns;
    vmk_uncork();
    if (ns > SPIN_LIMIT_NS) {
        struct timespec until = {(time_t)(end / 1000000000ull), (long)(end % 1000000000ull)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }
    while (vmk_now() < end)
        __builtin_ia32_pause();
    vmk_tick();
}

static void __udelay(uint64_t us) { delay(us * 1000); }
static void __ndelay(uint64_t ns) { delay(ns); }
/* The argument is microseconds times 2^32 / 10^6 (include/asm-generic/delay.h). */
static void __const_udelay(uint64_t loops) { delay((uint64_t)(((__uint128_t)loops * 1000000000u) >> 32)); }

static int nothing(void) { return 0; }

/* ---- what worlds wait for, by the address of the lock or completion ---- */

struct waiter {
    uint64_t what, task;
    struct waiter *next;
};
static struct waiter *waiters;

/* Sleeps once, at most so long, until wake(what); the caller looks again. What is left of the time. */
static uint64_t wait_on(uint64_t what, uint64_t timeout_ns)
{
    struct waiter me = {what, vmk_world_task(), waiters}, **at = &waiters;
    waiters = &me;
    uint64_t left = vmk_world_sleep(timeout_ns);
    while (*at != &me)
        at = &(*at)->next;
    *at = me.next;
    if (vmk_world_ending())
        vmk_stop(VMK_STOP_ENDED, 0, 0);
    return timeout_ns == UINT64_MAX ? UINT64_MAX : left;
}

static void wake(uint64_t what)
{
    for (struct waiter *waiter = waiters; waiter; waiter = waiter->next)
        if (waiter->what == what)
            vmk_world_wake(waiter->task);
}

/* ---- mutexes ---- */

static uint64_t holder_of(uint64_t mutex) { return FIELD(mutex, mutex, owner, uint64_t) & ~MUTEX_FLAGS; }

static void mutex_lock(uint64_t mutex)
{
    uint64_t task = vmk_world_task();
    if (holder_of(mutex) == task) /* it would wait for itself for ever */
        vmk_stop(VMK_STOP_PANIC, SITE(), mutex);
    while (holder_of(mutex))
        wait_on(mutex, UINT64_MAX);
    FIELD(mutex, mutex, owner, uint64_t) = task;
}

static int mutex_lock_interruptible(uint64_t mutex)
{
    mutex_lock(mutex);
    return 0;
}

static int mutex_trylock(uint64_t mutex)
{
    if (holder_of(mutex))
        return 0;
    FIELD(mutex, mutex, owner, uint64_t) = vmk_world_task();
    return 1;
}

static void mutex_unlock(uint64_t mutex)
{
    FIELD(mutex, mutex, owner, uint64_t) = 0;
    wake(mutex);
}

static int mutex_is_locked(uint64_t mutex) { return holder_of(mutex) != 0; }

/* ---- completions ---- */

#define COMPLETED_FOR_EVER UINT32_MAX /* UINT_MAX in complete_all (kernel/sched/completion.c) */

static uint32_t *done_of(uint64_t completion) { return &FIELD(completion, completion, done, uint32_t); }

static uint64_t try_wait_for_completion(uint64_t completion)
{
    uint32_t *done = done_of(completion);
    if (!*done)
        return 0;
    if (*done != COMPLETED_FOR_EVER)
        --*done;
    return 1;
}

static uint64_t wait_for_completion_timeout(uint64_t completion, int64_t jiffies)
{
    uint64_t left = to_ns(jiffies), tick = 1000000000ull / linux_hz();
    while (!try_wait_for_completion(completion)) {
        if (!left)
            return 0;
        left = wait_on(completion, left);
    }
    return left == UINT64_MAX ? MAX_SCHEDULE_TIMEOUT : left / tick + 1;
}

static int wait_for_completion(uint64_t completion)
{
    wait_for_completion_timeout(completion, MAX_SCHEDULE_TIMEOUT);
    return 0;
}

static void complete(uint64_t completion)
{
    uint32_t *done = done_of(completion);
    if (*done != COMPLETED_FOR_EVER)
        ++*done;
    wake(completion);
}

static void complete_all(uint64_t completion)
{
    *done_of(completion) = COMPLETED_FOR_EVER;
    wake(completion);
}

static uint64_t completion_done(uint64_t completion) { return *done_of(completion) != 0; }

/* ---- semaphores ---- */

static int down_trylock(uint64_t semaphore)
{
    uint32_t *count = &FIELD(semaphore, semaphore, count, uint32_t);
    if (!*count)
        return 1;
    --*count;
    return 0;
}

static int down_timeout(uint64_t semaphore, int64_t jiffies)
{
    uint64_t left = to_ns(jiffies);
    while (down_trylock(semaphore)) {
        if (!left)
            return -62; /* -ETIME */
        left = wait_on(semaphore, left);
    }
    return 0;
}

static int down(uint64_t semaphore) { return down_timeout(semaphore, MAX_SCHEDULE_TIMEOUT); }

static void up(uint64_t semaphore)
{
    ++FIELD(semaphore, semaphore, count, uint32_t);
    wake(semaphore);
}

/* ---- semaphores of readers and writers: count is the writer's bit, or readers times READER ---- */

#define WRITER 1ull
#define READER 0x100ull /* RWSEM_READER_BIAS, kernel/locking/rwsem.c; drivers only ask whether count is 0 */

static uint64_t *rw_count(uint64_t rwsem) { return &FIELD(rwsem, rw_semaphore, count, uint64_t); }

static int down_read_trylock(uint64_t rwsem)
{
    if (*rw_count(rwsem) & WRITER)
        return 0;
    *rw_count(rwsem) += READER;
    return 1;
}

static int down_write_trylock(uint64_t rwsem)
{
    if (*rw_count(rwsem))
        return 0;
    *rw_count(rwsem) = WRITER;
    return 1;
}

static int down_read(uint64_t rwsem)
{
    while (!down_read_trylock(rwsem))
        wait_on(rwsem, UINT64_MAX);
    return 0;
}

static int down_write(uint64_t rwsem)
{
    while (!down_write_trylock(rwsem))
        wait_on(rwsem, UINT64_MAX);
    return 0;
}

static void up_read(uint64_t rwsem)
{
    *rw_count(rwsem) -= READER;
    wake(rwsem);
}

static void up_write(uint64_t rwsem)
{
    *rw_count(rwsem) = 0;
    wake(rwsem);
}

static void downgrade_write(uint64_t rwsem)
{
    *rw_count(rwsem) = READER;
    wake(rwsem);
}

/* ---- the stack protector, and code that has seen the impossible ---- */

static void __stack_chk_fail(void) { vmk_stop(VMK_STOP_PANIC, (uint32_t)CALLER(), 0); }

#define LONG_DELAYS "Above 100 us the thread sleeps, but no other world gets the CPU."
#define NO_SIGNALS "There are no signals to interrupt it."

const struct linux_api sched_api[] = {
    API(schedule, "done", "Gives the CPU away until woken.", NULL),
    API(yield, "done", "Lets the worlds that wait for the CPU have it first.", NULL),
    API(schedule_timeout, "done", "Gives the CPU away until woken or the jiffies are over.", NULL),
    API(wake_up_process, "done", "Wakes a sleeping world.", NULL),
    API(default_wake_function, "done", "Wakes the world behind a wait queue entry.",
        "Modes are not told apart: no world here sleeps interruptibly by a signal."),
    API(msleep, "done", "Sleeps for milliseconds.", NULL),
    API(msleep_interruptible, "done", "Sleeps for milliseconds.", NO_SIGNALS),
    API(usleep_range_state, "done", "Sleeps for microseconds.", "The upper bound is not used to join wake-ups."),
    API(__udelay, "done", "Waits for microseconds.", LONG_DELAYS),
    API(__ndelay, "done", "Waits for nanoseconds.", LONG_DELAYS),
    API(__const_udelay, "done", "Waits for microseconds, given as a scaled constant.", LONG_DELAYS),
    API_AS("__SCT__cond_resched", nothing, "no-op", "Offers the CPU.", "Worlds change at sleeps and between calls."),
    API_AS("__cond_resched", nothing, "no-op", "Offers the CPU.", "Worlds change at sleeps and between calls."),
    API_AS("__SCT__might_resched", nothing, "no-op", "Offers the CPU.", "Worlds change at sleeps and between calls."),
    API_AS("__SCT__preempt_schedule", nothing, "no-op", "Preempts.", "Kernel code is never preempted here."),
    API_AS("preempt_schedule", nothing, "no-op", "Preempts.", "Kernel code is never preempted here."),
    API_AS("preempt_schedule_notrace", nothing, "no-op", "Preempts.", "Kernel code is never preempted here."),
    API_AS("__SCT__preempt_schedule_notrace", nothing, "no-op", "Preempts.", "Kernel code is never preempted here."),
    API(mutex_lock, "done", "Takes a mutex; taking one's own again stops the driver.", NULL),
    API(mutex_lock_interruptible, "done", "Takes a mutex.", NO_SIGNALS),
    API_AS("mutex_lock_killable", mutex_lock_interruptible, "done", "Takes a mutex.", NO_SIGNALS),
    API(mutex_trylock, "done", "Takes a mutex if it is free.", NULL),
    API(mutex_unlock, "done", "Gives a mutex back.", NULL),
    API(mutex_is_locked, "done", "Whether somebody holds a mutex.", NULL),
    API(complete, "done", "Completes once: one who waits goes on.", NULL),
    API(complete_all, "done", "Completes for ever.", NULL),
    API(completion_done, "done", "Whether a wait would not wait.", NULL),
    API(try_wait_for_completion, "done", "Takes a completion if there is one.", NULL),
    API(wait_for_completion, "done", "Waits until completed.", NULL),
    API(wait_for_completion_timeout, "done", "Waits until completed, at most some jiffies.", NULL),
    API_AS("wait_for_completion_io", wait_for_completion, "done", "Waits until completed.", NULL),
    API_AS("wait_for_completion_io_timeout", wait_for_completion_timeout, "done",
           "Waits until completed, at most some jiffies.", NULL),
    API_AS("wait_for_completion_interruptible", wait_for_completion, "done", "Waits until completed.", NO_SIGNALS),
    API_AS("wait_for_completion_killable", wait_for_completion, "done", "Waits until completed.", NO_SIGNALS),
    API_AS("wait_for_completion_interruptible_timeout", wait_for_completion_timeout, "done",
           "Waits until completed, at most some jiffies.", NO_SIGNALS),
    API_AS("wait_for_completion_killable_timeout", wait_for_completion_timeout, "done",
           "Waits until completed, at most some jiffies.", NO_SIGNALS),
    API(down, "done", "Takes a semaphore.", NULL),
    API_AS("down_interruptible", down, "done", "Takes a semaphore.", NO_SIGNALS),
    API(down_trylock, "done", "Takes a semaphore if it is free; 0 when taken.", NULL),
    API(down_timeout, "done", "Takes a semaphore, waiting at most some jiffies.", NULL),
    API(up, "done", "Gives a semaphore back.", NULL),
    API(down_read, "done", "Takes a semaphore as a reader.", "A writer that waits does not hold readers back."),
    API_AS("down_read_interruptible", down_read, "done", "Takes a semaphore as a reader.", NO_SIGNALS),
    API_AS("down_read_killable", down_read, "done", "Takes a semaphore as a reader.", NO_SIGNALS),
    API(down_read_trylock, "done", "Takes a semaphore as a reader if no writer has it.", NULL),
    API(up_read, "done", "Gives a reader's semaphore back.", NULL),
    API(down_write, "done", "Takes a semaphore as its only writer.", NULL),
    API_AS("down_write_killable", down_write, "done", "Takes a semaphore as its only writer.", NO_SIGNALS),
    API(down_write_trylock, "done", "Takes a semaphore as its writer if nobody has it.", NULL),
    API(up_write, "done", "Gives a writer's semaphore back.", NULL),
    API(downgrade_write, "done", "Makes a writer a reader, without others in between.", NULL),
    API(__stack_chk_fail, "done", "The stack protector found damage: stops the driver.", NULL),
    API_END,
};
