/* Interrupt lines: levels of pins and messages, set from any thread; handlers that run at a delivery point, and thread
 * functions that run in worlds of their own. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "vmkernel_core/core.h"

#define LINES 320
/* Linux's rule (kernel/irq/spurious.c): of 100,000 interrupts, 99,900 that nobody handled disable the line; one that
 * comes more than a tenth of a second after the one before begins to count anew. */
#define JUDGED_EACH 100000
#define TOO_MANY 99900
#define TOGETHER_NS 100000000ull
/* Bits of a handler's result (enum irqreturn). */
#define IRQ_HANDLED 1
#define IRQ_WAKE_THREAD 2

struct vmk_irq_thread { /* a handler, with or without a thread */
    uint64_t handler, cookie, function;
    struct vmk_irq_thread *next;
    uint64_t task;               /* the thread's, once it runs */
    unsigned line;
    bool once;                   /* masks the line while it is busy (IRQF_ONESHOT) */
    bool wanted, running, removed;
};
typedef struct vmk_irq_thread action_t;

static struct line {
    action_t *actions, *next; /* next: whose turn it is, while they run */
    int depth;
    unsigned masking; /* threads that keep it masked */
    uint64_t delivered, unhandled;
    uint64_t by_threads, by_threads_before; /* what thread functions handled, now and at the interrupt before */
    uint64_t last_unhandled_ns;
    uint32_t judged, judged_unhandled;
} lines[LINES];
static _Atomic uint64_t asserted[LINES / 64], pending[LINES / 64];

static struct waiter {
    uint64_t task;
    struct waiter *next;
} *waiters;

struct shot {
    uint64_t function, cookie;
    unsigned line;
    int result;
};

static void raise_in(_Atomic uint64_t *words, unsigned line)
{
    uint64_t bit = 1ull << line % 64;
    if (!(atomic_fetch_or(&words[line / 64], bit) & bit) && !vmk_holds_baton())
        vmk_kick(); /* who holds the baton delivers, or kicks when letting it go */
}

static void lower_in(_Atomic uint64_t *words, unsigned line) { atomic_fetch_and(&words[line / 64], ~(1ull << line % 64)); }

void vmk_irq_set_level(unsigned line, int level)
{
    if (line < LINES)
        (level ? raise_in : lower_in)(asserted, line);
}

void vmk_irq_pulse(unsigned line)
{
    if (line < LINES)
        raise_in(pending, line);
}

void vmk_irq_unpulse(unsigned line)
{
    if (line < LINES)
        lower_in(pending, line);
}

/* ---- handlers ---- */

static action_t *add(unsigned number, action_t made)
{
    struct line *line = &lines[number];
    action_t *action = malloc(sizeof *action), **end = &line->actions;
    if (!action)
        return NULL;
    *action = made;
    action->line = number;
    if (!line->actions) {
        line->depth = 0;
        line->judged = line->judged_unhandled = 0;
    }
    while (*end)
        end = &(*end)->next;
    *end = action;
    vmk_kick();
    return action;
}

int vmk_irq_add(unsigned line, uint64_t handler, uint64_t cookie)
{
    if (line >= LINES)
        return -EINVAL;
    return add(line, (action_t){.handler = handler, .cookie = cookie}) ? 0 : -ENOMEM;
}

struct vmk_irq_thread *vmk_irq_add_threaded(unsigned line, uint64_t handler, uint64_t cookie, uint64_t function, int once)
{
    if (line >= LINES)
        return NULL;
    return add(line, (action_t){.handler = handler, .cookie = cookie, .function = function, .once = once != 0});
}

static bool busy(const action_t *action) { return action->wanted || action->running; }

static void want(action_t *action)
{
    if (!busy(action) && action->once)
        lines[action->line].masking++;
    action->wanted = true;
    vmk_world_wake(action->task);
}

/* After `wanted` or `running` became false. */
static void settle(action_t *action)
{
    if (busy(action))
        return;
    if (action->once && !action->removed && !--lines[action->line].masking)
        vmk_kick();
    for (struct waiter *waiter = waiters; waiter; waiter = waiter->next)
        vmk_world_wake(waiter->task);
}

static int take_out(unsigned number, uint64_t cookie, bool cut)
{
    if (number >= LINES)
        return -EINVAL;
    for (action_t **at = &lines[number].actions; *at; at = &(*at)->next)
        if ((*at)->cookie == cookie) {
            action_t *gone = *at;
            *at = gone->next;
            if (lines[number].next == gone) /* a handler takes out the one after it */
                lines[number].next = gone->next;
            if (!gone->function) {
                free(gone);
                return 0;
            }
            if (busy(gone) && gone->once)
                lines[number].masking--;
            gone->removed = true; /* its thread frees it */
            gone->wanted &= !cut;
            if (cut)
                vmk_world_end(gone->task);
            else
                vmk_world_wake(gone->task);
            return 0;
        }
    return -ENOENT;
}

int vmk_irq_remove(unsigned line, uint64_t cookie) { return take_out(line, cookie, false); }
int vmk_irq_cut(unsigned line, uint64_t cookie) { return take_out(line, cookie, true); }

void vmk_irq_reset(void)
{
    for (unsigned number = 0; number < LINES; number++) {
        while (lines[number].actions)
            vmk_irq_cut(number, lines[number].actions->cookie);
        lines[number] = (struct line){0};
        lower_in(asserted, number);
        lower_in(pending, number);
    }
}

