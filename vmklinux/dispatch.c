/* The tables that tie the C half to one kernel, and the thunks through which kernel code calls us. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "vmklinux/linux.h"

#define THUNK_SIZE 48

uint32_t linux_field[LINUX_FIELD_COUNT], linux_size[LINUX_SIZE_COUNT];
int64_t linux_enum[LINUX_ENUM_COUNT];
uint64_t linux_symbol[LINUX_SYMBOL_COUNT];
struct linux_bits linux_bits[LINUX_BITS_COUNT];

#define ENTRY3(a, b, name) name,
#define ENTRY2(a, name) name,
static const char *const field_names[] = {LINUX_FIELDS(ENTRY3) NULL};
static const char *const bits_names[] = {LINUX_BITS(ENTRY3) NULL};
static const char *const size_names[] = {LINUX_SIZES(ENTRY2) NULL};
static const char *const enum_names[] = {LINUX_ENUMS(ENTRY2) NULL};
static const char *const symbol_names[] = {LINUX_SYMBOLS(ENTRY2) NULL};

const char *linux_field_name(unsigned index) { return field_names[index]; }
const char *linux_bits_name(unsigned index) { return bits_names[index]; }
const char *linux_size_name(unsigned index) { return size_names[index]; }
const char *linux_enum_name(unsigned index) { return enum_names[index]; }
const char *linux_symbol_name(unsigned index) { return symbol_names[index]; }
void linux_field_set(unsigned index, uint32_t offset) { linux_field[index] = offset; }
void linux_size_set(unsigned index, uint32_t size) { linux_size[index] = size; }
void linux_enum_set(unsigned index, int64_t value) { linux_enum[index] = value; }
void linux_symbol_set(unsigned index, uint64_t address) { linux_symbol[index] = address; }

void linux_bits_set(unsigned index, uint32_t bit_offset, uint32_t width)
{
    linux_bits[index] = bit_offset == LINUX_ABSENT
                            ? (struct linux_bits){LINUX_ABSENT, 0, 0}
                            : (struct linux_bits){bit_offset / 8, bit_offset % 8, (1u << width) - 1};
}

#define LINUX_TABLE(name) name##_api,
static const struct linux_api *const tables[] = {LINUX_TABLES(LINUX_TABLE) NULL};

const struct linux_api *linux_api_c(unsigned index)
{
    for (const struct linux_api *const *table = tables; *table; table++)
        for (const struct linux_api *api = *table; api->name; api++)
            if (!index--)
                return api;
    return NULL;
}

/* ---- thunks ---- */

static uint8_t *thunk_next, *thunk_end;

int linux_python_call(uint32_t index, struct linux_regs *regs);
void linux_python_entry(void);
void linux_missing_entry(void);

int linux_thunks_init(uint64_t address, uint64_t length)
{
    int error = vmk_map(address, length, PROT_READ | PROT_WRITE | PROT_EXEC, 0, -1, 0);
    thunk_next = (uint8_t *)address;
    thunk_end = error ? thunk_next : thunk_next + length;
    return error;
}

static uint8_t *thunk_new(void)
{
    uint8_t *thunk = thunk_next;
    if (thunk + THUNK_SIZE > thunk_end)
        return NULL;
    thunk_next += THUNK_SIZE;
    return thunk;
}

uint64_t linux_thunk_c(void *function)
{
    /* push %rbp; mov %rsp,%rbp; and $-16,%rsp; movabs $function,%rax; call *%rax; leave; ret */
    static const uint8_t head[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xf0, 0x48, 0xb8};
    static const uint8_t tail[] = {0xff, 0xd0, 0xc9, 0xc3};
    uint8_t *thunk = thunk_new();
    if (!thunk)
        return 0;
    memcpy(thunk, head, sizeof head);
    memcpy(thunk + sizeof head, &function, 8);
    memcpy(thunk + sizeof head + 8, tail, sizeof tail);
    return (uint64_t)thunk;
}

