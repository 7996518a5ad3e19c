"""Writing files: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hcl.errors import CannotWrite


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that whoever looks sees the old content or the new. CannotWrite, and then nothing is left."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with open(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(handle)
                os.fchmod(handle, 0o644)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise CannotWrite(
            f"cannot write the file: {error.strerror}", where=str(path), remedy="nothing was changed"
        ) from error
