/* The part of the C core that knows Linux: what of the emulated API runs per packet, per command or per access.
 *
 * No offset, size, enumerator or address of Linux's is written down here: the lists below only name them, and
 * vmklinux/layout.py fills the tables from the kernel's BTF and symbols when it boots. A leading '?' in a name
 * marks one that not every kernel has; its entry is then LINUX_ABSENT. */
#ifndef VMK_LINUX_H
#define VMK_LINUX_H
#include <pthread.h>

#include "vmkernel_core/core.h"
#include "vmklinux/port.h"

/* ---- CDEF ---- */

/* The tables that Python fills: names in, values out. The index runs from 0 until the name is NULL. */
const char *linux_field_name(unsigned index);
void linux_field_set(unsigned index, uint32_t offset);
const char *linux_bits_name(unsigned index);
void linux_bits_set(unsigned index, uint32_t bit_offset, uint32_t width);
const char *linux_size_name(unsigned index);
void linux_size_set(unsigned index, uint32_t size);
const char *linux_enum_name(unsigned index);
void linux_enum_set(unsigned index, int64_t value);
const char *linux_symbol_name(unsigned index);
void linux_symbol_set(unsigned index, uint64_t address);

/* A function of the emulated API that is written in C. status: "done", "partial" or "no-op"; note: what is
 * missing or why it may do nothing; summary: what it does. */
struct linux_api {
    const char *name; void *function; const char *status; const char *summary; const char *note; const char *where;
};
/* The index-th of them, NULL at the end. */
const struct linux_api *linux_api_c(unsigned index);

/* Thunks: small pieces of code below 2 GiB that kernel code calls; they realign the stack (kernel code keeps it to 8
 * bytes) and go on to C or Python. 0 when the thunk area is full. */
int linux_thunks_init(uint64_t address, uint64_t length);
uint64_t linux_thunk_c(void *function);
uint64_t linux_thunk_python(uint32_t index);
uint64_t linux_thunk_missing(uint32_t index);
/* Replaces the function at `address` in the image by a five-byte jump. */
void linux_patch_jump(uint64_t address, uint64_t target);
/* What a thunk saved: the six argument registers (also the register area of a va_list), where further arguments lie,
 * who called; Python leaves the result in value. */
struct linux_regs { uint64_t reg[6]; uint64_t stack, caller, value; };

/* Completes the boot of the C half, when the tables are filled. hz: ticks a second of this kernel. */
void linux_start(unsigned hz);
/* mm.c: how many CPUs there are per-CPU areas for, and how far they lie apart. */
void linux_cpus(unsigned count, uint64_t stride);
void linux_stop(void);
uint64_t linux_jiffies(void);
/* What stands in for a function that may do nothing: returns 0. */
uint64_t linux_nothing(void);
/* pv_ops of the interrupt flag; they keep every register but rax (PV_CALLEE_SAVE). */
uint64_t linux_save_fl(void);
void linux_irq_disable(void);
void linux_irq_enable(void);

/* dma.c: how many DMA mappings a device has open; they are forgotten. */
int64_t linux_dma_end(uint64_t device);

/* softirq.c: forgets the tasklets and irq_polls that are scheduled and whose function lies in [low, high): their driver is dead. */
void linux_softirq_forget(uint64_t low, uint64_t high);

/* netdevice.c: a port is what an uplink holds of a net_device. */
struct linux_port;
/* As struct virtio_net_hdr tells offloads; vlan_tci | 0x10000 asks for a tag to be inserted by the device. */
struct linux_frame {
    uint32_t length; uint32_t vlan;
    uint16_t flags, gso_type, header_length, gso_size, csum_start, csum_offset;
};
/* NEEDS_CSUM: the checksum at csum_start + csum_offset holds the pseudo header's sum only. CSUM_GOOD, received frames
 * only: the device found it right. */
enum { LINUX_FRAME_NEEDS_CSUM = 1, LINUX_FRAME_CSUM_GOOD = 2, LINUX_GSO_NONE = 0, LINUX_GSO_TCPV4 = 1, LINUX_GSO_TCPV6 = 4 };
struct linux_port *linux_port_create(uint64_t net_device, uint32_t owner);
/* Takes the device away: waits end, sending gives -ENODEV, nothing more is received. */
void linux_port_detach(struct linux_port *port);
/* The memory goes when nobody can be inside a call with it any more. */
void linux_port_free(struct linux_port *port);
/* Sends frames that lie one after the other in data. How many were taken, or -ENETDOWN, -ENODEV, -EMSGSIZE (a frame that is no Ethernet frame, is
 * larger than the MTU allows, or whose offload makes no sense), -EOPNOTSUPP (an offload that is not on), each before
 * any was taken, or -EIO with result filled
 * when the driver was stopped. */
int linux_port_transmit(struct linux_port *port, const char *data, const struct linux_frame *frames, unsigned count,
                        struct vmk_result *result);
/* Copies received frames, one after the other, into data. How many; their lengths in lengths and, unless it is NULL,
 * what is known of them in frames. */
int linux_port_receive(struct linux_port *port, char *data, uint64_t size, uint32_t *lengths,
                       struct linux_frame *frames, unsigned max);
