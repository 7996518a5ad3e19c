/* A bus over QEMU's qtest protocol: lines of text, one reply line to each command, and interrupt lines between them.
 *
 * Protocol (QEMU, softmmu/qtest.c): "readl 0x.." -> "OK 0x..", "writel 0x.. 0x.." -> "OK"; a refused command gets one
 * line that begins with FAIL or ERR. "IRQ raise N" and "IRQ lower N" may come before any reply, and by themselves.
 *
 * Waking the other process is what an access by text costs, so a write is sent at once (it may be a doorbell), or with
 * others while the bus is corked, but its reply is only counted, and dropped when it turns up. Commands are answered in
 * order: the reply to a read is the first one after those of the writes before it.
 *
 * Where QEMU's processor may help (vmk_qtest_processor), accesses that come in bursts go through its mailbox (firmware.c)
 * instead: some ten times faster. Both ways keep the order: each waits until what went the other way is done.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "vmkernel_core/core.h"
#include "vmkernel_core/mailbox.h"

/* A QEMU that is this long silent is taken for dead. */
#define LIMIT_NS 10000000000ull
#define NS_PER_S 1000000000ull
#define LINES 256 /* interrupt lines, as in interrupt.c */
/* Replies that may pile up unread before a write takes them in. Some 270 fill the socket at the kernel's default
 * size; QEMU then stands still inside its own reply and handles no doorbell. */
#define UNREAD_MOST 64
/* Going to sleep and being woken takes longer than QEMU takes to reply from another core, so a read first asks for its
 * reply without sleeping: long enough for QEMU to be woken itself, some 50 us in a virtual machine. Where that was in
 * vain (QEMU shares our core, or is busy) the next reads do not try. */
#define SPIN_NS 60000
#define SPIN_AGAIN 64
#define LONGEST 64 /* of a register command: "writeq 0x<16> 0x<16>\n" */
#define COLLECTED_MOST 2048
#define TOGETHER_MOST 64 /* reads; their replies have to fit into the socket beside UNREAD_MOST others */
/* A burst: so many accesses in a millisecond; fewer keep it up. */
#define BURST_NS 1000000ull
#define BURST_BEGINS 16
#define BURST_GOES_ON 8

struct qtest_bus {
    struct vmk_bus bus;
    pthread_mutex_t lock; /* held over a whole exchange; guards all that follows */
    uint64_t posted;      /* replies to posted writes that are still to come */
    uint64_t posted_accesses; /* so many of these, and no access by text is on its way any more */
    unsigned sleepy;      /* reads that shall not spin */
    uint64_t wait_ns;     /* what SO_RCVTIMEO is set to */
    uint64_t raised[LINES / 64];
    size_t start, end;    /* received and not yet used: in[start..end) */
    struct vmk_mailbox *processor; /* NULL: its help is not wanted */
    bool waking;          /* a message that ends nap number `nap` is on its way */
    uint32_t nap;
    bool burst;
    unsigned accesses;    /* since counted_from */
    uint64_t counted_from;
    int corked;
    size_t collected;     /* bytes of out[] that are still to be sent */
    char out[COLLECTED_MOST];
    int cut;              /* the line in front was longer than `in`; its beginning has been dropped */
    char in[65536];
};

static const char *const read_commands[2][9] = {
    [VMK_SPACE_MEMORY] = {[1] = "readb 0x", [2] = "readw 0x", [4] = "readl 0x", [8] = "readq 0x"},
    [VMK_SPACE_IO] = {[1] = "inb 0x", [2] = "inw 0x", [4] = "inl 0x"},
};
static const char *const write_commands[2][9] = {
    [VMK_SPACE_MEMORY] = {[1] = "writeb 0x", [2] = "writew 0x", [4] = "writel 0x", [8] = "writeq 0x"},
    [VMK_SPACE_IO] = {[1] = "outb 0x", [2] = "outw 0x", [4] = "outl 0x"},
};

static const char *command_of(const char *const table[2][9], int space, unsigned size)
{
    return (unsigned)space < 2 && size < 9 ? table[space][size] : NULL;
}

