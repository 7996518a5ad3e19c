/* The C core's one seam: what Python (through cffi) and the C files of vmkernel_core/ and vmklinux/ call.
 *
 * Everything between the two CDEF marks is read by cffi too, so it holds plain C declarations only.
 * Rules of the seam:
 *  - cffi releases the GIL around every call; nothing here may be called with the baton's order reversed:
 *    the GIL is never held while waiting for the baton.
 *  - Addresses are uint64_t in Python and here; sizes are in bytes, times in nanoseconds of CLOCK_MONOTONIC.
 *  - "kernel code" is code of the kernel image or of a Linux module; it runs only inside vmk_call() or at a
 *    delivery point (vmk_deliver), and only in the world that holds the baton.
 */
#ifndef VMK_CORE_H
#define VMK_CORE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- CDEF ---- */

/* ---- memory.c: address space and machine memory ------------------------------------------------------- */

/* Keeps a range, once in a process, for vmk_map alone; 0 or -errno. Without it whatever grows may be there before. */
int vmk_hold(uint64_t address, uint64_t length);

/* Maps at a fixed address and fails rather than replace anything. fd -1: anonymous, zeroed.
 * Returns 0 or -errno. prot is PROT_*; shared chooses MAP_SHARED. */
int vmk_map(uint64_t address, uint64_t length, int prot, int shared, int fd, uint64_t offset);
int vmk_unmap(uint64_t address, uint64_t length);

/* Machine memory: [base, base+size) is the mapping of one memfd; DMA address = address - base.
 * The first `reserved` bytes are never allocated. Returns 0 or -errno. */
int vmk_memory_init(uint64_t base, uint64_t size, uint64_t reserved);
void vmk_memory_fini(void);

/* Whole pages: 2^order of them, naturally aligned, not cleared. 0 when there is no room.
 * `site` is the code address that asked (low 32 bits; all kernel code lies below 4 GiB): its owner. */
uint64_t vmk_pages_alloc(unsigned order, uint32_t site);
/* A run of `bytes` (rounded up to a power of two of pages), page aligned; counts as one allocation. 0 when there is no room. */
uint64_t vmk_run_alloc(uint64_t bytes, uint32_t site);
/* Small objects: naturally aligned for powers of two, at least 8. 0 when there is no room. */
uint64_t vmk_alloc(uint64_t bytes, uint32_t site);
/* Frees what any of the three gave. 0, or -EINVAL when nothing is allocated there (a double free, a stray pointer). */
int vmk_free(uint64_t address);
/* The same by any address inside the allocation. */
int vmk_free_around(uint64_t address);
/* Whether an address lies in what vmk_pages_alloc gave. */
bool vmk_in_pages(uint64_t address);
/* Usable size of an allocation, 0 when there is none at the address. */
uint64_t vmk_alloc_size(uint64_t address);

struct vmk_allocation { uint64_t address; uint64_t size; uint32_t site; uint32_t kind; }; /* kind: 0 object, 1 pages, 2 run */
/* Fills at most `max` records of live allocations whose site is in [low, high); returns how many there are. */
uint64_t vmk_allocations(uint32_t low, uint32_t high, struct vmk_allocation *out, uint64_t max);
/* Frees all allocations whose site is in [low, high): what a driver left. Returns how many. */
uint64_t vmk_free_owned(uint32_t low, uint32_t high);
/* A piece of machine memory: where it begins, as a device sees it, and its bytes. */
struct vmk_sg_elem { uint64_t address, length; };
struct vmk_memory_stats { uint64_t size, pages_total, pages_free, objects, bytes; };
void vmk_memory_stats(struct vmk_memory_stats *out);

/* ---- bus.c: where registers are reached --------------------------------------------------------------- */