/* Forgets the NAPI contexts whose poll function lies in [low, high): their driver is dead. */
void linux_napi_forget(uint64_t low, uint64_t high);
enum { LINUX_PORT_RX = 1, LINUX_PORT_TX = 2, LINUX_PORT_END = 4 };
/* Waits, without the baton, until one of `events` is true. Those that are, 0 when the time is up. */
int linux_port_wait(struct linux_port *port, int events, uint64_t timeout_ns);
/* The device is dead: every wait ends at once from now on. */
void linux_port_end(struct linux_port *port);
/* rx_merged: segments that went into another frame (GRO). */
struct linux_port_stats { uint64_t tx_frames, tx_bytes, tx_busy, rx_frames, rx_bytes, rx_dropped, rx_merged; };
void linux_port_stats(struct linux_port *port, struct linux_port_stats *out);

/* scsi_lib.c: a host is a Scsi_Host with its tags, a device a scsi_device with its queue. */
struct linux_scsi_host;
struct linux_scsi_device;
/* PRIVILEGED: it may go to a device that is quiesced, and a unit attention ends it (the scan's own commands). AT_HEAD: before
 * those that wait. */
enum { LINUX_SCSI_PRIVILEGED = 1, LINUX_SCSI_AT_HEAD = 2 };
/* A command. Its `length` bytes of data lie in machine memory: at the address `data`, else (0) in `count` pieces, an array of struct
 * vmk_sg_elem, `offset` bytes from the first one's begin on; the array is the caller's until the command has ended. direction is 1 to the device, 2 from it,
 * 3 without data; retries may follow the first try; underflow: fewer bytes than this are an error to the driver. */
struct linux_scsi_io {
    uint64_t cookie, data;
    uint64_t pieces, offset;
    uint32_t count, length, timeout_ms, underflow;
    uint8_t direction, cdb_length, retries, flags;
    uint8_t cdb[32];
};
/* What became of it: result as scsi_cmnd has it (host byte << 16 | status byte), residual bytes that were not transferred. */
struct linux_scsi_done {
    uint64_t cookie;
    int32_t result;
    uint32_t residual, retries, sense_length;
    uint8_t sense[96];
};
struct linux_scsi_stats {
    uint64_t commands, bytes_read, bytes_written, errors, retries, timeouts, busy, queue_full, unit_attentions, in_flight,
        in_flight_most;
};
/* hctx: by CPU, the blk_mq_hw_ctx of the hardware queue that commands submitted there go to. sets: of tags, one for each hardware
 * queue, or 1 where they share them. NULL: no memory, or too many hosts. */
struct linux_scsi_host *linux_scsi_host_create(uint64_t shost, uint32_t owner, const uint64_t *hctx, unsigned cpus, unsigned sets);
/* What tag_set.tags[] has for a hardware queue: a struct blk_mq_tags, in which drivers look requests up by their tags. */
uint64_t linux_scsi_host_tags(struct linux_scsi_host *host, unsigned queue);
/* The world of the error handler is woken when commands failed, or came back to it. */
void linux_scsi_host_watch(struct linux_scsi_host *host, uint64_t task);
/* The hardware or its driver is dead: every command ends now, with DID_NO_CONNECT. How many the driver had. */
unsigned linux_scsi_host_end(struct linux_scsi_host *host);
void linux_scsi_host_free(struct linux_scsi_host *host);
/* How many commands the driver has, and how many of them wait for the error handler. */
void linux_scsi_host_load(struct linux_scsi_host *host, uint32_t *busy, uint32_t *failed);
/* Sends what waits and may go. */
void linux_scsi_run(struct linux_scsi_host *host);
struct linux_scsi_device *linux_scsi_device_create(struct linux_scsi_host *host, uint64_t sdev);
/* The device leaves its host: its commands end. The memory goes when nobody can be inside a call with it any more. */
void linux_scsi_device_end(struct linux_scsi_device *device);
void linux_scsi_device_free(struct linux_scsi_device *device);
/* How many bytes of a command's data the device can take in one command; all of them, or as many as its limits allow of the
 * pieces that they lie in. */
uint32_t linux_scsi_fits(struct linux_scsi_device *device, const struct linux_scsi_io *io);
/* How many commands were taken, in their order, or, none, -ENODEV or -EMSGSIZE: the data of one does not fit. */
int linux_scsi_submit(struct linux_scsi_device *device, const struct linux_scsi_io *ios, unsigned count);
/* Fetches what ended. How many. */
int linux_scsi_reap(struct linux_scsi_device *device, struct linux_scsi_done *out, unsigned max);
/* Waits, for a program, until there is something to reap, or the device ended. Whether there is. */
int linux_scsi_wait(struct linux_scsi_device *device, uint64_t timeout_ns);
/* Sends one command and waits for its end, also inside kernel code. 0, -ENODEV or -EINTR. */
int linux_scsi_execute(struct linux_scsi_device *device, const struct linux_scsi_io *io, struct linux_scsi_done *out);
void linux_scsi_stats(struct linux_scsi_device *device, struct linux_scsi_stats *out);
/* Error handling, with the baton held; commands by the address of their scsi_cmnd. Those whose time is up; give one its time
 * again; take one away from the driver (0: it came back meanwhile; GIVEN_UP: the driver asked for that); hand it to the error
 * handler; let one go on, to be sent again if its retries leave one, else to end as its result says; whether one that the error
 * handler sent came back; those that the error handler has; what is to become of one by its sense data, as scsi_check_sense
 * says it. */
