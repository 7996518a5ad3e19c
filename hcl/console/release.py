"""``hcl export`` and ``hcl import``: the list as one signed file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hcl.console.options import site_options

if TYPE_CHECKING:
    from hcl.release import Release
    from hcl.site import Site


@click.command("export")
@click.option(
    "--sign", "key", metavar="KEY", type=click.Path(path_type=Path), required=True,
    help="The private key: Ed25519, PEM.",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), required=True)
@site_options
def export_release(key: Path, output: Path, site: Site) -> None:
    """Write the list, what is laid over it, and the evidence that counts, as one signed file."""
    from datetime import UTC, datetime

    from hcl import release, signing
    from hcl.reading import installed

    private = signing.private_key(key)
    made = release.of(installed(site), datetime.now(UTC).replace(microsecond=0))
    release.write(made, private, output)
    signer = signing.fingerprint(private.public_key())
    click.echo(f"{output}: {made.name}, {_content(made)}, signed by {signer}")


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--trust", "keys", metavar="KEY.pem", type=click.Path(path_type=Path), multiple=True,
    help="A public key whose signature is accepted, beside those that the directory holds; repeatable.",
)  # fmt: skip
@click.option(
    "--to", "where", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
    help="The site's directory, where VMK_HCL does not name it.",
)  # fmt: skip
def import_release(file: Path, keys: Sequence[Path], where: Path | None) -> None:
    """Verify a file that `hcl export` wrote, and have the tools use it: whole, or not at all.

    It is put into the site's directory: the one that VMK_HCL names, else /etc/vmklinux/hcl.d.
    """
    from hcl import release
    from hcl.reading import trusted
    from hcl.site import RELEASE, directory

    target = where or Path(directory() or ".")
    if where is None and directory() is None:
        raise click.UsageError("VMK_HCL is empty: name a directory with --to")
    imported = release.install(file, trusted(target, keys), target)
    click.echo(f"{target / RELEASE}: {imported.name}, {_content(imported)}")


def _content(release: Release) -> str:
    laid = sum(map(len, release.overlays))
    return f"{len(release.claims)} rows, {laid} of overlays, {len(release.runs)} certification runs"
