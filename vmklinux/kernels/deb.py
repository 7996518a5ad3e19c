"""Unpacks what is needed of a kernel package, without installing it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from vmklinux.kernels.apt import QUERY_LIMIT, Fraction, limited, tool_missing
from vmklinux.kernels.errors import FetchError

UNPACK_LIMIT = 900.0
"""Seconds that unpacking one package may take."""

_NEEDED = re.compile(r"boot/(vmlinuz|config)-[^/]+|(usr/)?lib/modules/.+")


def unpack(package: Path, directory: Path, told: Fraction) -> None:
    """Write the vmlinuz, its configuration and the modules in ``package`` below ``directory``.

    Only regular files are written, none of them outside of ``directory``. Raises FetchError when
    dpkg-deb is missing or the package is damaged, OSError when a file cannot be written.
    """
    if shutil.which("dpkg-deb") is None:
        raise tool_missing("dpkg-deb", "dpkg")
    total = _installed_size(package)
    done = 0
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            with limited(process, UNPACK_LIMIT), tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                for member in archive:
                    done += member.size
                    told(min(done / total, 1.0))
                    _write(archive, member, directory)
        except tarfile.TarError as error:
            raise _damaged(package, str(error)) from error
        if process.returncode:
            errors.seek(0)
            raise _damaged(package, errors.read().decode(errors="replace").strip())


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    name = PurePosixPath(member.name)
    if not member.isreg() or ".." in name.parts or not _NEEDED.fullmatch(str(name)):
        return
    content = archive.extractfile(member)
    assert content is not None
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)


def _installed_size(package: Path) -> int:
    """The package's own figure of its size in bytes when installed; at least 1."""
    try:
        field = subprocess.run(
            ["dpkg-deb", "--field", str(package), "Installed-Size"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
            timeout=QUERY_LIMIT,
        )
    except subprocess.CalledProcessError as error:
        raise _damaged(package, str(error.stderr).strip()) from error
    except subprocess.TimeoutExpired as error:
        raise _damaged(package, f"dpkg-deb did not read it within {QUERY_LIMIT:.0f} s") from error
    return 1024 * int(field.stdout.strip() or 0) or 1


def _damaged(package: Path, why: str) -> FetchError:
    return FetchError(f"the package {package.name} is damaged: {why}", remedy="fetch it again")
