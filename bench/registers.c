/* Registers of a card over QEMU's qtest protocol: one line a command, one line a reply. Replies to writes are not waited
 * for, only counted; that of a write comes once QEMU has done what it starts. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bench.h"
#include "registers.h"

#define LIMIT_MS 10000
#define UNREAD_MOST 64

bool registers_replies(struct registers *to, bool wait)
{
    struct pollfd readable = {.fd = to->fd, .events = POLLIN};
    if (wait && poll(&readable, 1, LIMIT_MS) <= 0)
        return false;
    size_t room = sizeof to->reply - to->have;
    ssize_t got = recv(to->fd, to->reply + to->have, room, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    char *line = to->reply, *end = to->reply + to->have + got, *stop;
    for (; (stop = memchr(line, '\n', (size_t)(end - line))); line = stop + 1) {
        to->unread--;
        to->value = strncmp(line, "OK 0x", 5) ? 0 : (uint32_t)strtoull(line + 3, NULL, 16);
    }
    to->have = (size_t)(end - line);
    memmove(to->reply, line, to->have);
    return to->have < sizeof to->reply;
}

bool registers_flush(struct registers *to)
{
    size_t length = to->length;
    to->length = 0;
    if (length && send(to->fd, to->text, length, MSG_NOSIGNAL) != (ssize_t)length)
        return false;
    return to->unread < UNREAD_MOST || registers_replies(to, false);
}

static bool write_with(struct registers *to, const char *command, unsigned offset, uint32_t value)
{
    if (to->length > sizeof to->text - 64 && !registers_flush(to))
        return false;
    to->length += (size_t)snprintf(to->text + to->length, 64, "%s 0x%llx 0x%x\n", command,
                                   (unsigned long long)(to->bar + offset), value);
    to->writes++;
    to->unread++;
    return true;
}

bool registers_write(struct registers *to, unsigned offset, uint32_t value)
{
    return write_with(to, "writel", offset, value);
}

bool registers_write16(struct registers *to, unsigned offset, uint32_t value)
{
    return write_with(to, "writew", offset, value);
}

bool registers_settle(struct registers *to)
{
    if (!registers_flush(to))
        return false;
    while (to->unread)
        if (!registers_replies(to, true))
            return false;
    return true;
}

bool registers_read(struct registers *to, unsigned offset, uint32_t *value)
{
    if (to->length > sizeof to->text - 64 && !registers_flush(to))
        return false;
    to->length +=
        (size_t)snprintf(to->text + to->length, 64, "readl 0x%llx\n", (unsigned long long)(to->bar + offset));
    to->reads++;
    to->unread++;
    bool there = registers_settle(to);
    *value = to->value;
    return there;
}
