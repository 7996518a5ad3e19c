/* The mailbox through which QEMU's processor is asked for register accesses: its layout, for C and for firmware.c's
 * assembler. All of it lies in the first MiB of machine memory, which nobody else is given. */
#ifndef VMK_MAILBOX_H
#define VMK_MAILBOX_H

#define MAILBOX_ADDRESS 0x80000
#define MAILBOX_STACK 0x82000
/* Offsets. What each side writes is in a cache line of its own. */
#define MAILBOX_ASKED 0    /* how many accesses were asked for */
#define MAILBOX_SPIN 4     /* how often the processor looks before it halts */
#define MAILBOX_DONE 64    /* how many it has done */
#define MAILBOX_ASLEEP 68  /* it is halting, or has halted: an interrupt has to wake it */
#define MAILBOX_NAPS 72    /* how often it has woken up */
#define MAILBOX_RING 128   /* entries: what (see below), address, value; of a read, the value comes back */
#define MAILBOX_ENTRIES 64
/* The message interrupt that wakes it: written to address 0xfee00000, processor 0 (Intel SDM volume 3, 10.11). */
#define MAILBOX_VECTOR 0x40

#endif
