/* Interrupt lines: levels that devices set from any thread, handlers that run at a delivery point. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "vmkernel_core/core.h"

#define LINES 256
/* Linux's rule (kernel/irq/spurious.c): of 100,000 interrupts, 99,900 that nobody handled disable the line. */
#define JUDGED_EACH 100000
#define TOO_MANY 99900

struct action {
    uint64_t handler, cookie;
    struct action *next;
};

static struct line {
    struct action *actions;
    int depth;
    uint64_t delivered, unhandled;
    uint32_t judged, judged_unhandled;
} lines[LINES];
static _Atomic uint64_t asserted[LINES / 64];

struct shot {
    struct action *action;
    unsigned line;
    bool handled;
};

void vmk_irq_set_level(unsigned line, int level)
{
    if (line >= LINES)
        return;
    uint64_t bit = 1ull << line % 64;
    if (!level) {
        atomic_fetch_and(&asserted[line / 64], ~bit);
    } else if (!(atomic_fetch_or(&asserted[line / 64], bit) & bit) && !vmk_holds_baton()) {
        vmk_kick(); /* who holds the baton delivers, or kicks when letting it go */
    }
}

int vmk_irq_add(unsigned line, uint64_t handler, uint64_t cookie)
{
    if (line >= LINES)
        return -EINVAL;
    struct action *action = malloc(sizeof *action), **end = &lines[line].actions;
    if (!action)
        return -ENOMEM;
    *action = (struct action){handler, cookie, NULL};
    while (*end)
        end = &(*end)->next;
    *end = action;
    vmk_kick();
    return 0;
}

int vmk_irq_remove(unsigned line, uint64_t cookie)
{
    if (line >= LINES)
        return -EINVAL;
    for (struct action **at = &lines[line].actions; *at; at = &(*at)->next)
        if ((*at)->cookie == cookie) {
            struct action *gone = *at;
            *at = gone->next;
            free(gone);
            return 0;
        }
    return -ENOENT;
}

void vmk_irq_reset(void)
{
    for (unsigned number = 0; number < LINES; number++) {
        while (lines[number].actions)
            vmk_irq_remove(number, lines[number].actions->cookie);
        lines[number] = (struct line){0};
        atomic_fetch_and(&asserted[number / 64], ~(1ull << number % 64));
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
                                  (int32_t)(asserted[line / 64] >> line % 64 & 1)};
    return 0;
}

static void shoot(void *arg)
{
    struct shot *shot = arg;
    int (*handler)(int, void *) = (int (*)(int, void *))shot->action->handler;
    shot->handled = handler((int)shot->line, (void *)shot->action->cookie) != 0;
}

static bool run_line(unsigned number)
{
    struct line *line = &lines[number];
    bool handled = false;
    for (struct action *action = line->actions, *next; action; action = next) {
        next = action->next;
        struct shot shot = {action, number, false};
        vmk_guarded(shoot, &shot, (uint32_t)action->handler);
        handled |= shot.handled;
    }
    line->delivered++;
    line->unhandled += !handled;
    line->judged_unhandled += !handled;
    if (++line->judged == JUDGED_EACH) {
        if (line->judged_unhandled > TOO_MANY) {
            line->depth++;
            vmk_event_put(VMK_EVENT_NOBODY_CARED, 0, number);
        }
        line->judged = line->judged_unhandled = 0;
    }
    return handled;
}

bool vmk_irq_run(void)
{
    bool handled = false;
    for (unsigned word = 0; word < LINES / 64; word++)
        for (uint64_t rest = atomic_load(&asserted[word]); rest; rest &= rest - 1) {
            unsigned number = word * 64 + (unsigned)__builtin_ctzll(rest);
            if (lines[number].actions && !lines[number].depth)
                handled |= run_line(number);
        }
    return handled;
}

bool vmk_irq_waiting(void)
{
    for (unsigned word = 0; word < LINES / 64; word++)
        for (uint64_t rest = atomic_load(&asserted[word]); rest; rest &= rest - 1) {
            unsigned number = word * 64 + (unsigned)__builtin_ctzll(rest);
            if (lines[number].actions && !lines[number].depth)
                return true;
        }
    return false;
}