static char *put_text(char *at, const char *text)
{
    while (*text)
        *at++ = *text++;
    return at;
}

static char *put_hex(char *at, uint64_t value)
{
    int digits = value ? (67 - __builtin_clzll(value)) / 4 : 1;
    for (int shift = (digits - 1) * 4; shift >= 0; shift -= 4)
        *at++ = "0123456789abcdef"[value >> shift & 15];
    return at;
}

/* The other side has gone: nobody drives its interrupt lines any more, and the idle loop must hear of it. */
static void lose(struct qtest_bus *q)
{
    if (vmk_bus_gone(&q->bus))
        return;
    __atomic_store_n(&q->bus.gone, 1, __ATOMIC_RELAXED);
    shutdown(q->bus.fd, SHUT_RDWR);
    for (unsigned line = 0; line < LINES; line++)
        if (q->raised[line / 64] >> line % 64 & 1)
            vmk_irq_set_level(line, 0);
    vmk_kick();
}

static void interrupt_line(struct qtest_bus *q, const char *line, const char *end)
{
    int raise = line[4] == 'r';
    const char *digit = memchr(line + 4, ' ', (size_t)(end - line - 4));
    if (!digit)
        return;
    unsigned number = 0;
    while (++digit < end && *digit >= '0' && *digit <= '9' && number < LINES)
        number = number * 10 + (unsigned)(*digit - '0');
    if (number >= LINES)
        return;
    uint64_t bit = 1ull << number % 64;
    q->raised[number / 64] = raise ? q->raised[number / 64] | bit : q->raised[number / 64] & ~bit;
    vmk_irq_set_level(number, raise);
}

/* Uses up what has been received: sets interrupt levels, drops replies to posted writes. Stops at the first reply that
 * is somebody's: *reply is its text, its length is returned. -EAGAIN: none yet. -EMSGSIZE: it was too long to keep. */
static int next_reply(struct qtest_bus *q, const char **reply)
{
    for (;;) {
        char *line = q->in + q->start, *end = memchr(line, '\n', q->end - q->start);
        if (!end)
            return -EAGAIN;
        q->start = (size_t)(end - q->in) + 1;
        if (!q->cut && end - line > 4 && !memcmp(line, "IRQ ", 4)) {
            interrupt_line(q, line, end);
        } else if (q->posted) {
            q->posted--;
            q->posted_accesses -= q->posted_accesses > 0;
            q->cut = 0;
        } else {
            int length = q->cut ? -EMSGSIZE : (int)(end - line);
            q->cut = 0;
            *reply = line;
            return length;
        }
    }
}

/* One recv, behind what is still unused. 0, -EAGAIN or -ENODEV. */
static int receive(struct qtest_bus *q, int flags)
{
    if (q->start) {
        memmove(q->in, q->in + q->start, q->end - q->start);
        q->end -= q->start;
        q->start = 0;
    }
    if (q->end == sizeof q->in) {
        q->end = 0;
        q->cut = 1;
    }
    ssize_t got = recv(q->bus.fd, q->in + q->end, sizeof q->in - q->end, flags);
    if (got > 0) {
        q->end += (size_t)got;
        return 0;
    }
    if (got < 0 && errno == EINTR)
        return 0;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return -EAGAIN;
    lose(q);
    return -ENODEV;
}

/* Uses up what came together with a reply: for what waits in `in` the descriptor does not become readable. */
static void take_in(struct qtest_bus *q)
{
    const char *unasked;
    while (next_reply(q, &unasked) != -EAGAIN)
        ;
}

/* Takes in, without waiting, what has come (one recv: what it leaves keeps the descriptor readable). 0 or -ENODEV. */
static int drain(struct qtest_bus *q)
{
    int error = receive(q, MSG_DONTWAIT);
    take_in(q);
    return error == -EAGAIN ? 0 : error;
}

/* Sends it all, at once. While the socket is full, replies are taken in, or both sides would wait for each other.
 * 0 or -ENODEV. */
