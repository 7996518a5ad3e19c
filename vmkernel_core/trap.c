/* Traps: what kernel code may not do in user mode, and what it does to memory that is a device's.
 *
 * The signal handler only decodes. It lays a frame with all registers on the interrupted stack (kernel code is
 * built without a red zone) and resumes at vmk_trap_entry, which does the access as ordinary code: it may wait,
 * call Python, or stop the driver, none of which a signal handler may. It does not return by way of the kernel
 * (rt_sigreturn), which costs as much as the rest: no signal is blocked meanwhile, and kernel code has nothing in vector
 * registers. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "vmkernel_core/core.h"

#define WINDOWS_BASE 0x200000000000ull
#define WINDOWS_SIZE (1ull << 36)
#define MAX_WINDOWS 64
/* Accesses to a device that has gone which are no loop yet. */
#define DEAD_ACCESSES 1000
#define KERNEL_CODE_END (1ull << 32)

enum access_kind { MMIO_READ, MMIO_WRITE, PORT_READ, PORT_WRITE, PORT_READ_STRING, PORT_WRITE_STRING };
enum { RCX = 1, RSI = 6, RDI = 7 }; /* places in gpr[] */

struct window {
    uint64_t virt, length, address;
    struct vmk_bus *bus;
    uint64_t *read; /* a bit for each word of 4 bytes that was ever read */
    uint64_t dead_until; /* 0 while the device is there; then when its driver must have stopped asking it */
    uint64_t asked; /* accesses since */
    uint64_t commands; /* writes to the first so many bytes are waited for */
};

/* Order of gpr[] is the machine's own register number. */
struct trap_frame {
    uint64_t gpr[16];
    uint64_t eflags;
    uint64_t resume; /* address of the slot that holds the next instruction's */
    uint64_t address, value; /* value: what is written; how often, for a string */
    uint32_t kind, size, reg, width; /* width: how a read is stored: 1, 2, 4 or 8; + 16 sign-extends */
    uint32_t high_byte, repeated;
};

struct decoded {
    uint32_t kind, size, reg, width, high_byte, repeated;
    uint64_t value;
    uint16_t port;
    unsigned length;
};

extern char vmk_trap_entry[];
void vmk_trap_emulate(struct trap_frame *frame);