enum { LINUX_SCSI_TIMED_OUT = 1, LINUX_SCSI_GIVEN_UP = 2 };
int linux_scsi_expired(struct linux_scsi_host *host, uint64_t *cmnds, unsigned max);
void linux_scsi_prolong(uint64_t cmnd);
int linux_scsi_expire(uint64_t cmnd);
void linux_scsi_fail(uint64_t cmnd);
void linux_scsi_release(uint64_t cmnd);
int linux_scsi_eh_back(uint64_t cmnd);
int linux_scsi_failed(struct linux_scsi_host *host, uint64_t *cmnds, unsigned max);
int linux_scsi_check_sense(uint64_t cmnd);

/* What the mid-layer decides by numbers alone, for drivers of both engines. */
/* What becomes of a command that came back: it ends, is sent again, is sent again a little later and that is not counted, or goes to
 * the error handler; SENSE: that is in its sense data. */
enum { LINUX_SCSI_FINISH, LINUX_SCSI_RETRY, LINUX_SCSI_REQUEUE, LINUX_SCSI_FAIL, LINUX_SCSI_SENSE };
/* By its result, as scsi_cmnd has it, and its operation code (scsi_decide_disposition). */
int linux_scsi_judge_result(int32_t result, uint8_t opcode);
/* What of a device, and of a command, its sense data are judged by: a unit attention is expected; the device may be started; its
 * hardware errors are worth another try; the error handler sent the command. */
enum { LINUX_SCSI_EXPECTS_UA = 1, LINUX_SCSI_ALLOW_RESTART = 2, LINUX_SCSI_RETRY_HWERROR = 4, LINUX_SCSI_BY_EH = 8 };
/* Beside one of the above: the unit attention that was expected, or one that was not. */
enum { LINUX_SCSI_EXPECTED = 0x100, LINUX_SCSI_UNASKED = 0x200 };
/* By its 96 bytes of sense data (scsi_check_sense). */
int linux_scsi_judge_sense(const uint8_t *sense, uint8_t opcode, uint32_t traits);
/* What one segment of a scatter list, and all of them, may be: masks, bytes, how many. */
struct linux_sg_limits { uint64_t boundary, virt_boundary, alignment; uint32_t size, segments; };
/* Cuts `length` bytes of data, which lie in `count` pieces from byte `offset` of them on, into segments, and writes them to `out`, unless that
 * is NULL. How many; `*fits`: how many bytes they hold, less than all where one command cannot carry more. */
uint32_t linux_sg_cut(const struct linux_sg_limits *limits, const struct vmk_sg_elem *pieces, uint32_t count, uint64_t offset,
                      uint32_t length, struct vmk_sg_elem *out, uint32_t *fits);

/* ---- END CDEF ---- */

#define LINUX_ABSENT UINT32_MAX

