/* What the files of the SCSI mid-layer share (Linux drivers/scsi/scsi_priv.h): scsi_lib.c sends commands and takes them back,
 * scsi_sg.c makes scatter lists, scsi_error.c judges what a command came back with, blk_mq.c shows tags. */
#ifndef VMKLINUX_SCSI_PRIV_H
#define VMKLINUX_SCSI_PRIV_H

#include <pthread.h>

#include "vmklinux/linux.h"

#define SENSE_SIZE 96u /* SCSI_SENSE_BUFFERSIZE, include/scsi/scsi_cmnd.h */
#define QUEUE_MOST 8192u /* commands of one device that may wait */
#define PAGE 4096u
#define SG_END 2u /* include/linux/scatterlist.h: in page_link of the last entry */
#define SCMD_TAGGED 1 /* include/scsi/scsi_cmnd.h */
#define SCMD_LAST 4
#define SCMD_FORCE_EH_SUCCESS 8 /* 6.12 has it; in 6.1 nobody sets the bit */
#define SCMD_STATE_COMPLETE 0
#define SOFTIRQ_OFFSET 0x100u
#define SOFTIRQ_DISABLE_OFFSET 0x200u
/* Milliseconds after which a queue that a driver called busy is tried again (BLK_MQ_RESOURCE_DELAY, SCSI_QUEUE_DELAY). */
#define BUSY_DELAY_NS 3000000ull
#define HOSTS 32
#define CPUS 64 /* cpu.py: MOST_CPUS */

enum { DMA_TO_DEVICE = 1, DMA_FROM_DEVICE = 2 };
enum { REQ_OP_DISCARD = 3, REQ_OP_DRV_IN = 34, REQ_OP_DRV_OUT = 35 }; /* include/linux/blk_types.h */
/* include/scsi/scsi_status.h */
enum {
    DID_OK = 0, DID_NO_CONNECT = 1, DID_BUS_BUSY = 2, DID_TIME_OUT = 3, DID_BAD_TARGET = 4, DID_ABORT = 5, DID_PARITY = 6,
    DID_ERROR = 7, DID_RESET = 8, DID_PASSTHROUGH = 10, DID_SOFT_ERROR = 11, DID_IMM_RETRY = 12, DID_REQUEUE = 13,
    DID_TRANSPORT_DISRUPTED = 14, DID_TRANSPORT_FAILFAST = 15, DID_TRANSPORT_MARGINAL = 20,
};
enum {
    STATUS_GOOD = 0, STATUS_CHECK_CONDITION = 2, STATUS_BUSY = 8, STATUS_RESERVATION_CONFLICT = 0x18, STATUS_TASK_SET_FULL = 0x28,
    STATUS_TASK_ABORTED = 0x40,
};
/* include/scsi/scsi_proto.h */
enum {
    KEY_RECOVERED_ERROR = 1, KEY_NOT_READY = 2, KEY_MEDIUM_ERROR = 3, KEY_HARDWARE_ERROR = 4, KEY_UNIT_ATTENTION = 6,
    KEY_ABORTED_COMMAND = 11,
};
/* What becomes of a command (include/scsi/scsi.h). */
enum { NEEDS_RETRY = 0x2001, SUCCESS = 0x2002, FAILED = 0x2003, ADD_TO_MLQUEUE = 0x2006, NOT_HANDLED = 0x2008 };
enum { TEST_UNIT_READY = 0, INQUIRY = 0x12, UNMAP = 0x42, WRITE_SAME_16 = 0x93 };

enum verdict { FINISH = LINUX_SCSI_FINISH, RETRY = LINUX_SCSI_RETRY, REQUEUE = LINUX_SCSI_REQUEUE, FAIL = LINUX_SCSI_FAIL };

/* A command from submission to reaping. */
struct command {
    struct linux_scsi_io io;
    struct linux_scsi_device *device;
    unsigned cpu; /* that it was submitted on */
    struct command *next;
    struct slot *slot;
    int retries;
    uint64_t give_up; /* all tries together end then (scsi_cmd_runtime_exceeced) */
    bool done;
    uint64_t task; /* a world that waits for just this one, or 0 */
    struct linux_scsi_done answer;
};

enum slot_state {
    SLOT_FREE, SLOT_IN_FLIGHT, /* the driver has it */
    SLOT_COMPLETED, /* scsi_done was called; the softirq has not looked yet */
    SLOT_FAILED, /* error handling has it */
    SLOT_RESERVED, /* the driver asked for the tag alone */
    SLOT_LOST /* its command ended when the device went; the driver still has it */
};
struct slot {
    uint64_t request, cmnd, sense, sg;
    int tag;
    enum slot_state state;
    bool expired; /* its time was up: the timeout side has it */
    bool eh_done; /* a command of the error handler's came back */
    bool mapped; /* for DMA, by scsi_dma_map */
    uint64_t deadline;
    struct command *command;
    struct slot *next; /* in the list of the completed */
};

struct linux_scsi_host {
    uint64_t shost;
    uint32_t owner;
    unsigned depth, sets; /* tags in a set, and sets of them */
    unsigned tags, busy, failed; /* tags: slots, in all sets together */
    bool ended;
    unsigned cpus;
    uint64_t hctx[CPUS]; /* by the CPU that submits: struct blk_mq_hw_ctx of its hardware queue */
    uint64_t eh_task;
    uint64_t *set; /* struct blk_mq_tags, one for each hardware queue or one that they share (host_tagset) */
    struct slot *slots;
    struct linux_scsi_device *devices;
};

struct waiter { int event; struct waiter *next; };
struct list { struct command *first, *last; };
struct linux_scsi_device {
    struct linux_scsi_host *host;
    uint32_t owner;
    uint64_t sdev;
    struct linux_scsi_device *next;
    struct list waiting, done;
    unsigned queued, busy;
    uint64_t not_before; /* the driver called it busy: when to try again */
    bool ended;
    struct waiter *waiters;
    pthread_mutex_t lock; /* of waiters */
    struct linux_scsi_stats stats;
};

extern struct linux_scsi_host *scsi_hosts[HOSTS];

/* scsi_lib.c */
struct linux_scsi_host *scsi_host_of(uint64_t shost);
struct slot *scsi_slot_at(uint64_t cmnd, struct linux_scsi_host **host);
struct slot *scsi_slot_of(uint64_t cmnd);
struct slot *scsi_slot_take(struct linux_scsi_host *host, uint64_t hctx);
void scsi_finish_slot(struct slot *slot);
/* Sends a command again, before those that wait; false: it has had its tries. */
bool scsi_again(struct slot *slot, bool counted, bool later);
/* From here on the command is in the list that error handlers, ours or the driver's own, work on. */
void scsi_to_error_handler(struct slot *slot);

/* scsi_sg.c */
/* Cuts a command's data into segments and writes them to the scatter list at `sg`, unless that is 0. How many; `*fits`: how
 * many bytes of the data they hold. */
uint32_t scsi_fill_sg(struct linux_scsi_device *device, const struct linux_scsi_io *io, uint64_t sg, uint32_t *fits);
void scsi_unmap(struct linux_scsi_host *host, struct slot *slot);

/* scsi_error.c */
/* Key, asc and ascq of sense data in either format (SPC-4, 4.5); false: there is none that can be read. */
bool scsi_sense_read(const uint8_t *sense, uint8_t *key, uint8_t *asc, uint8_t *ascq, bool *deferred);
enum verdict scsi_judge(struct slot *slot);

#endif