static int transmit_now(struct qtest_bus *q, const char *data, size_t length)
{
    uint64_t deadline = 0;
    while (length) {
        ssize_t sent = send(q->bus.fd, data, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            data += sent;
            length -= (size_t)sent;
            continue;
        }
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            lose(q);
            return -ENODEV;
        }
        uint64_t now = vmk_now();
        deadline = deadline ? deadline : now + LIMIT_NS;
        if (now >= deadline) {
            lose(q);
            return -ENODEV;
        }
        struct pollfd wait = {.fd = q->bus.fd, .events = POLLIN | POLLOUT};
        poll(&wait, 1, (int)((deadline - now) / 1000000) + 1);
        if (wait.revents & ~POLLOUT && drain(q) < 0)
            return -ENODEV;
    }
    return 0;
}

/* The other end closed, or died. */
static bool hung_up(struct qtest_bus *q)
{
    struct pollfd end = {.fd = q->bus.fd};
    return poll(&end, 1, 0) > 0 && end.revents & (POLLHUP | POLLERR);
}

static int wake(struct qtest_bus *q)
{
    static const char message[] = "writel 0xfee00000 0x40\n"; /* MAILBOX_VECTOR */
    uint32_t nap = vmk_mailbox_naps(q->processor);
    if (q->waking && q->nap == nap)
        return 0;
    q->waking = true;
    q->nap = nap;
    q->posted++;
    return transmit_now(q, message, sizeof message - 1);
}

/* Until at most `left` accesses are waiting in the mailbox. 0 or -ENODEV. */
static int settle(struct qtest_bus *q, unsigned left)
{
    uint64_t deadline = 0;
    while (vmk_mailbox_wait(q->processor, left)) {
        uint64_t now = vmk_now();
        deadline = deadline ? deadline : now + LIMIT_NS;
        if (hung_up(q) || now >= deadline || (vmk_mailbox_asleep(q->processor) && wake(q))) {
            lose(q);
            return -ENODEV;
        }
    }
    return 0;
}

/* Whether accesses come so often that the processor, which takes a core while it is awake, is worth it. */
static bool in_burst(struct qtest_bus *q)
{
    uint64_t now = vmk_now();
    if (now - q->counted_from > BURST_NS) {
        q->burst = q->accesses >= (q->burst ? BURST_GOES_ON : BURST_BEGINS);
        q->counted_from = now;
        q->accesses = 0;
    }
    q->burst |= ++q->accesses >= BURST_BEGINS;
    return q->burst;
}

/* Whether this access goes through the mailbox: not while another is on its way by text, which it would overtake. */
static bool by_processor(struct qtest_bus *q, int space, uint64_t address, unsigned size)
{
    if (!q->processor || !in_burst(q) || q->collected || !vmk_mailbox_takes(space, address, size))
        return false;
    if (q->posted_accesses)
        drain(q);
    return !q->posted_accesses && !vmk_bus_gone(&q->bus);
}

static int ask(struct qtest_bus *q, int write, int space, uint64_t address, unsigned size, uint64_t value)
{
    if (settle(q, MAILBOX_ENTRIES - 1))
        return -ENODEV;
    vmk_mailbox_ask(q->processor, write, space, address, size, (uint32_t)value);
    return vmk_mailbox_asleep(q->processor) ? wake(q) : 0;
}

/* Sends what was collected, and then this, after what is in the mailbox. 0 or -ENODEV. */
static int transmit(struct qtest_bus *q, const char *data, size_t length)
{
    size_t collected = q->collected;
    q->collected = 0;
    if (q->processor && settle(q, 0))
        return -ENODEV;
    if (collected && transmit_now(q, q->out, collected))
        return -ENODEV;
    return transmit_now(q, data, length);
}

/* receive() that waits, at most SO_RCVTIMEO. 0, -EAGAIN or -ENODEV. */
static int receive_next(struct qtest_bus *q)
{
    if (q->sleepy) {
        q->sleepy--;
        return receive(q, 0);
    }
    uint64_t end = vmk_now() + SPIN_NS;
    int error;
    do
        error = receive(q, MSG_DONTWAIT);
    while (error == -EAGAIN && vmk_now() < end);
    if (error != -EAGAIN)
        return error;
    q->sleepy = SPIN_AGAIN;
    return receive(q, 0);
}

