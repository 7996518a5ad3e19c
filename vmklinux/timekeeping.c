/* What time it is (Linux kernel/time/timekeeping.c, kernel/sched/clock.c, arch/x86/kernel/tsc.c): the host's clocks.
 *
 * timecounter_init and its like run from the image, on the card's own counter. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "vmklinux/linux.h"

#define SECOND 1000000000ull

struct timespec64 { int64_t seconds; int64_t nanoseconds; };

static uint64_t now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * SECOND + (uint64_t)time.tv_nsec;
}

static void tell(struct timespec64 *out, uint64_t ns) { *out = (struct timespec64){(int64_t)(ns / SECOND), (int64_t)(ns % SECOND)}; }

static uint64_t ktime_get(void) { return now(CLOCK_MONOTONIC); }
static uint64_t ktime_get_raw(void) { return now(CLOCK_MONOTONIC_RAW); }
static uint64_t ktime_get_boot_fast_ns(void) { return now(CLOCK_BOOTTIME); }
static uint64_t ktime_get_real_fast_ns(void) { return now(CLOCK_REALTIME); }
static uint64_t ktime_get_seconds(void) { return now(CLOCK_MONOTONIC) / SECOND; }
static uint64_t ktime_get_real_seconds(void) { return now(CLOCK_REALTIME) / SECOND; }
static void ktime_get_ts64(struct timespec64 *out) { tell(out, now(CLOCK_MONOTONIC)); }
static void ktime_get_raw_ts64(struct timespec64 *out) { tell(out, now(CLOCK_MONOTONIC_RAW)); }
static void ktime_get_real_ts64(struct timespec64 *out) { tell(out, now(CLOCK_REALTIME)); }

static uint64_t ktime_get_with_offset(int64_t offset)
{
    offset = (uint32_t)offset;
    return now(offset == ENUM(TK_OFFS_REAL) ? CLOCK_REALTIME : offset == ENUM(TK_OFFS_BOOT) ? CLOCK_BOOTTIME : CLOCK_TAI);
}

static void ktime_get_snapshot(uint64_t snapshot)
{
    memset((void *)snapshot, 0, SIZE(system_time_snapshot));
    FIELD(snapshot, system_time_snapshot, cycles, uint64_t) = now(CLOCK_MONOTONIC_RAW);
    FIELD(snapshot, system_time_snapshot, real, uint64_t) = now(CLOCK_REALTIME);
    FIELD(snapshot, system_time_snapshot, raw, uint64_t) = now(CLOCK_MONOTONIC_RAW);
}

/* struct system_counterval_t of no counter: all zero, in rax and rdx. */
struct no_counter { uint64_t cycles, source; };
static struct no_counter convert_art_to_tsc(uint64_t art)
{
    (void)art;
    return (struct no_counter){0, 0};
}

/* get_time_fn reads the device and names a counter of the CPU's that was read with it: never the one that counts here. */
static int get_device_system_crosststamp(int (*get_time_fn)(uint64_t *, void *, void *), void *context)
{
    uint64_t device_time, counter[4] = {0};
    int error = get_time_fn(&device_time, counter, context);
    return error ? error : -ENODEV;
}

#define HOST "It is the host's clock."
#define NO_TAI "It is the host's clock; TAI is as good as the host knows it."
#define NO_COUNTER "A card's clock and the CPU's counter cannot be read at one instant here, as on a machine without ART."

const struct linux_api timekeeping_api[] = {
    API(ktime_get, "done", "Nanoseconds of the monotonic clock.", HOST),
    API_AS("ktime_get_mono_fast_ns", ktime_get, "done", "Nanoseconds of the monotonic clock.", HOST),
    API_AS("sched_clock", ktime_get, "done", "Nanoseconds of the monotonic clock.", HOST),
    API_AS("sched_clock_cpu", ktime_get, "done", "Nanoseconds of the monotonic clock, the same on each CPU.", HOST),
    API_AS("local_clock", ktime_get, "done", "Nanoseconds of the monotonic clock.", HOST),
    API(ktime_get_raw, "done", "Nanoseconds of the monotonic clock that nobody corrects.", HOST),
    API_AS("ktime_get_raw_fast_ns", ktime_get_raw, "done", "Nanoseconds of the clock that nobody corrects.", HOST),
    API(ktime_get_boot_fast_ns, "done", "Nanoseconds since the host's boot.", HOST),
    API(ktime_get_real_fast_ns, "done", "Nanoseconds since 1970.", HOST),
    API(ktime_get_with_offset, "done", "Nanoseconds of the clock that is asked for.", NO_TAI),
    API_AS("ktime_get_coarse_with_offset", ktime_get_with_offset, "done", "Nanoseconds of that clock.", NO_TAI),
    API(ktime_get_seconds, "done", "Seconds of the monotonic clock.", HOST),
    API(ktime_get_real_seconds, "done", "Seconds since 1970.", HOST),
    API(ktime_get_ts64, "done", "The monotonic clock, as seconds and nanoseconds.", HOST),
    API_AS("ktime_get_coarse_ts64", ktime_get_ts64, "done", "The monotonic clock.", HOST),
    API(ktime_get_raw_ts64, "done", "The monotonic clock that nobody corrects, as seconds and nanoseconds.", HOST),
    API(ktime_get_real_ts64, "done", "The time since 1970, as seconds and nanoseconds.", HOST),
    API_AS("ktime_get_coarse_real_ts64", ktime_get_real_ts64, "done", "The time since 1970.", HOST),
    API(ktime_get_snapshot, "partial", "Several clocks at one time.",
        "The counter is the raw clock, and no clocksource is named: cycles cannot be compared with a card's."),
    API(convert_art_to_tsc, "done", "Turns the always-running timer's count into the CPU's: there is none.", NO_COUNTER),
    API_AS("convert_art_ns_to_tsc", convert_art_to_tsc, "done", "As convert_art_to_tsc.", NO_COUNTER),
    API(get_device_system_crosststamp, "done", "Reads a card's clock and the system's together: -ENODEV.", NO_COUNTER),
    API_END,
};