int vmk_irq_disable(unsigned line)
{
    if (line >= LINES)
        return -EINVAL;
    lines[line].depth++;
    return 0;
}

int vmk_irq_enable(unsigned line)
{
    if (line >= LINES || !lines[line].depth)
        return -EINVAL;
    if (!--lines[line].depth)
        vmk_kick();
    return 0;
}

int vmk_irq_stats(unsigned line, struct vmk_irq_stats *out)
{
    if (line >= LINES)
        return -EINVAL;
    *out = (struct vmk_irq_stats){lines[line].delivered, lines[line].unhandled, lines[line].depth,
                                  (int32_t)(asserted[line / 64] >> line % 64 & 1),
                                  (int32_t)(pending[line / 64] >> line % 64 & 1)};
    return 0;
}

/* ---- threads ---- */

static void shoot(void *arg)
{
    struct shot *shot = arg;
    shot->result = ((int (*)(int, void *))shot->function)((int)shot->line, (void *)shot->cookie);
}

void vmk_irq_thread_run(struct vmk_irq_thread *thread)
{
    vmk_baton_take();
    thread->task = vmk_world_task();
    while (!thread->removed || thread->wanted) {
        if (!thread->wanted) {
            vmk_world_sleep(UINT64_MAX);
            continue;
        }
        struct shot shot = {thread->function, thread->cookie, thread->line, 0};
        thread->wanted = false;
        thread->running = true;
        vmk_guarded(shoot, &shot, (uint32_t)thread->function);
        lines[thread->line].by_threads += (shot.result & IRQ_HANDLED) != 0;
        thread->running = false;
        settle(thread);
        if (vmk_deliver())
            vmk_kick();
    }
    free(thread);
    vmk_baton_drop();
}

int vmk_irq_thread_wake(unsigned line, uint64_t cookie)
{
    if (line < LINES)
        for (action_t *action = lines[line].actions; action; action = action->next)
            if (action->function && action->cookie == cookie) {
                want(action);
                return 0;
            }
    return -ENOENT;
}

static bool threads_busy(unsigned line)
{
    for (action_t *action = lines[line].actions; action; action = action->next)
        if (busy(action) && action->task != vmk_world_task()) /* a thread function does not wait for itself */
            return true;
    return false;
}

int vmk_irq_sync(unsigned line, uint64_t timeout_ns)
{
    if (line >= LINES)
        return -EINVAL;
    int error = 0;
    vmk_baton_take();
    struct waiter me = {vmk_world_task(), NULL};
    for (uint64_t left = timeout_ns; threads_busy(line);) {
        if (!left || vmk_world_ending()) {
            error = -ETIMEDOUT;
            break;
        }
        me.next = waiters;
        waiters = &me;
        left = vmk_world_sleep(left);
        struct waiter **at = &waiters;
        while (*at != &me)
            at = &(*at)->next;
        *at = me.next;
    }
    vmk_baton_drop();
    return error;
}

/* ---- delivery ---- */

static void judge(unsigned number, bool handled)
{
    struct line *line = &lines[number];
    if (!handled) {
        uint64_t now = vmk_now();
        line->judged_unhandled = now - line->last_unhandled_ns > TOGETHER_NS ? 1 : line->judged_unhandled + 1;
        line->last_unhandled_ns = now;
        line->unhandled++;
    }
    if (++line->judged < JUDGED_EACH)
        return;
    if (line->judged_unhandled > TOO_MANY) {
        line->depth++;
        vmk_event_put(VMK_EVENT_NOBODY_CARED, 0, number);
    }
    line->judged = line->judged_unhandled = 0;
}

static bool run_line(unsigned number)
{
    struct line *line = &lines[number];
    int results = 0;
    lower_in(pending, number); /* before the handlers look: what comes from now on asks for them again */
    for (action_t *action = line->actions; action; action = line->next) {
        line->next = action->next;
        struct shot shot = {action->handler, action->cookie, number, action->handler ? 0 : IRQ_WAKE_THREAD};
        if (action->handler)
            vmk_guarded(shoot, &shot, (uint32_t)action->handler);
        if (shot.result & IRQ_WAKE_THREAD && action->function)
            want(action);
        results |= shot.result;
    }
    line->delivered++;
    bool handled = results & IRQ_HANDLED;
    if (!handled && results & IRQ_WAKE_THREAD) { /* its thread tells later: what is judged is the interrupt before */
        handled = line->by_threads != line->by_threads_before;
        line->by_threads_before = line->by_threads;
    }
    judge(number, handled);
    return results != 0;
}

static bool runnable(const struct line *line) { return line->actions && !line->depth && !line->masking; }

bool vmk_irq_run(void)
{
    bool handled = false;
    for (unsigned word = 0; word < LINES / 64; word++)
        for (uint64_t rest = atomic_load(&asserted[word]) | atomic_load(&pending[word]); rest; rest &= rest - 1) {
            unsigned number = word * 64 + (unsigned)__builtin_ctzll(rest);
            if (runnable(&lines[number]))
                handled |= run_line(number);
        }
    return handled;
}

bool vmk_irq_waiting(void)
{
    for (unsigned word = 0; word < LINES / 64; word++)
        for (uint64_t rest = atomic_load(&asserted[word]) | atomic_load(&pending[word]); rest; rest &= rest - 1)
            if (runnable(&lines[word * 64 + (unsigned)__builtin_ctzll(rest)]))
                return true;
    return false;
}