/* Sets how long one recv may wait. */
static void limit_recv(struct qtest_bus *q, uint64_t limit_ns)
{
    if (q->wait_ns == limit_ns)
        return;
    uint64_t us = limit_ns / 1000 + 1; /* zero would mean for ever */
    struct timeval wait = {(time_t)(us / 1000000), (suseconds_t)(us % 1000000)};
    setsockopt(q->bus.fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    q->wait_ns = limit_ns;
}

/* Waits for the reply to the command just sent. Its length, -EMSGSIZE, -ENODEV or -ETIMEDOUT. */
static int await_reply(struct qtest_bus *q, const char **reply, uint64_t limit_ns)
{
    int length = next_reply(q, reply);
    if (length != -EAGAIN)
        return length;
    limit_recv(q, limit_ns);
    /* Interrupt lines may keep coming while the reply does not, so recv's own limit is not enough. */
    uint64_t deadline = vmk_now() + limit_ns;
    for (;;) {
        int error = receive_next(q);
        if (error == -ENODEV)
            return error;
        length = next_reply(q, reply);
        if (length != -EAGAIN)
            return length;
        if (error == -EAGAIN || vmk_now() >= deadline)
            return -ETIMEDOUT;
    }
}

/* The number in "OK 0x1234"; all ones when the reply is anything else. */
static uint64_t reply_value(const char *reply, int length, unsigned size)
{
    if (length < 6 || memcmp(reply, "OK 0x", 5))
        return vmk_all_ones(size);
    uint64_t value = 0;
    for (int i = 5; i < length; i++) {
        unsigned char c = (unsigned char)reply[i];
        unsigned digit = c <= '9' ? c - (unsigned)'0' : (c | 0x20u) - 'a' + 10;
        if (digit > 15)
            return vmk_all_ones(size);
        value = value << 4 | digit;
    }
    return value & vmk_all_ones(size);
}

/* At most TOGETHER_MOST reads by text, of the one `line`. */
static void read_together(struct qtest_bus *q, const char *line, size_t length, unsigned size, uint64_t *values, unsigned count)
{
    char lines[LONGEST * TOGETHER_MOST];
    for (unsigned i = 0; i < count; i++)
        memcpy(lines + i * length, line, length);
    bool lost = transmit(q, lines, count * length);
    for (unsigned i = 0; i < count && !lost; i++) {
        const char *reply = NULL;
        int got = await_reply(q, &reply, LIMIT_NS);
        if (got >= 0)
            values[i] = reply_value(reply, got, size);
        else if (got == -ETIMEDOUT)
            lose(q);
        lost = vmk_bus_gone(&q->bus);
    }
    take_in(q);
}

static void qtest_read_rep(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t *values, unsigned count)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    const char *command = command_of(read_commands, space, size);
    for (unsigned i = 0; i < count; i++)
        values[i] = command ? vmk_all_ones(size) : ~0ull;
    if (!command)
        return;
    char line[LONGEST], *at = put_hex(put_text(line, command), address);
    *at++ = '\n';
    pthread_mutex_lock(&q->lock);
    for (unsigned done = 0, some; done < count && !vmk_bus_gone(bus); done += some) {
        if (by_processor(q, space, address, size)) {
            some = 1;
            if (!ask(q, 0, space, address, size, 0) && !settle(q, 0)) {
                values[done] = vmk_mailbox_value(q->processor) & vmk_all_ones(size);
                drain(q); /* the line that the read lowered is lowered now */
            }
        } else {
            some = count - done < TOGETHER_MOST ? count - done : TOGETHER_MOST;
            read_together(q, line, (size_t)(at - line), size, values + done, some);
        }
    }
    pthread_mutex_unlock(&q->lock);
}

static uint64_t qtest_read(struct vmk_bus *bus, int space, uint64_t address, unsigned size)
{
    uint64_t value;
    qtest_read_rep(bus, space, address, size, &value, 1);
    return value;
}

