"""``hcl``: its commands, and what its exit codes mean."""

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

#: Command, and where it is: ``package.module:object``, a click command or group; and its line in ``hcl --help``.
COMMANDS = {
    "certify": ("hcl.console.certify:certify", "Prove that a device is driven; what was seen is signed."),
    "evidence": ("hcl.console.evidence:evidence", "Look at evidence of certification runs, or take it in."),
    "explain": (
        "hcl.console.explain:explain",
        "Tell why a device gets its verdict: rules, losers, evidence.",
    ),
    "export": ("hcl.console.release:export_release", "Write the list as one signed file."),
    "import": ("hcl.console.release:import_release", "Take in a file that `hcl export` wrote."),
    "inventory": ("hcl.console.inventory:inventory", "Write down what devices a machine has, as JSON."),
    "lint": ("hcl.console.lint:lint", "Look for what is wrong, or of no use, in the list."),
    "search": ("hcl.console.search:search", "Find rows of the list by ids, names, driver or module."),
    "show": ("hcl.console.show:show", "Show a driver, a device or a certification run."),
    "validate": ("hcl.console.validate:validate", "Judge the devices of machines: do drivers fit them?"),
    "watch": ("hcl.console.watch:watch", "Judge devices of this machine as they are plugged in."),
}

#: Exit code, and when a command ends with it.
EXIT_CODES = {
    0: "done; of validate: every device fits",
    1: "something does not hold: of validate a device is unsupported, of certify a check failed, of lint there are "
    "findings, of search and show nothing was found",
    2: "of validate: of a device it could not be told (wins over 1)",
    BAD_USAGE: "bad usage, or an input that is malformed",
    4: "it could not be done: a file cannot be written, there is no hardware",
    INTERNAL: "a fault of hcl itself",
    NO_ROOM: "the disk is full, or what the output goes to",
    INTERRUPTED: "interrupted (Ctrl-C)",
    BROKEN_PIPE: "nobody reads the output any more",
}

#: What ``--help`` says of the environment.
ENVIRONMENT = {
    "VMK_HCL": "the site's directory of overlays, evidence, keys and the imported list (/etc/vmklinux/hcl.d)",
    "VMK_KERNELS": "the directory of the kernel cache",
    "VMK_DEBUG=1": "errors come with their traceback",
}


hcl = program(
    "hcl",
    "Tell which devices are driven, by what, and how well that is proven.",
    COMMANDS,
    EXIT_CODES,
    ENVIRONMENT,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``hcl`` with these arguments, else the process's, and end the process with its exit code."""
    run(hcl, arguments)


if __name__ == "__main__":
    main()