/* Spaces of a bus. */
enum { VMK_SPACE_MEMORY = 0, VMK_SPACE_IO = 1 };
struct vmk_bus;
uint64_t vmk_bus_read(struct vmk_bus *bus, int space, uint64_t address, unsigned size);
/* The same register so often, one value after the other as a FIFO gives them, in one exchange where the bus can. */
void vmk_bus_read_rep(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t *values, unsigned count);
void vmk_bus_write(struct vmk_bus *bus, int space, uint64_t address, unsigned size, uint64_t value);
/* The same for a FIFO, which is written several times in a row. */
void vmk_bus_write_rep(struct vmk_bus *bus, int space, uint64_t address, unsigned size, const uint64_t *values, unsigned count);
/* Reads and writes of all buses since the process started, each of a run counted. */
uint64_t vmk_bus_accesses(void);
/* Waits until the device has all writes that were posted. */
void vmk_bus_flush(struct vmk_bus *bus);
/* While a bus is corked, posted writes may be collected; they go out together when it is uncorked, and before any read. */
void vmk_bus_cork(struct vmk_bus *bus, int on);
/* A descriptor that becomes readable when the bus has news (an interrupt, the end), or -1. */
int vmk_bus_fd(struct vmk_bus *bus);
/* Takes in the news that is there without waiting. 0, or -ENODEV once the other side has gone. */
int vmk_bus_service(struct vmk_bus *bus);
/* Whether the other side has gone; from then on reads give all ones and writes are dropped, as on PCI. */
int vmk_bus_gone(struct vmk_bus *bus);
void vmk_bus_close(struct vmk_bus *bus);

/* A bus over a connected qtest socket of QEMU's (bus_qtest.c). It owns the descriptor from here on. NULL: no memory.
 * Writes are posted: their replies are read with the next read. IRQ lines "IRQ raise N"/"IRQ lower N" end in vmk_irq_set_level. */
struct vmk_bus *vmk_bus_qtest(int fd);
/* Sends one line (no newline) and waits for its reply, IRQ lines aside, at most timeout_ns.
 * Copies the reply into out. Its length, -ENODEV, -ETIMEDOUT or -ENOSPC. */
int vmk_qtest_command(struct vmk_bus *bus, const char *line, char *out, unsigned size, uint64_t timeout_ns);
/* The 64 KiB image that QEMU's processor runs, and from then on its help: accesses go through a mailbox in the machine memory
 * mapped at `memory` while the processor is awake. `spin`: how often it looks before it halts; 0: leave it asleep, which is
 * better where it shares its only core with us. */
const char *vmk_firmware(void);
void vmk_qtest_processor(struct vmk_bus *bus, uint64_t memory, unsigned spin);
/* A bus that calls Python: vmk_python_bus_read/_write with this handle. */
struct vmk_bus *vmk_bus_python(void *handle);

/* ---- trap.c: MMIO windows, port I/O, faults ------------------------------------------------------------ */

/* Opens a window of `length` bytes on the bus at `address`; gives the virtual address at which kernel code
 * reaches it, or 0. Each access there traps and goes to the bus. */
uint64_t vmk_window_open(struct vmk_bus *bus, uint64_t address, uint64_t length);
int vmk_window_close(uint64_t virt);
/* The window begins with `length` bytes of command registers: what a write there asks for is done when the write returns. */
void vmk_window_commands(uint64_t virt, uint64_t length);
/* The device that decodes [address, address + length) of the bus has gone: windows there give all ones and take writes
 * without asking the bus. Kernel code that still asks after limit_ns, and asked often, is stopped: it waits for ever. */
void vmk_windows_dead(struct vmk_bus *bus, uint64_t address, uint64_t length, uint64_t limit_ns);
/* Where `in` and `out` of kernel code go. NULL: nowhere (all ones). */
void vmk_port_bus(struct vmk_bus *bus);
/* Explicit accesses, for ioread32 and the like: a window, or plain memory. A write to a
 * register that was ever read is waited for: an acknowledgement has to reach the device before the driver looks for what
 * came after, and a command before the driver adds to what it is about. */
uint64_t vmk_io_read(uint64_t virt, unsigned size);
void vmk_io_write(uint64_t virt, unsigned size, uint64_t value);

/* The same for I/O ports, on the bus of vmk_port_bus. */
uint64_t vmk_port_read(uint16_t port, unsigned size);
void vmk_port_write(uint16_t port, unsigned size, uint64_t value);

/* How many accesses trapped since the start. */
struct vmk_trap_stats { uint64_t reads, writes, ports; };
void vmk_trap_stats(struct vmk_trap_stats *out);

/* The bug table: sites of WARN and BUG, sorted by the program. flags as in struct bug_entry. */
struct vmk_bug { uint32_t address; uint32_t flags; };
int vmk_bugs_add(const struct vmk_bug *bugs, uint64_t count);
void vmk_bugs_remove(uint32_t low, uint32_t high);
/* Take the signals of faults, also back from whoever took them meanwhile (Python's faulthandler); 0 or -errno. */
int vmk_traps_install(void);
/* The same for that of accesses that trap, if it was taken before: vmk_service does so, before handlers run. */
void vmk_traps_keep(void);

