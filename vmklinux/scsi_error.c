/* What a SCSI command came back with, and the commands that error handling has (Linux drivers/scsi/scsi_error.c). The handling
 * itself is scsi_error.py's. */
#include "vmklinux/scsi_priv.h"

/* ---- what came back ---- */

/* Key, asc and ascq of sense data in either format (SPC-4, 4.5); false: there is none that can be read. */
bool scsi_sense_read(const uint8_t *sense, uint8_t *key, uint8_t *asc, uint8_t *ascq, bool *deferred)
{
    uint8_t format = sense[0] & 0x7f;
    if ((format & 0x70) != 0x70)
        return false;
    *deferred = format & 1;
    *key = (format >= 0x72 ? sense[1] : sense[2]) & 0xf;
    *asc = format >= 0x72 ? sense[2] : sense[7] >= 5 ? sense[12] : 0;
    *ascq = format >= 0x72 ? sense[3] : sense[7] >= 6 ? sense[13] : 0;
    return true;
}

struct asking {
    uint64_t handler, sdev;
    uint8_t header[8]; /* struct scsi_sense_hdr: format, key, asc, ascq, three bytes, length of what follows */
    int answer;
};

static void ask_handler(void *arg)
{
    struct asking *q = arg;
    q->answer = FIELD(q->handler, scsi_device_handler, check_sense, int (*)(uint64_t, void *))(q->sdev, q->header);
}

/* A device handler knows its array's sense data (scsi_dh.py); whether this one does. */
static bool handler_judges(struct asking *q, enum verdict *verdict)
{
    uint64_t function = q->handler ? FIELD(q->handler, scsi_device_handler, check_sense, uint64_t) : 0;
    if (!function)
        return false;
    vmk_guarded(ask_handler, q, (uint32_t)function);
    *verdict = q->answer == NEEDS_RETRY ? RETRY : q->answer == ADD_TO_MLQUEUE ? REQUEUE : q->answer == FAILED ? FAIL : FINISH;
    return q->answer != NOT_HANDLED;
}

int linux_scsi_judge_sense(const uint8_t *sense, uint8_t opcode, uint32_t traits)
{
    uint8_t key, asc, ascq;
    bool deferred;
    if (!scsi_sense_read(sense, &key, &asc, &ascq, &deferred))
        return LINUX_SCSI_FAIL;
    if (deferred)
        return LINUX_SCSI_RETRY;
    if (opcode == TEST_UNIT_READY && !(traits & LINUX_SCSI_BY_EH))
        return LINUX_SCSI_FINISH; /* who asks whether it is ready wants to know what it says */
    switch (key) {
    case KEY_ABORTED_COMMAND:
        return asc == 0x10 ? LINUX_SCSI_FINISH : LINUX_SCSI_RETRY;
    case KEY_UNIT_ATTENTION:
        return traits & LINUX_SCSI_EXPECTS_UA ? LINUX_SCSI_RETRY | LINUX_SCSI_EXPECTED : LINUX_SCSI_FINISH | LINUX_SCSI_UNASKED;
    case KEY_NOT_READY: /* it becomes ready; it waits to be started, which error handling does */
        if (asc == 4 && ascq == 2 && traits & LINUX_SCSI_ALLOW_RESTART)
            return LINUX_SCSI_FAIL;
        return asc == 4 && ascq == 1 ? LINUX_SCSI_RETRY : LINUX_SCSI_FINISH;
    case KEY_MEDIUM_ERROR: /* unrecovered read, no address mark, no record: trying again would not help */
        return asc == 0x11 || asc == 0x13 || asc == 0x14 ? LINUX_SCSI_FINISH : LINUX_SCSI_RETRY;
    case KEY_HARDWARE_ERROR:
        return traits & LINUX_SCSI_RETRY_HWERROR ? LINUX_SCSI_REQUEUE : LINUX_SCSI_FINISH;
    default:
        return LINUX_SCSI_FINISH;
    }
}

static uint32_t traits_of(uint64_t cmnd, uint64_t sdev)
{
    bool by_eh = FIELD(cmnd, scsi_cmnd, submitter, uint8_t) == ENUM(SUBMITTED_BY_SCSI_ERROR_HANDLER);
    return (BITS_GET((void *)sdev, scsi_device, expecting_cc_ua) ? LINUX_SCSI_EXPECTS_UA : 0) |
           (BITS_GET((void *)sdev, scsi_device, allow_restart) ? LINUX_SCSI_ALLOW_RESTART : 0) |
           (BITS_GET((void *)sdev, scsi_device, retry_hwerror) ? LINUX_SCSI_RETRY_HWERROR : 0) | (by_eh ? LINUX_SCSI_BY_EH : 0);
}