static uint64_t thunk_indexed(uint32_t index, void (*entry)(void))
{
    /* mov $index,%eax; movabs $entry,%r11; jmp *%r11 */
    uint8_t *thunk = thunk_new();
    if (!thunk)
        return 0;
    thunk[0] = 0xb8;
    memcpy(thunk + 1, &index, 4);
    memcpy(thunk + 5, (uint8_t[]){0x49, 0xbb}, 2);
    memcpy(thunk + 7, &entry, 8);
    memcpy(thunk + 15, (uint8_t[]){0x41, 0xff, 0xe3}, 3);
    return (uint64_t)thunk;
}

uint64_t linux_thunk_python(uint32_t index) { return thunk_indexed(index, linux_python_entry); }
uint64_t linux_thunk_missing(uint32_t index) { return thunk_indexed(index, linux_missing_entry); }

void linux_patch_jump(uint64_t address, uint64_t target)
{
    int32_t distance = (int32_t)(target - (address + 5));
    *(uint8_t *)address = 0xe9;
    memcpy((uint8_t *)address + 1, &distance, 4);
}

/* struct linux_regs on an aligned stack; index in %eax. */
#define ENTRY(name, handler)                                                                                        \
    __asm__(".text\n.globl " #name "\n.hidden " #name "\n" #name ":\n"                                              \
            "  push %rbp\n  mov %rsp, %rbp\n  and $-16, %rsp\n  sub $80, %rsp\n"                                    \
            "  mov %rdi, (%rsp)\n  mov %rsi, 8(%rsp)\n  mov %rdx, 16(%rsp)\n"                                       \
            "  mov %rcx, 24(%rsp)\n  mov %r8, 32(%rsp)\n  mov %r9, 40(%rsp)\n"                                      \
            "  lea 16(%rbp), %rcx\n  mov %rcx, 48(%rsp)\n"                                                          \
            "  mov 8(%rbp), %rcx\n  mov %rcx, 56(%rsp)\n"                                                           \
            "  mov %eax, %edi\n  mov %rsp, %rsi\n  call " #handler "\n"                                             \
            "  mov 64(%rsp), %rax\n  leave\n  ret\n")
ENTRY(linux_python_entry, linux_python_dispatch);
ENTRY(linux_missing_entry, linux_missing_dispatch);

void linux_python_dispatch(uint32_t index, struct linux_regs *regs)
{
    if (linux_python_call(index, regs))
        vmk_stop(vmk_world_ending() ? VMK_STOP_ENDED : VMK_STOP_PYTHON, (uint32_t)regs->caller, index);
}

void linux_missing_dispatch(uint32_t index, struct linux_regs *regs)
{
    vmk_stop(VMK_STOP_UNRESOLVED, (uint32_t)regs->caller, index);
}

/* ---- start ---- */

static uint64_t task_new(void)
{
    static uint32_t next_pid = 1;
    uint64_t task = vmk_alloc(SIZE(task_struct), 0);
    if (!task)
        return 0;
    memset((void *)task, 0, SIZE(task_struct));
    FIELD(task, task_struct, pid, uint32_t) = next_pid++;
    memcpy(INNER(task, task_struct, comm), "world", 6);
    return task;
}

static void task_free(uint64_t task) { vmk_free(task); }

uint64_t linux_nothing(void) { return 0; }

__asm__(".text\n"
        ".globl linux_save_fl\nlinux_save_fl:\n  mov vmk_interrupt_flag@GOTPCREL(%rip), %rax\n  mov (%rax), %rax\n  ret\n"
        ".globl linux_irq_disable\nlinux_irq_disable:\n  mov vmk_interrupt_flag@GOTPCREL(%rip), %rax\n"
        "  movq $0, (%rax)\n  ret\n"
        ".globl linux_irq_enable\nlinux_irq_enable:\n  mov vmk_interrupt_flag@GOTPCREL(%rip), %rax\n"
        "  movq $0x200, (%rax)\n  ret\n");

void linux_stop(void)
{
    linux_jiffies_stop();
    vmk_softirqs[VMK_SOFTIRQ_LINUX] = (struct vmk_softirq){NULL, NULL};
    vmk_task_new = NULL;
    vmk_task_free = NULL;
}

void linux_start(unsigned hz)
{
    linux_jiffies_start(hz);
    vmk_task_new = task_new;
    vmk_task_free = task_free;
    linux_napi_start();
    linux_softirq_start();
}