/* ---- world.c: worlds, the baton, calls into kernel code ------------------------------------------------ */

enum vmk_stop {
    VMK_OK = 0,
    VMK_STOP_FAULT = 1,      /* an access to an address that is nobody's; detail = address, site = code */
    VMK_STOP_BUG = 2,        /* BUG(); site = code */
    VMK_STOP_UNRESOLVED = 3, /* a stub of an import that nobody serves; detail = import index, site = caller */
    VMK_STOP_PYTHON = 4,     /* a function implemented in Python raised; the exception waits in Python */
    VMK_STOP_ILLEGAL = 5,    /* an instruction that cannot run here; site = code */
    VMK_STOP_PANIC = 6,      /* an emulated function was misused, or __stack_chk_fail: site = caller */
    VMK_STOP_ENDED = 7,      /* vmk_world_end: nobody is to blame */
    VMK_STOP_GONE = 8        /* the device has gone, and the code does not stop asking it; detail = bus address */
};
/* What happened where no Python caller was there to be told; Python drains the queue. */
enum vmk_event_kind {
    VMK_EVENT_WARN = 1,         /* WARN() at site */
    VMK_EVENT_STOPPED = 2,      /* a driver was stopped inside an interrupt, softirq or timer: stop reason in stop */
    VMK_EVENT_NOBODY_CARED = 3, /* an interrupt line that nobody serves was disabled: detail = line */
    VMK_EVENT_LOST = 4          /* the queue was full: detail = how many events were lost */
};
struct vmk_event { uint32_t kind; uint32_t site; int32_t stop; uint32_t owner; uint64_t detail; };
/* 1 and the oldest event, or 0 when there is none. */
int vmk_event_next(struct vmk_event *out);

struct vmk_result { uint64_t value; int32_t stop; uint32_t site; uint64_t detail; uint32_t owner; };
/* Calls kernel code in this thread's world (made at the first call) with the baton held; delivers interrupts
 * afterwards. `owner` names, by any code address in it, the module on whose behalf it runs. */
void vmk_call(uint64_t function, const uint64_t args[6], uint32_t owner, struct vmk_result *out);
/* The baton by itself, for Python that touches kernel structures. They nest. */
void vmk_baton_take(void);
void vmk_baton_drop(void);
/* Sleeps without the baton, at most timeout_ns, or until vmk_world_wake(task). Remaining ns, 0 when it ran out. */
uint64_t vmk_world_sleep(uint64_t timeout_ns);
void vmk_world_wake(uint64_t task);
/* The world shall end: its sleeps return at once from now on, and who slept sees to it (vmk_world_ending) that the kernel code
 * there stops with VMK_STOP_ENDED. It cannot be undone; its thread is to end too. */
void vmk_world_end(uint64_t task);
bool vmk_world_ending(void);
/* What the world waits for has gone for good: for it time runs a hundred times as fast while it sleeps with a limit. */
void vmk_world_hurry(uint64_t task, bool on);
uint64_t vmk_world_task(void);
/* The code address on whose behalf this world runs: the module that kernel code was entered for, or 0. */
uint32_t vmk_owner(void);
/* What a host of Linux's per-CPU area tells the worlds: GS base, the places of current and preempt_count, and where
 * in a task the count of read-side sections (RCU) lies that it is inside of. */
struct vmk_cpu { uint64_t gs_base; uint64_t current_slot; uint64_t preempt_slot; uint64_t reading_offset; };
void vmk_cpu_set(const struct vmk_cpu *cpu);
/* Whether a world gave the CPU away inside a read-side section, or where it may not be preempted. With the baton. */
bool vmk_world_reading(void);
uint64_t vmk_now(void);

/* The idle loop's one step: without the baton waits for a bus, a kick or the deadline; then, with it, takes in
 * news, delivers interrupts and runs softirqs. Returns a mask of reasons: 1 deadline reached, 2 kicked, 4 a bus has gone,
 * 8 events wait. */
