"""``vmk``: its commands, and what its exit codes mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.console.program import (
    BAD_USAGE,
    BROKEN_PIPE,
    INTERNAL,
    INTERRUPTED,
    NO_ROOM,
    program,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Command, and where it is: ``package.module:object``, a click command or group; and its line in ``vmk --help``.
COMMANDS = {
    "boot": ("vmkernel_core.console.boot:boot", "Boot a vmkernel from a machine file and keep it running."),
    "demo": (
        "vmkernel_core.console.demo.command:demo",
        "Let an unmodified Linux driver, or one in Python, move frames or blocks, and check them.",
    ),
    "hardware": ("vmkernel_core.console.hardware:hardware", "Devices of a running vmkernel's machine."),
    "iscsi": (
        "vmkernel_core.console.iscsi:iscsi",
        "iSCSI initiators of a running vmkernel, their targets and sessions.",
    ),
    "kernel": ("vmklinux.kernels.console:kernel", "Kernel packages: get them, and see which are here."),
    "module": ("vmklinux.module.console:module", "Linux modules: see what they need and what serves it."),
    "network": (
        "vmkernel_core.console.network:network",
        "Uplinks of a running vmkernel: see them, open and close them, change them.",
    ),
    "storage": (
        "vmkernel_core.console.storage:storage",
        "Storage of a running vmkernel: adapters, devices, paths; and how fast a device is.",
    ),
    "system": (
        "vmkernel_core.console.system:system",
        "A running vmkernel: see, load and unload modules, set their parameters; the HCL's verdicts.",
    ),
}

#: Exit code, and when a command ends with it; the errors' classes have the codes from 1 to 7.
EXIT_CODES = {
    0: "done, and everything asked for holds",
    1: "done, but something does not hold (a frame was lost, a symbol is unresolved), or it could not be done",
    BAD_USAGE: "bad usage: an option, a name or a value that cannot be",
    4: "no hardware (the platform did not come up, no driver may serve the device), or no vmkernel to talk to",
    5: "the device, or the process that provides it, has gone",
    6: "a wait reached its limit",
    7: "the driver refused the device, or was stopped",
    INTERNAL: "a fault of vmk itself",
    NO_ROOM: "the disk is full, or what the output goes to",
    INTERRUPTED: "interrupted (Ctrl-C)",
    BROKEN_PIPE: "nobody reads the output any more",
}


#: What ``--help`` says of the environment.
ENVIRONMENT = {
    "VMK_SOCKET": "the socket of the vmkernel to talk to",
    "VMK_HCL": "the site's directory of what is laid over the list (/etc/vmklinux/hcl.d)",
    "VMK_KERNELS": "the directory of the kernel cache",
    "VMK_FIRMWARE": "the directory of firmware files that drivers ask for",
    "VMK_DEBUG=1": "errors come with their traceback",
}


vmk = program(
    "vmk",
    "Run the Linux distribution's own, unmodified drivers in this process, or drivers in Python.",
    COMMANDS,
    EXIT_CODES,
    ENVIRONMENT,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``vmk`` with these arguments, else the process's, and end the process with its exit code."""
    run(vmk, arguments)


if __name__ == "__main__":
    main()