/* What sense data make of a command; *unasked: it is a unit attention that nobody expected. */
static enum verdict check_sense(uint64_t cmnd, bool *unasked)
{
    uint8_t key, asc, ascq;
    bool deferred;
    uint64_t sdev = FIELD(cmnd, scsi_cmnd, device, uint64_t);
    *unasked = false;
    if (!scsi_sense_read(FIELD(cmnd, scsi_cmnd, sense_buffer, uint8_t *), &key, &asc, &ascq, &deferred))
        return FAIL;
    if (deferred)
        return RETRY;
    struct asking q = {FIELD(sdev, scsi_device, handler, uint64_t), sdev,
                       {*FIELD(cmnd, scsi_cmnd, sense_buffer, uint8_t *) & 0x7f, key, asc, ascq}, NOT_HANDLED};
    enum verdict verdict;
    if (handler_judges(&q, &verdict))
        return verdict;
    int judged = linux_scsi_judge_sense(FIELD(cmnd, scsi_cmnd, sense_buffer, uint8_t *),
                                        (uint8_t)*INNER(cmnd, scsi_cmnd, cmnd), traits_of(cmnd, sdev));
    if (judged & LINUX_SCSI_EXPECTED)
        BITS_SET((void *)sdev, scsi_device, expecting_cc_ua, 0);
    *unasked = judged & LINUX_SCSI_UNASKED;
    return (enum verdict)(judged & 0xff);
}

static enum verdict judge_sense(struct slot *slot)
{
    bool unasked, program = !(slot->command->io.flags & LINUX_SCSI_PRIVILEGED);
    enum verdict verdict = check_sense(slot->cmnd, &unasked);
    slot->command->device->stats.unit_attentions += unasked;
    return unasked && program ? RETRY : verdict; /* scsi_io_completion: a command of a file system's is sent again */
}

int linux_scsi_check_sense(uint64_t cmnd)
{
    static const int disposition[] = {[FINISH] = SUCCESS, [RETRY] = NEEDS_RETRY, [REQUEUE] = ADD_TO_MLQUEUE, [FAIL] = FAILED};
    bool unasked;
    return disposition[check_sense(cmnd, &unasked)];
}

static int judge_status(int32_t result)
{
    switch (result & 0xff) {
    case STATUS_CHECK_CONDITION:
        return LINUX_SCSI_SENSE;
    case STATUS_TASK_SET_FULL:
    case STATUS_BUSY:
        return LINUX_SCSI_REQUEUE;
    case STATUS_TASK_ABORTED:
        return LINUX_SCSI_RETRY;
    default:
        return LINUX_SCSI_FINISH;
    }
}

int linux_scsi_judge_result(int32_t result, uint8_t opcode)
{
    switch (result >> 16 & 0xff) {
    case DID_OK:
        return judge_status(result);
    case DID_PASSTHROUGH:
    case DID_ABORT:
    case DID_NO_CONNECT:
    case DID_BAD_TARGET:
    case DID_TRANSPORT_FAILFAST:
    case DID_TRANSPORT_MARGINAL:
        return LINUX_SCSI_FINISH;
    case DID_RESET: /* scsi_io_completion: sent again while it may be */
    case DID_SOFT_ERROR:
    case DID_IMM_RETRY:
    case DID_TRANSPORT_DISRUPTED:
    case DID_BUS_BUSY:
    case DID_PARITY:
        return LINUX_SCSI_RETRY;
    case DID_ERROR:
        return (result & 0xff) == STATUS_RESERVATION_CONFLICT ? LINUX_SCSI_FINISH : LINUX_SCSI_RETRY;
    case DID_REQUEUE:
        return LINUX_SCSI_REQUEUE;
    case DID_TIME_OUT:
        return opcode == TEST_UNIT_READY || opcode == INQUIRY ? LINUX_SCSI_FINISH : LINUX_SCSI_FAIL;
    default:
        return LINUX_SCSI_FAIL;
    }
}

/* scsi_decide_disposition. */
enum verdict scsi_judge(struct slot *slot)
{
    int32_t *result = &FIELD(slot->cmnd, scsi_cmnd, result, int32_t);
    struct linux_scsi_device *device = slot->command->device;
    int64_t state = FIELD(device->sdev, scsi_device, sdev_state, uint32_t);
    if (state == ENUM(SDEV_OFFLINE) || state == ENUM(SDEV_TRANSPORT_OFFLINE))
        return FINISH;
    int judged = linux_scsi_judge_result(*result, slot->command->io.cdb[0]);
    if (judged == LINUX_SCSI_SENSE)
        return judge_sense(slot);
    if ((*result & 0xff00ff) == STATUS_TASK_SET_FULL)
        device->stats.queue_full++;
    if ((*result >> 16 & 0xff) == DID_PASSTHROUGH)
        *result &= ~0xff0000;
    return (enum verdict)judged;
}

