/* What QEMU's processor runs: it does register accesses that are asked for in a mailbox in machine memory.
 *
 * An access over the qtest socket costs two processes waking each other; one by the mailbox costs the time in which two
 * cores see each other's writes. The processor looks at the mailbox for a while after the last access, then halts until
 * a message interrupt wakes it (bus_qtest.c sends it).
 *
 * The image is the 64 KiB below 4 GiB. Facts: Intel SDM volume 3, 9.1.4 (first instruction), 9.9.1 (switching to
 * protected mode), 6.11 (interrupt gates), 10.4.3 and 10.8.5 (local APIC: enabling, EOI). */
#include "vmkernel_core/mailbox.h"

#define TEXT(x) #x
#define NUMBER(x) TEXT(x)

__asm__(
    ".pushsection .rodata\n"
    ".balign 16\n"
    "image:\n"
    ".set rom, 0xffff0000\n"
    ".code32\n"
    "protected:\n"
    "  movw $0x10, %ax\n  movw %ax, %ds\n  movw %ax, %es\n  movw %ax, %ss\n"
    "  movl $" NUMBER(MAILBOX_STACK) ", %esp\n"
    "  lidt rom + (idtr - image)\n"
    "  movl $0x1ff, 0xfee000f0\n" /* spurious interrupt vector register: enabled */
    "  movl $" NUMBER(MAILBOX_ADDRESS) ", %esi\n"
    "  xorl %edi, %edi\n" /* entries done */
    "look:\n"
    "  movl " NUMBER(MAILBOX_SPIN) "(%esi), %ecx\n"
    "again:\n"
    "  cmpl %edi, " NUMBER(MAILBOX_ASKED) "(%esi)\n  jne work\n"
    "  decl %ecx\n  jns again\n"
    "  movl $1, " NUMBER(MAILBOX_ASLEEP) "(%esi)\n"
    /* The other side writes and looks in the opposite order, so this store has to be seen first. TCG with one processor
     * makes no fence of `lock`; a port access takes QEMU's lock, which is one. Port 0x80 is nobody's. */
    "  inb $0x80, %al\n"
    "  cmpl %edi, " NUMBER(MAILBOX_ASKED) "(%esi)\n  jne awake\n"
    "  sti\n  hlt\n  cli\n"
    "awake:\n"
    "  incl " NUMBER(MAILBOX_NAPS) "(%esi)\n"
    "  movl $0, " NUMBER(MAILBOX_ASLEEP) "(%esi)\n"
    "  jmp look\n"
    "work:\n"
    "  movl %edi, %ebx\n  andl $" NUMBER(MAILBOX_ENTRIES) " - 1, %ebx\n  shll $4, %ebx\n"
    "  leal " NUMBER(MAILBOX_RING) "(%esi,%ebx), %ebx\n"
    "  movl (%ebx), %ebp\n  movl 4(%ebx), %edx\n  movl 8(%ebx), %eax\n"
    "  jmp *rom + (accesses - image)(,%ebp,4)\n"
    "read1: movzbl (%edx), %eax\n  jmp done\n"
    "read2: movzwl (%edx), %eax\n  jmp done\n"
    "read4: movl (%edx), %eax\n  jmp done\n"
    "write1: movb %al, (%edx)\n  jmp done\n"
    "write2: movw %ax, (%edx)\n  jmp done\n"
    "write4: movl %eax, (%edx)\n  jmp done\n"
    "in1: inb %dx, %al\n  jmp done\n"
    "in2: inw %dx, %ax\n  jmp done\n"
    "in4: inl %dx, %eax\n  jmp done\n"
    "out1: outb %al, %dx\n  jmp done\n"
    "out2: outw %ax, %dx\n  jmp done\n"
    "out4: outl %eax, %dx\n"
    "done:\n"
    "  movl %eax, 8(%ebx)\n"
    "  incl %edi\n  movl %edi, " NUMBER(MAILBOX_DONE) "(%esi)\n"
    "  jmp look\n"
    "woken:\n"
    "  movl $0, 0xfee000b0\n" /* end of interrupt */
    "  iret\n"
    ".balign 4\n"
    "accesses:\n"
    "  .irp access, read1, read2, read4, write1, write2, write4, in1, in2, in4, out1, out2, out4\n"
    "  .long rom + (\\access - image)\n"
    "  .endr\n"
    "gdt: .quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff\n" /* nothing; all of memory, as code and as data */
    "gdtr: .word gdtr - gdt - 1\n  .long rom + (gdt - image)\n"
    "idt: .fill " NUMBER(MAILBOX_VECTOR) " * 8, 1, 0\n"
    "  .word woken - image, 8, 0x8e00, 0xffff\n" /* an interrupt gate; rom is the high half of its address */
    "idtr: .word idtr - idt - 1\n  .long rom + (idt - image)\n"
    ".code16\n"
    "real:\n"
    "  lgdtl %cs:gdtr - image\n"
    "  movl %cr0, %eax\n  orb $1, %al\n  movl %eax, %cr0\n"
    "  ljmpl $8, $rom + (protected - image)\n"
    ".org image + 0xfff0, 0xf4\n"
    "  cli\n  jmp real\n"
    ".org image + 0x10000, 0xf4\n"
    ".code64\n"
    ".popsection\n"
    ".text\n"
    ".globl vmk_firmware\nvmk_firmware:\n  lea image(%rip), %rax\n  ret\n");