static const int ucontext_reg[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static struct window windows[MAX_WINDOWS];
static pthread_mutex_t windows_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vmk_bus *ports;
static uint64_t ports_read[65536 / 64]; /* a bit for each port that was ever read */
static struct vmk_trap_stats stats;
static struct vmk_bug *bugs;
static uint64_t bug_count;
static struct sigaction old_segv, old_ill, old_bus, old_fpe;
static bool installed;

#define SIGN_EXTEND 16

__asm__(".text\n"
        ".globl vmk_trap_entry\n"
        ".hidden vmk_trap_entry\n"
        "vmk_trap_entry:\n"
        "  mov %rsp, %rdi\n"
        "  cld\n"
        "  call vmk_trap_emulate\n"
        "  mov 0(%rsp), %rax\n"
        "  mov 8(%rsp), %rcx\n"
        "  mov 16(%rsp), %rdx\n"
        "  mov 24(%rsp), %rbx\n"
        "  mov 40(%rsp), %rbp\n"
        "  mov 48(%rsp), %rsi\n"
        "  mov 56(%rsp), %rdi\n"
        "  mov 64(%rsp), %r8\n"
        "  mov 72(%rsp), %r9\n"
        "  mov 80(%rsp), %r10\n"
        "  mov 88(%rsp), %r11\n"
        "  mov 96(%rsp), %r12\n"
        "  mov 104(%rsp), %r13\n"
        "  mov 112(%rsp), %r14\n"
        "  mov 120(%rsp), %r15\n"
        "  pushq 128(%rsp)\n"
        "  popfq\n"
        "  mov 136(%rsp), %rsp\n"
        "  ret\n");

/* ---- windows ---- */

uint64_t vmk_window_open(struct vmk_bus *bus, uint64_t address, uint64_t length)
{
    static uint64_t next = WINDOWS_BASE;
    uint64_t virt = 0, pages = (length + (address & 4095) + 4095) & ~4095ull;
    pthread_mutex_lock(&windows_lock);
    for (int i = 0; i < MAX_WINDOWS && !virt; i++) {
        if (windows[i].length)
            continue;
        /* Addresses are not used again: a stale pointer faults instead of reaching another device. */
        if (next + pages > WINDOWS_BASE + WINDOWS_SIZE || vmk_map(next, pages, PROT_NONE, 0, -1, 0))
            break;
        uint64_t *read = calloc(length / 256 + 1, sizeof *read);
        if (!read) {
            vmk_unmap(next, pages);
            break;
        }
        virt = next + (address & 4095);
        windows[i] = (struct window){.virt = virt, .length = length, .address = address, .bus = bus, .read = read};
        next += pages + 4096;
    }
    pthread_mutex_unlock(&windows_lock);
    return virt;
}

int vmk_window_close(uint64_t virt)
{
    int error = -ENOENT;
    pthread_mutex_lock(&windows_lock);
    for (int i = 0; i < MAX_WINDOWS; i++)
        if (windows[i].length && windows[i].virt == virt) {
            uint64_t pages = (windows[i].length + (virt & 4095) + 4095) & ~4095ull;
            error = vmk_unmap(virt & ~4095ull, pages);
            free(windows[i].read);
            windows[i] = (struct window){0};
        }
    pthread_mutex_unlock(&windows_lock);
    return error;
}

static struct window *window_at(uint64_t virt)
{
    for (int i = 0; i < MAX_WINDOWS; i++)
        if (virt >= windows[i].virt && virt < windows[i].virt + windows[i].length)
            return &windows[i];
    return NULL;
}

void vmk_window_commands(uint64_t virt, uint64_t length)
{
    struct window *window = window_at(virt);
    if (window)
        window->commands = length;
}

void vmk_port_bus(struct vmk_bus *bus) { ports = bus; }

void vmk_windows_dead(struct vmk_bus *bus, uint64_t address, uint64_t length, uint64_t limit_ns)
{
    pthread_mutex_lock(&windows_lock);
    for (int i = 0; i < MAX_WINDOWS; i++)
        if (windows[i].length && windows[i].bus == bus && windows[i].address >= address &&
            windows[i].address < address + length)
            windows[i].dead_until = vmk_now() + limit_ns;
    pthread_mutex_unlock(&windows_lock);
}

/* Whether the window's device has gone. A driver that waits for it in a loop is stopped in the end. */
static bool is_dead(struct window *window)
{
    if (!window->dead_until)
        return false;
    if (++window->asked > DEAD_ACCESSES && vmk_now() > window->dead_until && vmk_in_kernel())
        vmk_stop(VMK_STOP_GONE, vmk_owner(), window->address);
    return true;
}

uint64_t vmk_io_read(uint64_t virt, unsigned size)
{
    struct window *window = window_at(virt);
    if (window) {
        uint64_t offset = virt - window->virt;
        stats.reads++;
        if (is_dead(window))
            return vmk_all_ones(size);
        window->read[offset / 256] |= 1ull << offset / 4 % 64;
        return vmk_bus_read(window->bus, VMK_SPACE_MEMORY, window->address + offset, size);
    }
    uint64_t value = 0;
    memcpy(&value, (void *)virt, size);
    return value;
}

void vmk_io_write(uint64_t virt, unsigned size, uint64_t value)
{
    struct window *window = window_at(virt);
    if (window) {
        uint64_t offset = virt - window->virt;
        stats.writes++;
        if (is_dead(window))
            return;
        vmk_bus_write(window->bus, VMK_SPACE_MEMORY, window->address + offset, size, value);
        if (offset < window->commands || window->read[offset / 256] >> offset / 4 % 64 & 1)
            vmk_bus_flush(window->bus);
    } else {
        memcpy((void *)virt, &value, size);
    }
}

uint64_t vmk_port_read(uint16_t port, unsigned size)
{
    stats.ports++;
    ports_read[port / 64] |= 1ull << port % 64;
    return ports ? vmk_bus_read(ports, VMK_SPACE_IO, port, size) : vmk_all_ones(size);
}

void vmk_port_write(uint16_t port, unsigned size, uint64_t value)
{
    stats.ports++;
    if (!ports)
        return;
    vmk_bus_write(ports, VMK_SPACE_IO, port, size, value);
    if (ports_read[port / 64] >> port % 64 & 1)
        vmk_bus_flush(ports);
}

void vmk_trap_stats(struct vmk_trap_stats *out) { *out = stats; }

/* ---- the access, outside the signal handler ---- */

static void store_register(struct trap_frame *frame, uint64_t value)
{
    uint64_t *reg = &frame->gpr[frame->high_byte ? frame->reg - 4 : frame->reg];
    unsigned width = frame->width & 15;
    if (frame->width & SIGN_EXTEND) {
        unsigned shift = 64 - frame->size * 8;
        value = (uint64_t)((int64_t)(value << shift) >> shift);
    }
    if (frame->high_byte)
        *reg = (*reg & ~0xff00ull) | (value & 0xff) << 8;
    else if (width == 1)
        *reg = (*reg & ~0xffull) | (value & 0xff);
    else if (width == 2)
        *reg = (*reg & ~0xffffull) | (value & 0xffff);
    else
        *reg = width == 4 ? (uint32_t)value : value;
}

/* ins and outs, upwards: kernel code keeps the direction flag clear. */
static void port_string(struct trap_frame *frame)
{
    bool in = frame->kind == PORT_READ_STRING;
    uint64_t *at = &frame->gpr[in ? RDI : RSI];
    for (uint64_t left = frame->value; left--; *at += frame->size) {
        uint64_t value = 0;
        if (in) {
            value = vmk_port_read((uint16_t)frame->address, frame->size);
            memcpy((void *)*at, &value, frame->size);
        } else {
            memcpy(&value, (void *)*at, frame->size);
            vmk_port_write((uint16_t)frame->address, frame->size, value);
        }
    }
    if (frame->repeated)
        frame->gpr[RCX] = 0;
}

void vmk_trap_emulate(struct trap_frame *frame)
{
    vmk_tick();
    switch (frame->kind) {
    case MMIO_READ:
        store_register(frame, vmk_io_read(frame->address, frame->size));
        break;
    case MMIO_WRITE:
        vmk_io_write(frame->address, frame->size, frame->value);
        break;
    case PORT_READ:
        store_register(frame, vmk_port_read((uint16_t)frame->address, frame->size));
        break;
    case PORT_WRITE:
        vmk_port_write((uint16_t)frame->address, frame->size, frame->value);
        break;
    default:
        port_string(frame);
    }
}

/* ---- decoding (Intel SDM volume 2, chapter 2 and the opcode map of appendix A) ---- */

static uint64_t masked(uint64_t value, unsigned size) { return value & vmk_all_ones(size); }

static unsigned modrm_length(const uint8_t *at)
{
    unsigned mod = at[0] >> 6, rm = at[0] & 7, length = 1;
    if (mod == 3)
        return 0;
    if (rm == 4) {
        if (mod == 0 && (at[1] & 7) == 5)
            length += 4;
        length++;
    } else if (mod == 0 && rm == 5) {
        length += 4;
    }
    return length + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

/* 6c/6d ins, 6e/6f outs. */
static bool decode_string(const greg_t *g, const uint8_t *code, unsigned prefix, bool word, bool repeated,
                          struct decoded *out)
{
    uint8_t op = code[0];
    if (op < 0x6c || op > 0x6f)
        return false;
    *out = (struct decoded){.kind = op & 2 ? PORT_WRITE_STRING : PORT_READ_STRING,
                            .size = op & 1 ? (word ? 2 : 4) : 1, .repeated = repeated,
                            .value = repeated ? (uint64_t)g[REG_RCX] : 1,
                            .port = (uint16_t)g[REG_RDX], .length = prefix + 1};
    return true;
}

static bool decode_port(const greg_t *g, const uint8_t *code, unsigned prefix, bool word, struct decoded *out)
{
    uint8_t op = code[0];
    bool immediate = op >= 0xe4 && op <= 0xe7;
    if (!immediate && (op < 0xec || op > 0xef))
        return false;
    unsigned size = op & 1 ? (word ? 2 : 4) : 1;
    *out = (struct decoded){.kind = op & 2 ? PORT_WRITE : PORT_READ, .size = size, .width = size,
                            .value = masked((uint64_t)g[REG_RAX], size),
                            .port = immediate ? code[1] : (uint16_t)g[REG_RDX],
                            .length = prefix + (immediate ? 2 : 1)};
    return true;
}

/* A mov between memory and a register or an immediate; 0f b6/b7/be/bf with their extension. */
static bool decode(const greg_t *g, const uint8_t *code, struct decoded *out)
{
    unsigned at = 0, rex = 0;
    bool word = false, repeated = false;
    for (; code[at] == 0x66 || code[at] == 0xf3; at++) {
        word |= code[at] == 0x66;
        repeated |= code[at] == 0xf3;
    }
    if (decode_string(g, code + at, at, word, repeated, out))
        return true;
    if (repeated)
        return false;
    if ((code[at] & 0xf0) == 0x40)
        rex = code[at++];
    if (decode_port(g, code + at, at, word, out))
        return true;
    unsigned natural = rex & 8 ? 8 : word ? 2 : 4;
    uint8_t op = code[at++];
    *out = (struct decoded){.kind = MMIO_READ, .size = natural, .width = natural};
    bool immediate = false, byte_reg = false;
    switch (op) {
    case 0x0f:
        op = code[at++];
        if (op != 0xb6 && op != 0xb7 && op != 0xbe && op != 0xbf)
            return false;
        out->size = op & 1 ? 2 : 1;
        if (op >= 0xbe)
            out->width |= SIGN_EXTEND;
        break;
    case 0x63: /* movsxd */
        out->size = 4;
        out->width |= SIGN_EXTEND;
        break;
    case 0x8b:
        break;
    case 0x8a:
        out->size = out->width = 1;
        byte_reg = true;
        break;
    case 0x89:
    case 0xc7:
        out->kind = MMIO_WRITE;
        immediate = op == 0xc7;
        break;
    case 0x88:
    case 0xc6:
        out->kind = MMIO_WRITE;
        out->size = 1;
        immediate = op == 0xc6;
        byte_reg = !immediate;
        break;
    default:
        return false;
    }
    unsigned length = modrm_length(code + at);
    if (!length)
        return false;
    out->reg = (code[at] >> 3 & 7) | (rex & 4) << 1;
    out->high_byte = byte_reg && !rex && out->reg >= 4;
    at += length;
    if (immediate) {
        int32_t value = 0;
        unsigned bytes = out->size < 4 ? out->size : 4;
        memcpy(&value, code + at, bytes);
        at += bytes;
        out->value = masked((uint64_t)(int64_t)value, out->size);
    } else if (out->kind == MMIO_WRITE) {
        uint64_t reg = (uint64_t)g[ucontext_reg[out->high_byte ? out->reg - 4 : out->reg]];
        out->value = masked(out->high_byte ? reg >> 8 : reg, out->size);
    }
    out->length = at;
    return true;
}

static _Noreturn void divert(const ucontext_t *context, const struct decoded *d, uint64_t address)
{
    const greg_t *g = context->uc_mcontext.gregs;
    uint64_t slot = (uint64_t)g[REG_RSP] - 8;
    struct trap_frame *frame = (struct trap_frame *)((slot - sizeof *frame) & ~15ull);
    *(uint64_t *)slot = (uint64_t)g[REG_RIP] + d->length;
    for (int i = 0; i < 16; i++)
        frame->gpr[i] = (uint64_t)g[ucontext_reg[i]];
    frame->eflags = (uint64_t)g[REG_EFL];
    frame->resume = slot;
    frame->address = address;
    frame->value = d->value;
    frame->kind = d->kind;
    frame->size = d->size;
    frame->reg = d->reg;
    frame->width = d->width;
    frame->high_byte = d->high_byte;
    frame->repeated = d->repeated;
    /* What the psABI has calls preserve, and a signal sets to its defaults. */
    __asm__ volatile("ldmxcsr %0\n\tfldcw %1"
                     :
                     : "m"(context->uc_mcontext.fpregs->mxcsr), "m"(context->uc_mcontext.fpregs->cwd));
    __asm__ volatile("mov %0, %%rsp\n\tjmp vmk_trap_entry" : : "r"(frame) : "memory");
    __builtin_unreachable();
}

/* ---- signals ---- */

static void pass_down(int signal)
{
    const struct sigaction *old = signal == SIGSEGV ? &old_segv
                                  : signal == SIGILL ? &old_ill
                                  : signal == SIGBUS ? &old_bus
                                                     : &old_fpe;
    sigaction(signal, old, NULL); /* the instruction runs again and meets whoever was here before */
}

static const struct vmk_bug *bug_at(uint64_t address)
{
    uint64_t low = 0, high = bug_count;
    while (low < high) {
        uint64_t middle = (low + high) / 2;
        if (bugs[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < bug_count && bugs[low].address == address ? &bugs[low] : NULL;
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)g[REG_RIP], address = (uint64_t)info->si_addr;
    const uint8_t *code = (const uint8_t *)rip;
    struct decoded d;
    if (!vmk_in_kernel() || rip >= KERNEL_CODE_END) {
        pass_down(signal);
        return;
    }
    if (signal == SIGSEGV && rip != address) {
        if (code[0] == 0xfa || code[0] == 0xfb) { /* cli, sti */
            vmk_interrupt_flag = code[0] == 0xfb ? 0x200 : 0;
            g[REG_RIP]++;
            return;
        }
        if (code[0] == 0xf4) { /* hlt: there is always something else to do */
            g[REG_RIP]++;
            return;
        }
        if (decode(g, code, &d)) {
            if (d.kind >= PORT_READ)
                divert(context, &d, d.port);
            if (window_at(address))
                divert(context, &d, address);
        } else if (info->si_code == SI_KERNEL) { /* general protection, and no memory access: privileged */
            vmk_stop(VMK_STOP_ILLEGAL, (uint32_t)rip, address);
        }
        if (window_at(address))
            vmk_stop(VMK_STOP_ILLEGAL, (uint32_t)rip, address);
    }
    vmk_stop(VMK_STOP_FAULT, (uint32_t)rip, address);
}

#define BUGFLAG_WARNING 1 /* Linux include/linux/bug.h */

static void on_illegal(int signal, siginfo_t *info, void *context)
{
    (void)info;
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t rip = (uint64_t)g[REG_RIP];
    if (!vmk_in_kernel() || rip >= KERNEL_CODE_END) {
        pass_down(signal);
        return;
    }
    const struct vmk_bug *bug = bug_at(rip);
    if (!bug)
        vmk_stop(VMK_STOP_ILLEGAL, (uint32_t)rip, 0);
    if (!(bug->flags & BUGFLAG_WARNING))
        vmk_stop(VMK_STOP_BUG, (uint32_t)rip, 0);
    vmk_event_put(VMK_EVENT_WARN, (uint32_t)rip, 0);
    g[REG_RIP] += 2; /* past ud2 */
}

static void on_divide(int signal, siginfo_t *info, void *context)
{
    (void)info;
    uint64_t rip = (uint64_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    if (!vmk_in_kernel() || rip >= KERNEL_CODE_END)
        pass_down(signal);
    else
        vmk_stop(VMK_STOP_ILLEGAL, (uint32_t)rip, 0);
}

static int take_signal(int signal, void (*handler)(int, siginfo_t *, void *), struct sigaction *old)
{
    struct sigaction now, action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(signal, NULL, &now))
        return -errno;
    if (now.sa_sigaction == handler)
        return 0;
    *old = now;
    return sigaction(signal, &action, NULL) ? -errno : 0;
}

int vmk_traps_install(void)
{
    int error;
    if ((error = take_signal(SIGSEGV, on_fault, &old_segv)) || (error = take_signal(SIGBUS, on_fault, &old_bus)) ||
        (error = take_signal(SIGILL, on_illegal, &old_ill)) || (error = take_signal(SIGFPE, on_divide, &old_fpe)))
        return error;
    installed = true;
    return 0;
}

void vmk_traps_keep(void)
{
    if (installed)
        take_signal(SIGSEGV, on_fault, &old_segv);
}

/* ---- the bug table ---- */

static int by_address(const void *a, const void *b)
{
    uint32_t x = ((const struct vmk_bug *)a)->address, y = ((const struct vmk_bug *)b)->address;
    return (x > y) - (x < y);
}

int vmk_bugs_add(const struct vmk_bug *more, uint64_t count)
{
    struct vmk_bug *grown = realloc(bugs, (bug_count + count + 1) * sizeof *bugs);
    if (!grown)
        return -ENOMEM;
    bugs = grown;
    memcpy(bugs + bug_count, more, count * sizeof *bugs);
    bug_count += count;
    qsort(bugs, bug_count, sizeof *bugs, by_address);
    return 0;
}

void vmk_bugs_remove(uint32_t low, uint32_t high)
{
    uint64_t kept = 0;
    for (uint64_t i = 0; i < bug_count; i++)
        if (bugs[i].address < low || bugs[i].address >= high)
            bugs[kept++] = bugs[i];
    bug_count = kept;
}