#define LINUX_FIELDS(F)                                                                                             \
    F(sk_buff, head, "sk_buff.head")                                                                                \
    F(sk_buff, data, "sk_buff.data")                                                                                \
    F(sk_buff, tail, "sk_buff.tail")                                                                                \
    F(sk_buff, end, "sk_buff.end")                                                                                  \
    F(sk_buff, len, "sk_buff.len")                                                                                  \
    F(sk_buff, data_len, "sk_buff.data_len")                                                                        \
    F(sk_buff, truesize, "sk_buff.truesize")                                                                        \
    F(sk_buff, users, "sk_buff.users")                                                                              \
    F(sk_buff, dev, "sk_buff.dev")                                                                                  \
    F(sk_buff, protocol, "sk_buff.protocol")                                                                        \
    F(sk_buff, queue_mapping, "sk_buff.queue_mapping")                                                              \
    F(sk_buff, mac_header, "sk_buff.mac_header")                                                                    \
    F(sk_buff, network_header, "sk_buff.network_header")                                                            \
    F(sk_buff, transport_header, "sk_buff.transport_header")                                                        \
    F(sk_buff, csum_start, "sk_buff.csum_start")                                                                    \
    F(sk_buff, csum_offset, "sk_buff.csum_offset")                                                                  \
    F(sk_buff, vlan_tci, "sk_buff.vlan_tci")                                                                        \
    F(sk_buff, vlan_proto, "sk_buff.vlan_proto")                                                                    \
    F(sk_buff, destructor, "sk_buff.destructor")                                                                    \
    F(skb_shared_info, dataref, "skb_shared_info.dataref")                                                          \
    F(skb_shared_info, nr_frags, "skb_shared_info.nr_frags")                                                        \
    F(skb_shared_info, frags, "skb_shared_info.frags")                                                              \
    F(skb_shared_info, frag_list, "skb_shared_info.frag_list")                                                      \
    F(skb_shared_info, gso_size, "skb_shared_info.gso_size")                                                        \
    F(skb_shared_info, gso_segs, "skb_shared_info.gso_segs")                                                        \
    F(skb_shared_info, gso_type, "skb_shared_info.gso_type")                                                        \
    F(skb_frag, page, "?bio_vec.bv_page")                                                                           \
    F(skb_frag, netmem, "?skb_frag.netmem")                                                                         \
    F(skb_frag, size, "?bio_vec.bv_len")                                                                            \
    F(skb_frag, len, "?skb_frag.len")                                                                               \
    F(skb_frag, bv_offset, "?bio_vec.bv_offset")                                                                    \
    F(skb_frag, offset, "?skb_frag.offset")                                                                         \
    F(page, refcount, "page._refcount")                                                                             \
    F(page, flags, "page.flags")                                                                                    \
    F(page, compound_head, "page.compound_head")                                                                    \
    F(page, pp_magic, "page.pp_magic")                                                                              \
    F(page, pp, "page.pp")                                                                                          \
    F(page, dma_addr, "page.dma_addr")                                                                              \
    F(page, pp_ref_count, "?page.pp_ref_count")                                                                     \
    F(page, pp_frag_count, "?page.pp_frag_count")                                                                   \
    F(page_pool, p, "page_pool.p")                                                                                  \
    F(page_pool, order, "page_pool.p.order")                                                                        \
    F(page_pool, slow, "?page_pool.slow")                                                                           \
    F(page_pool, user_cnt, "page_pool.user_cnt")                                                                    \
    F(system_time_snapshot, cycles, "system_time_snapshot.cycles")                                                  \
    F(system_time_snapshot, real, "system_time_snapshot.real")                                                      \
    F(system_time_snapshot, raw, "system_time_snapshot.raw")                                                        \
    F(net_device, features, "net_device.features")                                                                  \
    F(net_device, mtu, "net_device.mtu")                                                                            \
    F(net_device, flags, "net_device.flags")                                                                        \
    F(net_device, state, "net_device.state")                                                                        \
    F(net_device, tx, "net_device._tx")                                                                             \
    F(net_device, netdev_ops, "net_device.netdev_ops")                                                              \
    F(net_device, real_num_tx_queues, "net_device.real_num_tx_queues")                                              \
    F(net_device_ops, ndo_start_xmit, "net_device_ops.ndo_start_xmit")                                              \
    F(net_device, gso_max_size, "net_device.gso_max_size")                                                          \
    F(net_device, gso_max_segs, "net_device.gso_max_segs")                                                          \
    F(net_device_ops, ndo_select_queue, "net_device_ops.ndo_select_queue")                                          \
    F(netdev_queue, state, "netdev_queue.state")                                                                    \
    F(netdev_queue, dev, "netdev_queue.dev")                                                                        \
    F(netdev_queue, trans_start, "netdev_queue.trans_start")                                                        \
    F(softnet_data, more, "softnet_data.xmit.more")                                                                 \
    F(napi_struct, poll_list, "napi_struct.poll_list")                                                              \
    F(napi_struct, state, "napi_struct.state")                                                                      \
    F(napi_struct, weight, "napi_struct.weight")                                                                    \
    F(napi_struct, poll, "napi_struct.poll")                                                                        \
    F(napi_struct, dev, "napi_struct.dev")                                                                          \
    F(napi_struct, dev_list, "napi_struct.dev_list")                                                                \
    F(napi_struct, skb, "napi_struct.skb")                                                                          \
    F(net_device, napi_list, "net_device.napi_list")                                                                \
    F(task_struct, state, "task_struct.__state")                                                                    \
    F(task_struct, comm, "task_struct.comm")                                                                        \
    F(task_struct, pid, "task_struct.pid")                                                                          \
    F(mutex, owner, "mutex.owner")                                                                                  \
    F(completion, done, "completion.done")                                                                          \
    F(semaphore, count, "semaphore.count")                                                                          \
    F(rw_semaphore, count, "rw_semaphore.count")                                                                    \
    F(wait_queue_entry, private, "wait_queue_entry.private")                                                        \
    F(kmem_cache, size, "kmem_cache.size")                                                                          \
    F(kmem_cache, align, "kmem_cache.align")                                                                        \
    F(xa_node, private_list, "xa_node.private_list")                                                                \
    F(kmem_cache, ctor, "kmem_cache.ctor")                                                                          \
    F(kmem_cache_args, align, "?kmem_cache_args.align")                                                             \
    F(kmem_cache_args, ctor, "?kmem_cache_args.ctor")                                                               \
    F(sbitmap, map_nr, "sbitmap.map_nr")                                                                            \
    F(sbitmap, map, "sbitmap.map")                                                                                  \
    F(sbitmap_word, word, "sbitmap_word.word")                                                                      \
    F(sbitmap_word, cleared, "sbitmap_word.cleared")                                                                \
    F(tasklet_struct, next, "tasklet_struct.next")                                                                  \
    F(tasklet_struct, state, "tasklet_struct.state")                                                                \
    F(tasklet_struct, count, "tasklet_struct.count")                                                                \
    F(tasklet_struct, use_callback, "tasklet_struct.use_callback")                                                  \
    F(tasklet_struct, func, "tasklet_struct.func")                                                                  \
    F(tasklet_struct, data, "tasklet_struct.data")                                                                  \
    F(irq_poll, list, "irq_poll.list")                                                                              \
    F(irq_poll, state, "irq_poll.state")                                                                            \
    F(irq_poll, weight, "irq_poll.weight")                                                                          \
    F(irq_poll, poll, "irq_poll.poll") \
    F(Scsi_Host, tag_set, "scsi_mod:Scsi_Host.tag_set")                                                             \
    F(Scsi_Host, hostt, "scsi_mod:Scsi_Host.hostt")                                                                 \
    F(Scsi_Host, can_queue, "scsi_mod:Scsi_Host.can_queue")                                                         \
    F(Scsi_Host, sg_tablesize, "scsi_mod:Scsi_Host.sg_tablesize")                                                   \
    F(Scsi_Host, shost_state, "scsi_mod:Scsi_Host.shost_state")                                                     \
    F(Scsi_Host, dma_dev, "scsi_mod:Scsi_Host.dma_dev")                                                             \
    F(Scsi_Host, eh_cmd_q, "scsi_mod:Scsi_Host.eh_cmd_q")                                                           \
    F(Scsi_Host, host_failed, "scsi_mod:Scsi_Host.host_failed")                                                     \
    F(scsi_host_template, cmd_size, "scsi_mod:scsi_host_template.cmd_size")                                         \
    F(scsi_host_template, queuecommand, "scsi_mod:scsi_host_template.queuecommand")                                 \
    F(scsi_host_template, commit_rqs, "scsi_mod:scsi_host_template.commit_rqs")                                     \
    F(scsi_host_template, init_cmd_priv, "scsi_mod:scsi_host_template.init_cmd_priv")                               \
    F(scsi_host_template, exit_cmd_priv, "scsi_mod:scsi_host_template.exit_cmd_priv")                               \
    F(scsi_device, host, "scsi_mod:scsi_device.host")                                                               \
    F(scsi_device, request_queue, "scsi_mod:scsi_device.request_queue")                                             \
    F(scsi_device, sdev_state, "scsi_mod:scsi_device.sdev_state")                                                   \
    F(scsi_device, queue_depth, "scsi_mod:scsi_device.queue_depth")                                                 \
    F(scsi_device, budget_map, "scsi_mod:scsi_device.budget_map")                                                   \
    F(scsi_device, handler, "scsi_mod:scsi_device.handler")                                                         \
    F(scsi_device_handler, check_sense, "scsi_mod:scsi_device_handler.check_sense")                                 \
    F(scsi_device, lun, "scsi_mod:scsi_device.lun")                                                                 \
    F(scsi_device, sector_size, "scsi_mod:scsi_device.sector_size")                                                 \
    F(scsi_device, iorequest_cnt, "scsi_mod:scsi_device.iorequest_cnt")                                             \
    F(scsi_device, iodone_cnt, "scsi_mod:scsi_device.iodone_cnt")                                                   \
    F(scsi_device, iotmo_cnt, "scsi_mod:scsi_device.iotmo_cnt")                                                     \
    F(scsi_host_template, eh_should_retry_cmd, "scsi_mod:scsi_host_template.eh_should_retry_cmd")                   \
    F(scsi_cmnd, device, "scsi_mod:scsi_cmnd.device")                                                               \
    F(scsi_cmnd, eh_entry, "scsi_mod:scsi_cmnd.eh_entry")                                                           \
    F(scsi_cmnd, jiffies_at_alloc, "scsi_mod:scsi_cmnd.jiffies_at_alloc")                                           \
    F(scsi_cmnd, retries, "scsi_mod:scsi_cmnd.retries")                                                             \
    F(scsi_cmnd, allowed, "scsi_mod:scsi_cmnd.allowed")                                                             \
    F(scsi_cmnd, submitter, "scsi_mod:scsi_cmnd.submitter")                                                         \
    F(scsi_cmnd, cmd_len, "scsi_mod:scsi_cmnd.cmd_len")                                                             \
    F(scsi_cmnd, cmnd, "scsi_mod:scsi_cmnd.cmnd")                                                                   \
    F(scsi_cmnd, sdb, "scsi_mod:scsi_cmnd.sdb")                                                                     \
    F(scsi_cmnd, underflow, "scsi_mod:scsi_cmnd.underflow")                                                         \
    F(scsi_cmnd, transfersize, "scsi_mod:scsi_cmnd.transfersize")                                                   \
    F(scsi_cmnd, resid_len, "scsi_mod:scsi_cmnd.resid_len")                                                         \
    F(scsi_cmnd, sense_buffer, "scsi_mod:scsi_cmnd.sense_buffer")                                                   \
    F(scsi_cmnd, flags, "scsi_mod:scsi_cmnd.flags")                                                                 \
    F(scsi_cmnd, state, "scsi_mod:scsi_cmnd.state")                                                                 \
    F(scsi_cmnd, result, "scsi_mod:scsi_cmnd.result")                                                               \
    F(scsi_cmnd, direction, "scsi_mod:scsi_cmnd.sc_data_direction")                                                 \
    F(scsi_data_buffer, length, "scsi_mod:scsi_data_buffer.length")                                                 \
    F(request, q, "request.q")                                                                                      \
    F(request, mq_hctx, "request.mq_hctx")                                                                          \
    F(request, cmd_flags, "request.cmd_flags")                                                                      \
    F(request, tag, "request.tag")                                                                                  \
    F(request, internal_tag, "request.internal_tag")                                                                \
    F(request, timeout, "request.timeout")                                                                          \
    F(request, nr_phys_segments, "request.nr_phys_segments")                                                        \
    F(request, state, "request.state")                                                                              \
    F(request, ref, "request.ref")                                                                                  \
    F(request, data_len, "request.__data_len")                                                                      \
    F(request, sector, "request.__sector")                                                                          \
    F(request_queue, seg_boundary_mask, "request_queue.limits.seg_boundary_mask")                                   \
    F(request_queue, virt_boundary_mask, "request_queue.limits.virt_boundary_mask")                                 \
    F(request_queue, max_segment_size, "request_queue.limits.max_segment_size")                                     \
    F(request_queue, max_segments, "request_queue.limits.max_segments")                                             \
    F(request_queue, dma_alignment, "request_queue.limits.dma_alignment")                                           \
    F(blk_mq_hw_ctx, queue_num, "blk_mq_hw_ctx.queue_num")                                                          \
    F(blk_mq_tags, nr_tags, "blk_mq_tags.nr_tags")                                                                  \
    F(blk_mq_tags, rqs, "blk_mq_tags.rqs")                                                                          \
    F(sg_table, sgl, "sg_table.sgl")                                                                                \
    F(sg_table, nents, "sg_table.nents")                                                                            \
    F(sg_table, orig_nents, "sg_table.orig_nents")                                                                  \
    F(scatterlist, page_link, "scatterlist.page_link")                                                              \
    F(scatterlist, offset, "scatterlist.offset")                                                                    \
    F(scatterlist, length, "scatterlist.length")                                                                    \
    F(scatterlist, dma_address, "scatterlist.dma_address")                                                          \
    F(scatterlist, dma_length, "scatterlist.dma_length")

