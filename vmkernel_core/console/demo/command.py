"""The command ``vmk demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from vmkernel_core.console.demo.frame_pattern import MOST_FRAMES
from vmkernel_core.console.demo.one_device import NETWORK, PLATFORMS, kind_of
from vmkernel_core.console.interruption import Interruption
from vmkernel_core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmkernel_core.console.demo.result import Left, Result
    from vmkernel_core.console.demo.session import Wanted
    from vmkernel_core.engine import EngineName

#: How many frames go each way, and MiB that are written, unless the user says so; and the most MiB.
FRAMES, MIB, MOST_MIB = 1000, 16, 256


@click.command()
@click.option(
    "--device",
    default="e1000",
    show_default=True,
    help="A network device or storage controller of QEMU's -device for which the kernel has a module.",
)
@click.option(
    "--platform", type=click.Choice(PLATFORMS), default="qemu", show_default=True, help="The hardware."
)
@click.option(
    "--frames",
    type=click.IntRange(1, MOST_FRAMES),
    show_default=str(FRAMES),
    help="How many go each way through a network device.",
)
@click.option(
    "--mib",
    type=click.IntRange(1, MOST_MIB),
    show_default=str(MIB),
    help="How much is written to the disk of a storage controller.",
)
@click.option(
    "--engine",
    type=click.Choice(["linux", "native"]),
    help="What drives it: a Linux module, or a driver in Python, which needs no kernel; else what the list prefers.",
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
    help="What the device must have to be driven: a module that may serve it, or (strict) a certification run.",
)
@click.option("--module", metavar="NAME", help="Load this module instead of the HCL's (unsupported).")
@click.option(
    "--allow-unresolved", is_flag=True, help="Load it even if it needs symbols that nothing here serves."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def demo(
    device: str,
    platform: str,
    frames: int | None,
    mib: int | None,
    engine: EngineName | None,
    kernel: str | None,
    settings: Sequence[str],
    policy: str,
    module: str | None,
    allow_unresolved: bool,
    as_json: bool,
) -> None:
    """Let an unmodified Linux driver, or one in Python, move frames or blocks, and check them.

    The HCL names the module for the device, or else the kernel's modules say which of them claims it; that is loaded and
    probes the device. QEMU says whether that is a network device or a storage controller.

    Through a network device N frames of all sizes go out to a peer process, which checks every byte, and N come in. A
    storage controller gets a disk with a partition table and a file system that the usual tools made: both are read,
    a pattern is written beside them and read back, and what is in the image in the end is checked. Then the module is
    unloaded.
    """
    with Interruption() as ctrl_c:
        kind = kind_of(platform, device)
        from hcl.report import Profile
        from vmkernel_core.console.demo.session import Wanted

        wanted = Wanted(
            device, platform, kernel, settings, Profile(policy), module, allow_unresolved, engine=engine
        )
        result, left = _run(wanted, kind, frames, mib, ctrl_c)
    from vmkernel_core.console.demo.result import judge, show

    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
    else:
        show(result, left)
    judge(result, left)


def _run(
    wanted: Wanted, kind: str, frames: int | None, mib: int | None, ctrl_c: Interruption
) -> tuple[Result, Sequence[Left]]:
    if kind == NETWORK:
        if mib is not None:
            raise UsageError(f"{wanted.device} is a network device", remedy="--frames says how much it moves")
        from vmkernel_core.console.demo import nic

        return nic.run(wanted, frames or FRAMES, ctrl_c)
    if frames is not None:
        raise UsageError(f"{wanted.device} is a storage controller", remedy="--mib says how much it moves")
    from vmkernel_core.console.demo import disk

    return disk.run(wanted, kind, mib or MIB, ctrl_c)
