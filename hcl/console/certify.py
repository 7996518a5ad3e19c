"""``hcl certify``: runs the certification suite of a device's class, and writes down what it saw, signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
import msgspec

from hcl.verdict import Engine
from vmkernel_core.console.demo.one_device import NETWORK, kind_of
from vmkernel_core.console.interruption import Interruption
from vmkernel_core.errors import UsageError, VmkError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from hcl.evidence import Run

#: Exit codes: a check failed; no run could be made.
FAILED, IMPOSSIBLE = 1, 4


@click.command()
@click.argument("device")
@click.option(
    "--platform", type=click.Choice(["qemu"]), default="qemu", show_default=True, help="The hardware."
)
@click.option(
    "--engine", type=click.Choice(get_args(Engine)), default="linux", show_default=True,
    help="Whose driver: the kernel's module, or the one in Python (native), which needs no kernel.",
)  # fmt: skip
@click.option("--kernel", metavar="RELEASE", help="A kernel release or its beginning, like 6.12.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=60.0, show_default=True,
    help="How long traffic, or load, lasts.",
)  # fmt: skip
@click.option(
    "--key", metavar="FILE", type=click.Path(path_type=Path),
    help="The private key that signs the evidence (openssl genpkey -algorithm ed25519).",
)  # fmt: skip
@click.option(
    "--output", metavar="DIR", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".",
    help="Where the evidence is written; here if not given.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Write no evidence.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON (schema hcl/schemas/run.json).")
@click.pass_context
def certify(
    context: click.Context,
    device: str,
    platform: str,
    engine: Engine,
    kernel: str | None,
    seconds: float,
    key: Path | None,
    output: Path,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run the certification suite of a device, and write signed evidence of what it saw.

    DEVICE is what QEMU's -device takes, a network device or a storage controller. The evidence counts for devices of
    its ids with its module of the kernel's series, or with its driver in Python of vmklinux's, where its key is
    trusted: in both directions, since a run that failed is written down too.

    Ends with 0 when all checks passed, 1 when one failed, 4 when nothing could be tried.
    """
    if engine == "native":
        _check_native(kernel)
    signer = None if dry_run else _signer(key)
    try:
        with Interruption() as ctrl_c:
            run = _run(device, platform, engine, kernel, seconds, ctrl_c)
    except VmkError as error:
        # What keeps a run from being made says nothing of the device.
        if error.exit_code == FAILED:
            error.exit_code = IMPOSSIBLE
        raise
    if signer is not None:
        from hcl import evidence

        click.echo(f"evidence: {evidence.write(run, signer, output)}", err=True)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(run), indent=2))
    else:
        _show(run)
    context.exit(0 if run.passed else FAILED)


def _signer(key: Path | None) -> Ed25519PrivateKey:
    if key is None:
        raise UsageError(
            "evidence is signed, and there is no --key",
            remedy="--key FILE names a private key, --dry-run writes no evidence",
        )
    from hcl import signing

    return signing.private_key(key)


def _check_native(kernel: str | None) -> None:
    from hcl import native

    if kernel is not None:
        raise UsageError(
            "a driver in Python is certified without a kernel", remedy="leave --kernel out, or --engine"
        )
    if not native.version():
        raise VmkError(
            f"nobody can tell which version of {native.PACKAGE} this is", remedy="install it with pip"
        )


def _run(
    device: str, platform: str, engine: Engine, kernel: str | None, seconds: float, ctrl_c: Interruption
) -> Run:
    kind = kind_of(platform, device)
    from hcl.console.certification import nic, storage
    from hcl.report import Profile
    from vmkernel_core.console.demo.session import Wanted

    # A device that failed its last run, and is unsupported since, is to have its chance.
    wanted = Wanted(device, platform, kernel, (), Profile.DEFAULT, None, False, gate=False, engine=engine)
    if kind == NETWORK:
        return nic.run(wanted, seconds, ctrl_c)
    return storage.run(wanted, kind, seconds, ctrl_c)


def _show(run: Run) -> None:
    from rich.console import Console
    from rich.table import Table

    word = "passed" if run.passed else "FAILED"
    table = Table("check", "", "what was seen", title=f"{run.counterpart}, {run.driver}: {word}")
    for check in run.checks:
        table.add_row(check.name, "passed" if check.passed else "FAILED", check.detail)
    Console(markup=False, highlight=False).print(table)
