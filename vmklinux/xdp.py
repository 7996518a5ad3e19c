"""XDP and its sockets (Linux net/core/xdp.c, net/xdp): no program can be attached here, as nothing calls ndo_bpf.

Drivers register their queues all the same. That only fills in the driver's own struct, which the image does, but where
frames come from a page pool: the queue then holds the pool until it is gone, in a table of the image's that would
outlive the driver. That part is here.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmklinux.api import linux_api, no_op
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux

_REGISTERED, _UNREGISTERED, _UNUSED = 1, 2, 3  # REG_STATE_* (include/net/xdp.h)


class XdpPools:
    """The page pools that queues hold, by the id in their xdp_mem_info."""

    def __init__(self, linux: Linux) -> None:
        """None yet."""
        self.linux = linux
        self.held: dict[int, int] = {}

    def hold(self, pool: int) -> int:
        """The id under which the pool is held from now on."""
        Obj(self.linux.types, "page_pool", pool).user_cnt.refs.counter += 1
        number = next(number for number in range(1, len(self.held) + 2) if number not in self.held)
        self.held[number] = pool
        return number

    def drop(self, number: int) -> None:
        """Let go of a pool."""
        self.linux.call(self.linux.entry("page_pool_destroy"), self.held.pop(number))


@linux_api()
def xdp_reg_mem_model(linux: Linux, mem: Obj, type: int, allocator: int) -> int:
    """Note where a queue's frames come from; a page pool is held."""
    pooled = type == linux.types.enumerator("MEM_TYPE_PAGE_POOL")
    if pooled and not allocator:
        return -errno.EINVAL
    mem.type = type
    if pooled:
        mem.id = linux.state(XdpPools).hold(allocator)
    return 0


@linux_api()
def xdp_unreg_mem_model(linux: Linux, mem: Obj) -> None:
    """Forget where a queue's frames come from."""
    number, mem.id, mem.type = mem.id, 0, 0
    if number:
        linux.state(XdpPools).drop(number)


@linux_api()
def xdp_rxq_info_reg_mem_model(linux: Linux, xdp_rxq: Obj, type: int, allocator: int) -> int:
    """Note where a registered queue's frames come from."""
    if xdp_rxq.reg_state != _REGISTERED:
        return -errno.EFAULT
    return xdp_reg_mem_model(linux, xdp_rxq.mem, type, allocator)


@linux_api()
def xdp_rxq_info_unreg_mem_model(linux: Linux, xdp_rxq: Obj) -> None:
    """Forget where a registered queue's frames come from."""
    if xdp_rxq.reg_state == _REGISTERED:
        xdp_unreg_mem_model(linux, xdp_rxq.mem)


@linux_api()
def xdp_rxq_info_unreg(linux: Linux, xdp_rxq: Obj) -> None:
    """Take a queue back."""
    if xdp_rxq.reg_state != _UNUSED:
        xdp_rxq_info_unreg_mem_model(linux, xdp_rxq)
        xdp_rxq.reg_state, xdp_rxq.dev = _UNREGISTERED, 0


no_op(
    "xdp.py",
    "Never reached: no XDP program can be attached, so no frame is in XDP's hands.",
    "xdp_do_redirect", "xdp_do_redirect_frame", "xdp_do_flush", "xdp_master_redirect", "xdp_return_frame",
    "xdp_return_frame_rx_napi", "xdp_return_frame_bulk", "xdp_flush_frame_bulk", "xdp_return_buff",
    "xdp_convert_zc_to_xdp_frame", "bpf_prog_add", "bpf_prog_sub", "bpf_prog_inc", "bpf_prog_put",
    "bpf_warn_invalid_xdp_action",
)  # fmt: skip
no_op(
    "xdp.py",
    "Never reached: no AF_XDP socket can be bound to a queue, so there is no pool of buffers.",
    "xp_alloc", "xp_alloc_batch", "xp_can_alloc", "xp_free", "xp_dma_map", "xp_dma_unmap", "xp_set_rxq_info",
    "xp_fill_cb", "xp_raw_get_data", "xp_raw_get_dma", "xsk_tx_peek_desc", "xsk_tx_peek_release_desc_batch",
    "xsk_tx_release", "xsk_tx_completed", "xsk_set_rx_need_wakeup", "xsk_clear_rx_need_wakeup",
    "xsk_set_tx_need_wakeup", "xsk_clear_tx_need_wakeup", "xsk_uses_need_wakeup", "xp_dma_sync_for_cpu_slow",
    "xp_dma_sync_for_device_slow",
)  # fmt: skip
no_op(
    "xdp.py",
    "No AF_XDP socket can be bound to a queue: there is no pool.",
    "xsk_get_pool_from_qid",
)  # fmt: skip