#define LINUX_BITS(F)                                                                                               \
    F(sk_buff, cloned, "sk_buff.cloned")                                                                            \
    F(sk_buff, nohdr, "sk_buff.nohdr")                                                                              \
    F(sk_buff, head_frag, "sk_buff.head_frag")                                                                      \
    F(sk_buff, pp_recycle, "sk_buff.pp_recycle")                                                                    \
    F(sk_buff, ip_summed, "sk_buff.ip_summed")                                                                      \
    F(sk_buff, vlan_present, "?sk_buff.vlan_present") \
    F(scsi_device, simple_tags, "scsi_mod:scsi_device.simple_tags")                                                 \
    F(scsi_device, lun_in_cdb, "scsi_mod:scsi_device.lun_in_cdb")                                                   \
    F(scsi_device, expecting_cc_ua, "scsi_mod:scsi_device.expecting_cc_ua")                                         \
    F(scsi_device, allow_restart, "scsi_mod:scsi_device.allow_restart")                                             \
    F(scsi_device, retry_hwerror, "scsi_mod:scsi_device.retry_hwerror")                                             \
    F(Scsi_Host, host_self_blocked, "scsi_mod:Scsi_Host.host_self_blocked")                                         \
    F(Scsi_Host, tmf_in_progress, "scsi_mod:Scsi_Host.tmf_in_progress")