int vmk_idle(uint64_t deadline_ns);
void vmk_kick(void);
/* Module code lies at and above this address; the image's below. */
void vmk_modules_from(uint32_t address);
/* Waits without the baton, for a program: until a watched bus has news, this world's event was posted, or deadline_ns (0: it
 * does not wait). Then takes in the news and delivers. While somebody waits here, and a little longer, the idle loop leaves the buses alone. */
void vmk_attend(uint64_t deadline_ns);
/* The same, again and again, until *ended is not 0 or the deadline: whoever makes it so posts this world's event. */
void vmk_attend_until(const uint32_t *ended, uint64_t deadline_ns);
/* This world's event, for vmk_event_post from any thread; it stays posted until the world attends. */
int vmk_world_event(void);
void vmk_event_post(int event);
int vmk_idle_watch(struct vmk_bus *bus);
void vmk_idle_unwatch(struct vmk_bus *bus);

/* ---- interrupt.c ---------------------------------------------------------------------------------------- */

/* A pin's level changes (any thread, no baton needed). */
void vmk_irq_set_level(unsigned line, int level);
/* A message arrived (any thread, no baton needed): the line's handlers run once, later if it is disabled now. */
void vmk_irq_pulse(unsigned line);
/* Forgets a message that no handler has seen. */
void vmk_irq_unpulse(unsigned line);
/* handler: int (*)(int line, void *cookie) in kernel code or C; bit 0 of its result: handled. The first handler of a line finds
 * it enabled. 0, -EINVAL (no such line) or -ENOMEM. */
int vmk_irq_add(unsigned line, uint64_t handler, uint64_t cookie);
/* The same with a thread function of the same kind: it runs in the world of whoever calls vmk_irq_thread_run, after the
 * handler returned a result with bit 1 set; handler 0 always does. once: the line stays masked until it is done. NULL: -ENOMEM. */
struct vmk_irq_thread;
struct vmk_irq_thread *vmk_irq_add_threaded(unsigned line, uint64_t handler, uint64_t cookie, uint64_t function, int once);
/* Runs the thread function each time that it is wanted; returns, and frees the thread, once the handler was removed. */
void vmk_irq_thread_run(struct vmk_irq_thread *thread);
/* Makes a thread function run as if its handler had asked for it. 0 or -ENOENT. */
int vmk_irq_thread_wake(unsigned line, uint64_t cookie);
/* Waits, without the baton meanwhile, until no thread function of the line runs or is wanted. 0 or -ETIMEDOUT. */
int vmk_irq_sync(unsigned line, uint64_t timeout_ns);
/* A thread function that is wanted still runs; 0 or -ENOENT. */
int vmk_irq_remove(unsigned line, uint64_t cookie);
/* The same at once: a thread function that sleeps is ended where it sleeps, one that is wanted does not run. */
int vmk_irq_cut(unsigned line, uint64_t cookie);
/* Forgets every handler, level and count: a new machine begins. */
void vmk_irq_reset(void);
/* Nested disable and enable of a line, as Linux counts them. */
int vmk_irq_disable(unsigned line);
int vmk_irq_enable(unsigned line);
struct vmk_irq_stats { uint64_t delivered, unhandled; int32_t depth, level, pending; };
int vmk_irq_stats(unsigned line, struct vmk_irq_stats *out);

/* ---- message.c: message interrupts ---------------------------------------------------------------------- */

/* A bus without registers, to be watched by the idle loop: its news are eventfds that were written. NULL: no descriptor. */
struct vmk_bus *vmk_bus_messages(void);
/* From now on (earlier writes do not count) each write of the eventfd pulses the line. 0 or -errno. */
int vmk_messages_open(struct vmk_bus *bus, int eventfd, unsigned line);
/* The same of any descriptor: the line is pulsed each time that there is more to read. */
int vmk_messages_watch(struct vmk_bus *bus, int fd, unsigned line);
int vmk_messages_close(struct vmk_bus *bus, int fd);

/* ---- END CDEF ---- */

/* ---- between the C files ---- */

