/* The program in the Linux guest: keeps so many transfers of a disk under way, by the kernel's own asynchronous interface
 * (Linux, include/uapi/linux/aio_abi.h) and without its page cache.
 *
 * disk_loop DEVICE SIZE DEPTH WRITE COUNT BLOCKS prints how many transfers a second it did, or what failed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DEPTH_MOST 64
#define BLOCK 512

static int fail(const char *what)
{
    printf("failed %s: %s\n", what, strerror(errno));
    return 1;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 7)
        return 2;
    long size = atol(argv[2]), depth = atol(argv[3]), write = atol(argv[4]), count = atol(argv[5]);
    long places = atol(argv[6]) * BLOCK / size;
    int fd = open(argv[1], O_RDWR | O_DIRECT);
    aio_context_t context = 0;
    void *memory;
    struct iocb commands[DEPTH_MOST], *batch[DEPTH_MOST];
    struct io_event events[DEPTH_MOST];
    if (fd < 0 || depth > DEPTH_MOST)
        return fail("open");
    if (syscall(SYS_io_setup, depth, &context) || posix_memalign(&memory, 4096, (size_t)(size * depth)))
        return fail("io_setup");
    memset(memory, 0xa5, (size_t)(size * depth));
    for (long i = 0; i < depth; i++) {
        commands[i] = (struct iocb){
            .aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD, .aio_fildes = (uint32_t)fd, .aio_data = (uint64_t)i,
            .aio_buf = (uint64_t)memory + (uint64_t)(i * size), .aio_nbytes = (uint64_t)size};
        events[i].data = (uint64_t)i;
    }
    double began = now();
    for (long begun = 0, ended = 0, unused = depth; ended < count; ended += unused) {
        long batched = 0;
        for (; batched < unused && begun < count; batched++, begun++) {
            batch[batched] = &commands[events[batched].data];
            batch[batched]->aio_offset = begun % places * size;
        }
        for (long sent = 0, taken; sent < batched; sent += taken)
            if ((taken = syscall(SYS_io_submit, context, batched - sent, batch + sent)) <= 0)
                return fail("io_submit");
        unused = syscall(SYS_io_getevents, context, 1L, depth, events, NULL);
        if (unused <= 0)
            return fail("io_getevents");
        for (long i = 0; i < unused; i++)
            if (events[i].res != size) {
                errno = (int)-events[i].res;
                return fail("a transfer");
            }
    }
    printf("%f\n", (double)count / (now() - began));
    return 0;
}