#define LINUX_SIZES(F)                                                                                              \
    F(blk_mq_tags, "blk_mq_tags")                                                                                   \
    F(sk_buff, "sk_buff")                                                                                           \
    F(skb_shared_info, "skb_shared_info")                                                                           \
    F(skb_frag, "?skb_frag")                                                                                        \
    F(bio_vec, "bio_vec")                                                                                           \
    F(page, "page")                                                                                                 \
    F(page_pool, "page_pool")                                                                                       \
    F(page_pool_params, "page_pool_params")                                                                         \
    F(page_pool_params_fast, "?page_pool_params_fast")                                                              \
    F(xa_node, "xa_node")                                                                                           \
    F(system_time_snapshot, "system_time_snapshot")                                                                 \
    F(netdev_queue, "netdev_queue")                                                                                 \
    F(task_struct, "task_struct")                                                                                   \
    F(sbitmap_word, "sbitmap_word") \
    F(kmem_cache, "kmem_cache") \
    F(request, "request")                                                                                           \
    F(scatterlist, "scatterlist")                                                                                   \
    F(scsi_cmnd, "scsi_mod:scsi_cmnd")

#define LINUX_ENUMS(F)                                                                                              \
    F(NAPI_STATE_SCHED, "NAPI_STATE_SCHED")                                                                         \
    F(NAPI_STATE_MISSED, "NAPI_STATE_MISSED")                                                                       \
    F(NAPI_STATE_DISABLE, "NAPI_STATE_DISABLE")                                                                     \
    F(NAPI_STATE_NPSVC, "NAPI_STATE_NPSVC")                                                                         \
    F(NAPI_STATE_LISTED, "NAPI_STATE_LISTED")                                                                       \
    F(QUEUE_STATE_DRV_XOFF, "__QUEUE_STATE_DRV_XOFF")                                                               \
    F(QUEUE_STATE_STACK_XOFF, "__QUEUE_STATE_STACK_XOFF")                                                           \
    F(QUEUE_STATE_FROZEN, "__QUEUE_STATE_FROZEN")                                                                   \
    F(LINK_STATE_START, "__LINK_STATE_START")                                                                       \
    F(LINK_STATE_NOCARRIER, "__LINK_STATE_NOCARRIER")                                                               \
    F(NETIF_F_HW_CSUM, "NETIF_F_HW_CSUM_BIT")                                                                       \
    F(NETIF_F_IP_CSUM, "NETIF_F_IP_CSUM_BIT")                                                                       \
    F(NETIF_F_IPV6_CSUM, "NETIF_F_IPV6_CSUM_BIT")                                                                   \
    F(NETIF_F_TSO, "NETIF_F_TSO_BIT")                                                                               \
    F(NETIF_F_TSO6, "NETIF_F_TSO6_BIT")                                                                             \
    F(NETIF_F_SG, "NETIF_F_SG_BIT")                                                                                 \
    F(NETIF_F_GRO, "NETIF_F_GRO_BIT")                                                                               \
    F(PG_head, "PG_head")                                                                                           \
    F(TK_OFFS_REAL, "TK_OFFS_REAL")                                                                                 \
    F(TK_OFFS_BOOT, "TK_OFFS_BOOT")                                                                                 \
    F(SKB_GSO_TCPV4, "SKB_GSO_TCPV4")                                                                               \
    F(SKB_GSO_TCPV6, "SKB_GSO_TCPV6")                                                                               \
    F(TASKLET_STATE_SCHED, "TASKLET_STATE_SCHED")                                                                   \
    F(TASKLET_STATE_RUN, "TASKLET_STATE_RUN")                                                                       \
    F(IRQ_POLL_F_SCHED, "IRQ_POLL_F_SCHED")                                                                         \
    F(IRQ_POLL_F_DISABLE, "IRQ_POLL_F_DISABLE") \
    F(MQ_RQ_IDLE, "MQ_RQ_IDLE")                                                                                     \
    F(MQ_RQ_IN_FLIGHT, "MQ_RQ_IN_FLIGHT")                                                                           \
    F(SHOST_RUNNING, "scsi_mod:SHOST_RUNNING")                                                                      \
    F(SHOST_RECOVERY, "scsi_mod:SHOST_RECOVERY")                                                                    \
    F(SHOST_CANCEL, "scsi_mod:SHOST_CANCEL")                                                                        \
    F(SHOST_CANCEL_RECOVERY, "scsi_mod:SHOST_CANCEL_RECOVERY")                                                      \
    F(SHOST_DEL_RECOVERY, "scsi_mod:SHOST_DEL_RECOVERY")                                                            \
    F(SDEV_DEL, "scsi_mod:SDEV_DEL")                                                                                \
    F(SDEV_QUIESCE, "scsi_mod:SDEV_QUIESCE")                                                                        \
    F(SDEV_OFFLINE, "scsi_mod:SDEV_OFFLINE")                                                                        \
    F(SDEV_TRANSPORT_OFFLINE, "scsi_mod:SDEV_TRANSPORT_OFFLINE")                                                    \
    F(SDEV_BLOCK, "scsi_mod:SDEV_BLOCK")                                                                            \
    F(SDEV_CREATED_BLOCK, "scsi_mod:SDEV_CREATED_BLOCK")                                                            \
    F(SUBMITTED_BY_SCSI_ERROR_HANDLER, "scsi_mod:SUBMITTED_BY_SCSI_ERROR_HANDLER")

