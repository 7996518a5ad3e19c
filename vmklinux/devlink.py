"""devlink (Linux net/devlink): a device's settings beyond those of its ports, asked for through netlink.

Nobody can ask here, so an instance holds the driver's private data, and what is registered with it stays unasked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core._core import lib
from vmklinux.api import linux_api, no_op
from vmklinux.kobject import Obj

if TYPE_CHECKING:
    from vmklinux.linux import Linux


@linux_api()
def devlink_alloc_ns(linux: Linux, ops: Obj, priv_size: int, net: Obj, dev: Obj) -> int:
    """Make an instance with the driver's private data behind it."""
    size = linux.types.sizeof("devlink") + priv_size
    devlink = Obj(linux.types, "devlink", linux.allocate(size, lib.vmk_owner()))
    devlink.ops = ops
    devlink.dev = dev
    return int(devlink)


@linux_api()
def devlink_free(linux: Linux, devlink: Obj) -> None:
    """Free an instance."""
    linux.free(devlink)


@linux_api(note="A dump is not kept: nobody could read it.")
def devlink_health_report(linux: Linux, reporter: Obj, msg: int, priv_ctx: int) -> int:
    """Have the driver recover what it reports to be broken."""
    recover = reporter.ops.recover
    return linux.call_int(recover, reporter, priv_ctx, 0) if recover else 0


@linux_api("devl_health_reporter_create")
def devlink_health_reporter_create(
    linux: Linux, devlink: Obj, ops: Obj, graceful_period: int, priv: int
) -> int:
    """Make a reporter of what goes wrong."""
    reporter = linux.new("devlink_health_reporter", lib.vmk_owner())
    reporter.ops, reporter.priv, reporter.devlink = ops, priv, devlink
    return int(reporter)


@linux_api("devl_health_reporter_destroy")
def devlink_health_reporter_destroy(linux: Linux, reporter: Obj) -> None:
    """Free a reporter."""
    linux.free(reporter)


no_op(
    "devlink.py",
    "No netlink: nobody can see an instance, set its parameters, read what it tells or watch it being flashed.",
    "devlink_register", "devlink_unregister", "devl_register", "devl_unregister", "devlink_set_features",
    "devlink_params_register", "devlink_params_unregister", "devl_params_register", "devl_params_unregister",
    "devlink_param_driverinit_value_set", "devl_param_driverinit_value_set", "devlink_param_value_changed",
    "devl_param_value_changed", "devlink_flash_update_status_notify", "devlink_flash_update_timeout_notify",
    "devlink_health_reporter_state_update", "devlink_health_reporter_recovery_done", "devlink_info_driver_name_put",
    "devlink_info_serial_number_put", "devlink_info_board_serial_number_put", "devlink_info_version_fixed_put",
    "devlink_info_version_running_put", "devlink_info_version_running_put_ext", "devlink_info_version_stored_put",
    "devlink_info_version_stored_put_ext", "devlink_fmsg_u8_pair_put", "devlink_fmsg_u32_pair_put",
    "devlink_fmsg_u64_pair_put", "devlink_fmsg_bool_pair_put", "devlink_fmsg_string_pair_put",
    "devlink_fmsg_binary_pair_put", "devlink_fmsg_obj_nest_start", "devlink_fmsg_obj_nest_end",
    "devlink_fmsg_pair_nest_start", "devlink_fmsg_pair_nest_end", "devlink_fmsg_arr_pair_nest_start",
    "devlink_fmsg_arr_pair_nest_end", "devlink_port_register", "devlink_port_register_with_ops",
    "devlink_port_unregister", "devlink_port_type_eth_set", "devlink_port_type_clear", "devlink_fmsg_u32_put",
)  # fmt: skip
