/* The far end of the wire: takes frames as fast as they come, or sends them no faster than they are taken. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define BATCH 64
#define LONGEST 2048
#define WAIT_NS 100000000

uint64_t bench_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

uint64_t wire_sink(int fd, uint64_t count, struct wire_credit *credit, uint64_t silence_ns)
{
    static __thread char room[BATCH][LONGEST];
    struct iovec parts[BATCH];
    struct mmsghdr messages[BATCH];
    uint64_t got = 0;
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){room[i], LONGEST};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    while (got < count) {
        struct pollfd readable = {.fd = fd, .events = POLLIN};
        int news = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        if (news > 0) {
            got += (uint64_t)news;
            wire_credit(credit, (uint64_t)news);
        } else if (poll(&readable, 1, (int)(silence_ns / 1000000)) <= 0) {
            break;
        }
    }
    return got;
}

void wire_credit(struct wire_credit *credit, uint64_t frames)
{
    __atomic_add_fetch(&credit->received, frames, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&credit->sequence, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&credit->waiting, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &credit->sequence, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

int wire_wait(struct wire_credit *credit, uint64_t frames, uint64_t silence_ns)
{
    static const struct timespec wait = {0, WAIT_NS};
    uint64_t end = bench_now() + silence_ns;
    while (__atomic_load_n(&credit->received, __ATOMIC_SEQ_CST) < frames) {
        uint32_t sequence = __atomic_load_n(&credit->sequence, __ATOMIC_SEQ_CST);
        __atomic_store_n(&credit->waiting, 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&credit->received, __ATOMIC_SEQ_CST) < frames)
            syscall(SYS_futex, &credit->sequence, FUTEX_WAIT_PRIVATE, sequence, &wait, NULL, 0);
        __atomic_store_n(&credit->waiting, 0, __ATOMIC_SEQ_CST);
        if (bench_now() > end)
            return 0;
    }
    return 1;
}

uint64_t wire_source(int fd, const char *frame, uint32_t size, uint64_t count, uint64_t window,
                     struct wire_credit *credit, uint64_t silence_ns)
{
    struct iovec part = {(void *)frame, size};
    struct mmsghdr messages[BATCH];
    uint64_t sent = 0;
    memset(messages, 0, sizeof messages);
    for (int i = 0; i < BATCH; i++)
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1};
    while (sent < count) {
        uint64_t batch = count - sent < BATCH ? count - sent : BATCH;
        if (sent + batch > window && !wire_wait(credit, sent + batch - window, silence_ns))
            break;
        int done = sendmmsg(fd, messages, (unsigned)batch, 0);
        if (done > 0)
            sent += (uint64_t)done;
        else if (errno != EINTR)
            break;
    }
    return sent;
}