#define LINUX_SYMBOLS(F)                                                                                            \
    F(jiffies, "jiffies")                                                                                           \
    F(skb_copy_bits, "skb_copy_bits")                                                                               \
    F(page_offset_base, "page_offset_base")                                                                         \
    F(vmemmap_base, "vmemmap_base")                                                                                 \
    F(softnet_data, "softnet_data")

#define LINUX_ENTRY(a, b, name) L_##a##__##b,
enum { LINUX_FIELDS(LINUX_ENTRY) LINUX_FIELD_COUNT };
#undef LINUX_ENTRY
#define LINUX_ENTRY(a, b, name) B_##a##__##b,
enum { LINUX_BITS(LINUX_ENTRY) LINUX_BITS_COUNT };
#undef LINUX_ENTRY
#define LINUX_ENTRY(a, name) S_##a,
enum { LINUX_SIZES(LINUX_ENTRY) LINUX_SIZE_COUNT };
#undef LINUX_ENTRY
#define LINUX_ENTRY(a, name) E_##a,
enum { LINUX_ENUMS(LINUX_ENTRY) LINUX_ENUM_COUNT };
#undef LINUX_ENTRY
#define LINUX_ENTRY(a, name) Y_##a,
enum { LINUX_SYMBOLS(LINUX_ENTRY) LINUX_SYMBOL_COUNT };
#undef LINUX_ENTRY

extern uint32_t linux_field[LINUX_FIELD_COUNT], linux_size[LINUX_SIZE_COUNT];
extern int64_t linux_enum[LINUX_ENUM_COUNT];
extern uint64_t linux_symbol[LINUX_SYMBOL_COUNT];
extern struct linux_bits { uint32_t byte, shift, mask; } linux_bits[LINUX_BITS_COUNT];

