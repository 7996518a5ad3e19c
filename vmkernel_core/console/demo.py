"""``vmk demo``: an unmodified Linux driver moves frames to a peer process and back, and every byte is checked."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click
import msgspec

from vmkernel_core.console import traffic
from vmkernel_core.console.interruption import Interruption
from vmkernel_core.console.pattern import MOST_FRAMES
from vmkernel_core.console.result import HclSays, Result, Seconds, judge, show
from vmkernel_core.console.traffic import PeerProcess
from vmkernel_core.errors import TimedOut, UsageError, VmkError
from vmkernel_core.platform.base import PciAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vmkernel_core.boot import Adapter, Policy, VMkernel
    from vmkernel_core.net.uplink import Uplink
    from vmkernel_core.platform.model import ModelPlatform
    from vmkernel_core.platform.qemu import QemuPlatform

#: Seconds for the link to come up; autonegotiation over copper takes about three.
LINK_LIMIT = 10.0

_QEMU = "qemu-system-x86_64"
_QEMU_COMMAND = "apt-get install qemu-system-x86"
_WITHOUT_QEMU = "to do without QEMU, use --platform model"


#: QEMU's properties for a device named without any. Its e1000 negotiates for 0.5 s; the driver, which looked just
#: before, looks again after 2 s. `--device e1000,autonegotiation=on` is the card as it comes.
_PROPERTIES = {
    name: ("autonegotiation=off",) for name in ("e1000", "e1000-82540em", "e1000-82544gc", "e1000-82545em")
}


#: Frames that may be under way to QEMU's cards whose memory holds few: an NE2000 has 13 KB, and keeps room for one more.
_WINDOWS = {"ne2k_pci": 5}


@dataclass(frozen=True, slots=True)
class _Machine:
    """A platform with one network device, and where that sits."""

    platform: QemuPlatform | ModelPlatform
    address: PciAddress


def _qemu(device: str) -> _Machine:
    from vmkernel_core.platform.qemu import QemuPlatform

    slot = 5
    properties = ",".join([device, *_PROPERTIES.get(device, ()), "netdev=wire0", f"addr={slot:#x}"])
    return _Machine(QemuPlatform([properties], binary=_QEMU), PciAddress(0, 0, slot, 0))


def _model(device: str) -> _Machine:
    if device != "e1000":
        raise UsageError(
            f"the model platform has no device {device}",
            remedy="use e1000, or --platform qemu for any of QEMU's",
        )
    from vmkernel_core.platform.e1000_model import E1000Model
    from vmkernel_core.platform.model import ModelPlatform

    return _Machine(ModelPlatform([E1000Model()]), PciAddress(0, 0, 1, 0))


_MACHINES: dict[str, Callable[[str], _Machine]] = {"qemu": _qemu, "model": _model}


@click.command()
@click.option(
    "--device",
    default="e1000",
    show_default=True,
    help="A network device of QEMU's -device for which the kernel has a module.",
)
@click.option(
    "--platform", type=click.Choice(list(_MACHINES)), default="qemu", show_default=True, help="The hardware."
)
@click.option(
    "--frames",
    type=click.IntRange(1, MOST_FRAMES),
    default=1000,
    show_default=True,
    help="How many go each way.",
)
@click.option("--kernel", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@click.option(
    "-p", "settings", metavar="NAME=VALUE", multiple=True, help="A parameter of the module; repeatable."
)
@click.option(
    "--hcl",
    "policy",
    type=click.Choice(["default", "strict"]),
    default="default",
    show_default=True,
    help="Whether a device that the HCL does not name may be driven by a module that claims it.",
)
@click.option("--module", metavar="NAME", help="Load this module instead of the HCL's (unsupported).")
@click.option(
    "--allow-unresolved", is_flag=True, help="Load it even if it needs symbols that nothing here serves."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(
    device: str,
    platform: str,
    frames: int,
    kernel: str | None,
    settings: Sequence[str],
    policy: Policy,
    module: str | None,
    allow_unresolved: bool,
    as_json: bool,
) -> None:
    """Let an unmodified Linux driver move frames, and check them.

    The HCL names the module for the device, or else the kernel's modules say which of them claims it; that is loaded,
    probes the device and brings the link up. N frames of all sizes go out to a peer process, which checks every
    byte, and N come in; then the module is unloaded.
    """
    # The peer starts while this process imports and boots.
    with Interruption() as ctrl_c, PeerProcess() as peer:
        machine = _MACHINES[platform](device)
        from vmkernel_core.boot import VMkernel

        # What fails here is raised below: it need not be in the log too.
        logging.getLogger("vmkernel_core.boot").setLevel(logging.CRITICAL)
        host = VMkernel(
            machine.platform,
            kernel=kernel,
            modules={str(machine.address): module} if module else {},
            settings={str(machine.address): settings},
            policy=policy,
            allow_unresolved=allow_unresolved,
        )
        result = _run(host, machine, device, peer, frames, ctrl_c)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
    else:
        show(result, [f"{leak.kind}: {leak.what}, {leak.where}" for leak in host.leaks])
    judge(result)


def _run(
    host: VMkernel, machine: _Machine, device: str, peer: PeerProcess, frames: int, ctrl_c: Interruption
) -> Result:
    try:
        host.start()
    except VmkError as error:
        raise _with_other_remedies(error, machine.platform.name) from error
    try:
        adapter = next(one for one in host.adapters if one.function.address == machine.address)
        nic = _bound(adapter, device)
        with nic:
            if not ctrl_c.wait(partial(_link_comes, nic), LINK_LIMIT):
                raise TimedOut(f"the link of {nic.name} did not come up within {LINK_LIMIT:g} s")
            mac, speed = nic.mac, nic.speed
            wire, window = machine.platform.wires[0].socket, _WINDOWS.get(device, traffic.WINDOW_IN)
            moved = traffic.run(nic, wire, peer, frames, ctrl_c, window)
    finally:
        host.stop()
    verdict = adapter.verdict
    return Result(
        platform=machine.platform.name,
        device=device,
        hcl=HclSays(verdict.driver, str(verdict.rung), verdict.module),
        module_path=str(host.kernel.file_of(str(verdict.module))),
        kernel=host.kernel.release,
        mac=mac,
        link_mbps=speed,
        tx=moved.tx,
        rx=moved.rx,
        mmio_per_frame=round(moved.accesses / (moved.tx.frames + moved.rx.frames), 3),
        seconds=Seconds(
            **{part: round(host.seconds[part], 4) for part in ("image", "load", "probe")},
            traffic=round(moved.seconds, 4),
        ),
        leaks=len(host.leaks),
    )


def _with_other_remedies(error: VmkError, platform: str) -> VmkError:
    """The error of a host that did not start; with all that this machine lacks, not only what was missed first."""
    if platform != "qemu" or shutil.which(_QEMU):
        return error
    remedy = error.remedy
    if _QEMU_COMMAND not in remedy:
        remedy += f"; there is no program {_QEMU} either: {_QEMU_COMMAND}"
    told = VmkError(error.what, where=error.where, remedy=f"{remedy}; {_WITHOUT_QEMU}")
    told.exit_code = error.exit_code
    return told


def _bound(adapter: Adapter, device: str) -> Uplink:
    """The uplink of the adapter; what kept it from having one is raised."""
    from vmkernel_core.boot import NoDriver

    if adapter.error is not None:
        raise adapter.error
    if adapter.verdict.module is None:
        raise NoDriver(
            f"there is no module for {device}",
            where=adapter.verdict.reason.rstrip("."),
            remedy="--module NAME tries one",
        )
    if adapter.uplink is None:
        raise NoDriver(
            f"{adapter.verdict.module} made no network device of {device}", where=str(adapter.function)
        )
    return adapter.uplink


def _link_comes(nic: Uplink, timeout: float) -> bool:
    try:
        nic.wait_link(timeout=timeout)
    except TimedOut:
        return False
    return True