struct vmk_world;
struct vmk_frame; /* one vmk_call or one delivery: where a stop returns to */
bool vmk_in_kernel(void);
bool vmk_holds_baton(void);
/* Ends the kernel code that runs in this world; returns at its frame. Never comes back. */
void vmk_stop(int reason, uint32_t site, uint64_t detail) __attribute__((noreturn));
/* The caller of a C function that kernel code called through a thunk, if that is a module's code; else the owner. */
uint32_t vmk_site(uint64_t caller);
void vmk_event_put(uint32_t kind, uint32_t site, uint64_t detail);
/* Runs `fn` in a frame of its own, so that a stop ends only that; the stop becomes an event. */
void vmk_guarded(void (*fn)(void *), void *arg, uint32_t owner);
/* vmk_call for C: runs fn(arg) with the baton, in a frame, then delivers (vmk_deliver, or vmk_deliver_lazily). */
void vmk_enter(void (*fn)(void *), void *arg, uint32_t owner, struct vmk_result *result, bool lazily);
/* Takes in the news of every watched bus without waiting. With the baton. False when one has gone. */
bool vmk_service(void);
/* Corks every watched bus, for a batch of work that ends soon; lets them go again. With the baton. A world that sleeps or
 * busily waits in between sends what is collected. */
void vmk_cork(void);
void vmk_uncork(void);
/* Interrupts, then softirqs, if they may run now. With the baton. Whether work is left. */
bool vmk_deliver(void);
/* The same for a program that keeps a device busy: unless somebody waits, only when the last delivery was a while ago, so
 * that interrupts come together. Whether work is left that somebody else has to be told of. */
bool vmk_deliver_lazily(void);
bool vmk_irq_run(void);      /* interrupt.c: one pass over asserted lines; whether one was handled */
bool vmk_irq_waiting(void);  /* whether an asserted line has handlers and is enabled */
/* What runs after the interrupts, for the drivers of each engine; vmklinux sets it. run: whether work is left; waiting:
 * whether run would find work. NULL: none. */
struct vmk_softirq { bool (*run)(void); bool (*waiting)(void); };
enum { VMK_SOFTIRQ_LINUX, VMK_SOFTIRQ_NATIVE, VMK_SOFTIRQS };
extern struct vmk_softirq vmk_softirqs[VMK_SOFTIRQS];
extern void (*vmk_tick)(void);        /* set by vmklinux: time has passed, jiffies move */
extern uint64_t (*vmk_task_new)(void);
extern void (*vmk_task_free)(uint64_t task);
extern uint64_t vmk_interrupt_flag; /* 0x200 (EFLAGS.IF) when kernel code has interrupts enabled, else 0 */
extern struct vmk_cpu vmk_cpu;
extern bool vmk_delivering;
/* Ranges of module code, so that a site can be told from an image address: below this, the image. */
extern uint32_t vmk_modules_low;

/* What a bus implements; flush and cork where a write is not done when it returns, read_rep where reads together are faster. */
struct vmk_bus_ops {
    uint64_t (*read)(struct vmk_bus *, int space, uint64_t address, unsigned size);
    void (*read_rep)(struct vmk_bus *, int space, uint64_t address, unsigned size, uint64_t *values, unsigned count);
    void (*write)(struct vmk_bus *, int space, uint64_t address, unsigned size, uint64_t value);
    void (*flush)(struct vmk_bus *);
    void (*cork)(struct vmk_bus *, int on);
    int (*service)(struct vmk_bus *);
    void (*close)(struct vmk_bus *);
};
struct vmk_bus {
    const struct vmk_bus_ops *ops;
    int fd;
    int gone;
};

/* mailbox.c */
struct vmk_mailbox;
struct vmk_mailbox *vmk_mailbox_at(void *memory);
void vmk_mailbox_spin(struct vmk_mailbox *box, unsigned spin);
bool vmk_mailbox_asleep(struct vmk_mailbox *box);
/* How often it has woken up. */
uint32_t vmk_mailbox_naps(struct vmk_mailbox *box);
bool vmk_mailbox_takes(int space, uint64_t address, unsigned size);
/* Waits a little until at most `left` accesses are still to be done. 0, or -EAGAIN. */
int vmk_mailbox_wait(struct vmk_mailbox *box, unsigned left);
/* Asks for an access; there must be room. */
void vmk_mailbox_ask(struct vmk_mailbox *box, int write, int space, uint64_t address, unsigned size, uint32_t value);
/* What the last access that was asked for, a read that is done, gave. */
uint32_t vmk_mailbox_value(struct vmk_mailbox *box);

static inline uint64_t vmk_all_ones(unsigned size) { return size == 8 ? ~0ull : (1ull << (size * 8)) - 1; }

#endif