/* ---- for Python: error handling ---- */

int linux_scsi_expired(struct linux_scsi_host *host, uint64_t *cmnds, unsigned max)
{
    unsigned have = 0;
    uint64_t now = vmk_now();
    for (unsigned i = 0; i < host->tags && have < max; i++) {
        struct slot *slot = &host->slots[i];
        if (slot->state == SLOT_IN_FLIGHT && !slot->expired && now > slot->deadline)
            cmnds[have++] = slot->cmnd;
    }
    return (int)have;
}

void linux_scsi_prolong(uint64_t cmnd)
{
    struct slot *slot = scsi_slot_of(cmnd);
    if (slot && slot->command)
        slot->deadline = vmk_now() + slot->command->io.timeout_ms * 1000000ull;
}

int linux_scsi_expire(uint64_t cmnd)
{
    struct slot *slot = scsi_slot_of(cmnd);
    if (!slot || slot->state != SLOT_IN_FLIGHT)
        return 0;
    FIELD(cmnd, scsi_cmnd, state, uint64_t) |= 1ull << SCMD_STATE_COMPLETE;
    slot->expired = true;
    FIELD(slot->command->device->sdev, scsi_device, iotmo_cnt, int)++;
    if (!slot->deadline)
        return LINUX_SCSI_GIVEN_UP;
    slot->command->device->stats.timeouts++;
    return LINUX_SCSI_TIMED_OUT;
}

void linux_scsi_fail(uint64_t cmnd)
{
    struct slot *slot = scsi_slot_of(cmnd);
    if (slot && slot->state == SLOT_IN_FLIGHT)
        scsi_to_error_handler(slot);
}

/* Whether the scsi_cmnd's own count, which error handlers change, leaves it another try. */
static bool may_try_again(struct slot *slot)
{
    struct linux_scsi_host *host = slot->command->device->host;
    int64_t state = FIELD(slot->command->device->sdev, scsi_device, sdev_state, uint32_t);
    int *retries = &FIELD(slot->cmnd, scsi_cmnd, retries, int), allowed = FIELD(slot->cmnd, scsi_cmnd, allowed, int);
    uint64_t hostt = FIELD(host->shost, Scsi_Host, hostt, uint64_t);
    uint64_t should = FIELD(hostt, scsi_host_template, eh_should_retry_cmd, uint64_t);
    if (state == ENUM(SDEV_OFFLINE) || state == ENUM(SDEV_TRANSPORT_OFFLINE) || state == ENUM(SDEV_DEL))
        return false;
    if (++*retries > allowed || (should && !((bool (*)(uint64_t))should)(slot->cmnd)))
        return false;
    slot->command->retries = *retries;
    slot->command->io.retries = allowed < UINT8_MAX ? (uint8_t)allowed : UINT8_MAX;
    return true;
}

void linux_scsi_release(uint64_t cmnd)
{
    struct slot *slot = scsi_slot_of(cmnd);
    if (!slot || !slot->command || !(slot->state == SLOT_FAILED || slot->expired))
        return;
    if (may_try_again(slot) && scsi_again(slot, false, false))
        return;
    if (!FIELD(cmnd, scsi_cmnd, result, int32_t) && !(FIELD(cmnd, scsi_cmnd, flags, int) & SCMD_FORCE_EH_SUCCESS))
        FIELD(cmnd, scsi_cmnd, result, int32_t) = DID_TIME_OUT << 16;
    scsi_finish_slot(slot);
}

int linux_scsi_failed(struct linux_scsi_host *host, uint64_t *cmnds, unsigned max)
{
    unsigned have = 0;
    for (unsigned i = 0; i < host->tags && have < max; i++)
        if (host->slots[i].state == SLOT_FAILED)
            cmnds[have++] = host->slots[i].cmnd;
    return (int)have;
}

int linux_scsi_eh_back(uint64_t cmnd)
{
    struct slot *slot = scsi_slot_of(cmnd);
    bool back = slot && slot->eh_done;
    if (back)
        slot->eh_done = false;
    return back;
}

const struct linux_api scsi_error_api[] = {
    API_AS("scsi_check_sense", linux_scsi_check_sense, "done", "What is to become of a command, by its sense data.",
           "The mid-layer's own byte of the result is not set: the vmkernel reads the sense data itself."),
    API_END,
};