static void qtest_write(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t value)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    const char *command = command_of(write_commands, space, size);
    if (!command)
        return;
    char line[LONGEST], *at = put_hex(put_text(line, command), address);
    at = put_hex(put_text(at, " 0x"), value & vmk_all_ones(size));
    *at++ = '\n';
    pthread_mutex_lock(&q->lock);
    if (by_processor(q, space, address, size)) {
        ask(q, 1, space, address, size, value);
    } else if (!vmk_bus_gone(bus)) {
        size_t length = (size_t)(at - line);
        q->posted_accesses = ++q->posted;
        if (q->corked && q->collected + length <= COLLECTED_MOST) {
            memcpy(q->out + q->collected, line, length);
            q->collected += length;
        } else if (!transmit(q, line, length) && q->posted % UNREAD_MOST == 0) {
            drain(q);
        }
    }
    pthread_mutex_unlock(&q->lock);
}

static void qtest_flush(struct vmk_bus *bus)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    const char *unasked;
    pthread_mutex_lock(&q->lock);
    limit_recv(q, LIMIT_NS);
    transmit(q, NULL, 0);
    for (uint64_t deadline = vmk_now() + LIMIT_NS; q->posted && !vmk_bus_gone(bus);) {
        if (next_reply(q, &unasked) != -EAGAIN || !q->posted)
            continue;
        if (receive_next(q) == -EAGAIN || vmk_now() >= deadline)
            lose(q);
    }
    pthread_mutex_unlock(&q->lock);
}

static void qtest_cork(struct vmk_bus *bus, int on)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    pthread_mutex_lock(&q->lock);
    q->corked = on;
    if (!on && q->collected && !vmk_bus_gone(bus) && !transmit(q, NULL, 0) && q->posted >= UNREAD_MOST)
        drain(q);
    pthread_mutex_unlock(&q->lock);
}

static int qtest_service(struct vmk_bus *bus)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    pthread_mutex_lock(&q->lock);
    int error = vmk_bus_gone(bus) ? -ENODEV : drain(q);
    pthread_mutex_unlock(&q->lock);
    return error;
}

static void qtest_close(struct vmk_bus *bus)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    lose(q);
    close(bus->fd);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

int vmk_qtest_command(struct vmk_bus *bus, const char *line, char *out, unsigned size, uint64_t timeout_ns)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    size_t length = strlen(line);
    if (!length || strchr(line, '\n'))
        return -EINVAL;
    const char *reply = NULL;
    pthread_mutex_lock(&q->lock);
    int result = vmk_bus_gone(bus) || transmit(q, line, length) || transmit(q, "\n", 1) ? -ENODEV : 0;
    if (!result)
        result = await_reply(q, &reply, timeout_ns);
    if (result == -ETIMEDOUT)
        q->posted_accesses = ++q->posted; /* given up: its reply, should it come, is nobody's */
    else if (result == -EMSGSIZE || (result >= 0 && (unsigned)result >= size))
        result = -ENOSPC;
    else if (result >= 0) {
        memcpy(out, reply, (size_t)result);
        out[result] = '\0';
    }
    pthread_mutex_unlock(&q->lock);
    return result;
}

void vmk_qtest_processor(struct vmk_bus *bus, uint64_t memory, unsigned spin)
{
    struct qtest_bus *q = (struct qtest_bus *)bus;
    pthread_mutex_lock(&q->lock);
    if (!q->processor || !settle(q, 0)) {
        q->processor = spin ? vmk_mailbox_at((void *)memory) : NULL;
        vmk_mailbox_spin(vmk_mailbox_at((void *)memory), spin);
    }
    pthread_mutex_unlock(&q->lock);
}

struct vmk_bus *vmk_bus_qtest(int fd)
{
    static const struct vmk_bus_ops ops = {qtest_read,  qtest_read_rep, qtest_write, qtest_flush,
                                           qtest_cork, qtest_service,  qtest_close};
    struct qtest_bus *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->bus = (struct vmk_bus){.ops = &ops, .fd = fd};
    pthread_mutex_init(&q->lock, NULL);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* a blocking recv is one system call, not poll and recv */
    return &q->bus;
}
