"""XDP and its sockets (Linux net/core/xdp.c, net/xdp): no program can be attached here, as nothing calls ndo_bpf.

Drivers' registrations of their queues run from the image; they only fill in the driver's own structs.
"""

from __future__ import annotations

from vmklinux.api import no_op

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