/* FIELD(skb, sk_buff, len, uint32_t): an lvalue. BITS_GET/BITS_SET: a bit field. */
#define FIELD(object, structure, member, type)                                                                      \
    (*(__typeof__(type) *)((char *)(object) + linux_field[L_##structure##__##member]))
#define INNER(object, structure, member) ((char *)(object) + linux_field[L_##structure##__##member])
#define HAS_FIELD(structure, member) (linux_field[L_##structure##__##member] != LINUX_ABSENT)
#define HAS_BITS(structure, member) (linux_bits[B_##structure##__##member].byte != LINUX_ABSENT)
#define SIZE(structure) linux_size[S_##structure]
#define ENUM(name) linux_enum[E_##name]
#define SYMBOL(name) linux_symbol[Y_##name]

static inline uint32_t linux_bits_get(const void *object, unsigned which)
{
    const struct linux_bits *bits = &linux_bits[which];
    return *((const uint8_t *)object + bits->byte) >> bits->shift & bits->mask;
}
static inline void linux_bits_put(void *object, unsigned which, uint32_t value)
{
    const struct linux_bits *bits = &linux_bits[which];
    uint8_t *byte = (uint8_t *)object + bits->byte;
    *byte = (uint8_t)((*byte & ~(bits->mask << bits->shift)) | (value & bits->mask) << bits->shift);
}
#define BITS_GET(object, structure, member) linux_bits_get(object, B_##structure##__##member)
#define BITS_SET(object, structure, member, value) linux_bits_put(object, B_##structure##__##member, value)

/* The code that called the emulated function in which this stands (through linux_thunk_c). */
#define CALLER() (((uint64_t *)*(uint64_t *)__builtin_frame_address(0))[1])
#define SITE() vmk_site(CALLER())

struct list_head { struct list_head *next, *prev; };
static inline void list_init(struct list_head *list) { list->next = list->prev = list; }
static inline void list_add_tail(struct list_head *entry, struct list_head *head)
{
    entry->prev = head->prev;
    entry->next = head;
    head->prev->next = entry;
    head->prev = entry;
}
static inline void list_del(struct list_head *entry)
{
    entry->next->prev = entry->prev;
    entry->prev->next = entry->next;
    list_init(entry);
}

/* netdevice.c and gro.c: what an uplink holds of a net_device. */
#define LINUX_PORT_RING 4096u /* frames that wait for receive(); a power of two */
#define LINUX_GRO_FLOWS 8
struct linux_gro_flow {
    void *skb, *last; /* the first segment; the last of those chained to it, NULL when there is only one */
    uint32_t next_sequence;
    uint16_t headers, segment, count; /* bytes before the payload, bytes of payload in the first, how many segments */
};
struct linux_port {
    uint64_t device;
    uint32_t owner;
    unsigned head, tail; /* of ring; head - tail frames wait */
    unsigned blocked;    /* the transmit queue that took no more */
    bool ended;
    struct port_waiters waiters;
    struct linux_port_stats stats;
    struct linux_gro_flow flows[LINUX_GRO_FLOWS];
    void *ring[LINUX_PORT_RING];
};
struct linux_port *linux_port_of(uint64_t device);
void linux_port_wake(struct linux_port *port);
/* Hands up what is held back to be merged; drops it. */
void linux_gro_flush(uint64_t device);
void linux_gro_drop(struct linux_port *port);

#define CHECKSUM_UNNECESSARY 1 /* include/linux/skbuff.h */
#define CHECKSUM_PARTIAL 3

/* Emulated functions that other C files call. */
uint64_t linux_pages_new(uint32_t order, uint32_t site);
uint64_t linux_page_address(uint64_t page);
/* Adds a fragment, from the beginning of a page on, to a skb_shared_info. */
void linux_frag_add(void *info, uint64_t page, uint32_t size);
/* Where a fragment lies, and its bytes. */
const char *linux_frag_data(const void *frag, uint32_t *size);
void kfree_skb_now(void *skb);
void *skb_new(uint32_t room, uint32_t headroom, uint32_t site);
/* A copy of an skb with all that describes it, but without data; `room` for some behind `headroom`. NULL: no memory. */
void *linux_skb_like(void *skb, uint32_t room, uint32_t headroom, uint32_t site);
/* Puts `length` bytes of another skb, from `offset` on, behind the (linear) data. */
void linux_skb_append(void *to, void *from, uint32_t offset, uint32_t length);
/* The skb_shared_info of an skb. */
static inline void *linux_skb_info(void *skb)
{
    return FIELD(skb, sk_buff, head, uint8_t *) + FIELD(skb, sk_buff, end, uint32_t);
}
/* Pages of a pool: one holder of a part of the page less; false: that was the last, and the page is an ordinary one. */
bool linux_page_pool_keeps(uint64_t page);
void linux_page_put(uint64_t page);
void linux_frag_free(uint64_t address, uint32_t site);
uint64_t linux_frag_page(const void *frag);
uint32_t linux_frag_size(void);
void linux_napi_start(void);
bool linux_softirq_run(void); /* netdevice.c: NET_RX; whether work is left */
void linux_softirq_start(void);
/* scsi_lib.c: BLOCK, the softirq in which commands that came back are judged. */
void linux_scsi_softirq(void);
bool linux_scsi_waiting(void);
/* dma.c: fills in the DMA addresses of a scatter list. */
void linux_sg_addresses(uint64_t sg, uint32_t count);

/* dma.c: one mapping of a device's more, or less. */
bool linux_dma_count(uint64_t device, int change);
/* jiffies.c */
/* Ticks a second. */
unsigned linux_hz(void);
void linux_jiffies_start(unsigned hz);
void linux_jiffies_stop(void);

#define LINUX_TABLES(T)                                                                                             \
    T(mm) T(sched) T(softirq) T(timekeeping) T(skbuff) T(skb_copy) T(gso) T(gro) T(netdevice) T(page_pool) T(dma) T(dmapool) T(io) \
    T(flow_dissector) T(scsi_lib) T(scsi_sg) T(scsi_error) T(blk_mq) T(crc_t10dif)
#define LINUX_TABLE(name) extern const struct linux_api name##_api[];
LINUX_TABLES(LINUX_TABLE)
#undef LINUX_TABLE
#define API(function, status, summary, note) {#function, (void *)(function), status, summary, note, __FILE__}
#define API_AS(name, function, status, summary, note) {name, (void *)(function), status, summary, note, __FILE__}
#define API_END {NULL, NULL, NULL, NULL, NULL, NULL}

#endif
