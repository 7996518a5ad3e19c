"""Files that are kept in the kernel cache because making their content takes long."""

from __future__ import annotations

import os
import tempfile
from hashlib import blake2b
from pathlib import Path


def keep(place: Path, content: bytes) -> None:
    """Write the file, whole or not at all; OSError."""
    place.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{place.name}-", dir=place.parent)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            os.fchmod(handle, 0o644)  # as much is in the module files, which anybody may read
        os.replace(name, place)
    except BaseException:
        os.unlink(name)
        raise


def digest(text: str) -> str:
    """A short hash of a text, for what tells kept files apart."""
    return blake2b(text.encode(), digest_size=8).hexdigest()
