"""The coverage page docs/linux-api.md: what is emulated and what runs from the kernel image, from the code itself.

``python -m vmklinux.api_page`` prints it.
"""

from __future__ import annotations

import tomllib
from collections import Counter, defaultdict
from importlib.resources import files as package_files
from typing import TYPE_CHECKING

from vmklinux.api import emulated
from vmklinux.safe import image_safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vmklinux.api import Emulated

_HEAD = """\
# The emulated Linux API

This page is generated: `python -m vmklinux.api_page > docs/linux-api.md`; a test keeps it current.

A kernel function that a driver imports is served by vmklinux (the tables below), by another loaded module, or by
the kernel image itself, if it is on the reviewed list (the last table). What is in none of these is unresolved:
`vmk module check` names it, and by default no code of the module runs.

A function is **done** when drivers see what they would see in Linux, but for what its note says; **partial** when
the note says what is missing; a **no-op** when it may do nothing, for the reason in the note.
"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _counts(functions: Iterable[Emulated]) -> str:
    """``9 functions: 7 done, 2 partial``."""
    statuses = Counter(function.status for function in functions)
    told = ", ".join(
        f"{statuses[status]} {status}" for status in ("done", "partial", "no-op") if statuses[status]
    )
    return f"{statuses.total()} functions: {told}"


def page() -> str:
    """The page's text; the same for the same code, whatever the order of imports."""
    files: defaultdict[str, list[Emulated]] = defaultdict(list)
    for _, function in sorted(emulated().items()):
        files[function.where].append(function)
    parts = [_HEAD, "## Emulated", f"{_counts(emulated().values())}."]
    for file, functions in sorted(files.items()):
        rows = ((f"`{f.name}`", f.status, f.summary, f.note) for f in functions)
        parts += [
            f"### {file}",
            f"{_counts(functions)}.",
            _table(("Function", "Status", "What it does", "Note"), rows),
        ]
    groups = tomllib.loads((package_files("vmklinux") / "image_safe.toml").read_text())
    symbols = Counter(image_safe().values())
    reviewed = ((name, str(symbols[name]), groups[name]["reason"]) for name in sorted(groups))
    parts += [
        "## Used from the kernel image",
        f"{symbols.total()} reviewed functions and variables; `vmklinux/image_safe.toml` names them. No kernel has all.",
        _table(("Group", "Symbols", "Why they may be used as they are"), reviewed),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    print(page(), end="")
