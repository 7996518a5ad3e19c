/* Jiffies (Linux kernel/time/jiffies.c): moved when a world gets the CPU, and by a clock for worlds that keep it, since
 * drivers poll hardware in loops that end by jiffies. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "vmklinux/linux.h"

static unsigned tick_hz = 250;
static uint64_t boot_time;
static pthread_t clock_thread;
static atomic_bool running;

unsigned linux_hz(void) { return tick_hz; }

uint64_t linux_jiffies(void) { return *(uint64_t *)SYMBOL(jiffies); }

static void no_tick(void) {}

static void tick(void)
{
    /* INITIAL_JIFFIES (include/linux/jiffies.h): five minutes before the low half wraps, to show who compares wrongly. */
    uint64_t start = (uint32_t)(-300 * (int64_t)tick_hz);
    *(volatile uint64_t *)SYMBOL(jiffies) = start + (vmk_now() - boot_time) / (1000000000ull / tick_hz);
}

static void *clock_run(void *unused)
{
    struct timespec period = {.tv_nsec = 1000000000 / tick_hz};
    while (running) {
        tick();
        nanosleep(&period, NULL);
    }
    return unused;
}

void linux_jiffies_stop(void)
{
    vmk_tick = no_tick;
    if (atomic_exchange(&running, false))
        pthread_join(clock_thread, NULL);
}

void linux_jiffies_start(unsigned hz)
{
    linux_jiffies_stop();
    tick_hz = hz;
    boot_time = vmk_now();
    vmk_tick = tick;
    /* The process's signals are for the program's threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    running = true;
    if (pthread_create(&clock_thread, NULL, clock_run, NULL))
        running = false;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
