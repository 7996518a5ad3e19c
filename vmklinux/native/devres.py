"""What a driver took of its device, given back in reverse order (Linux drivers/base/devres.c)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class Release:
    """One thing that was taken, and how it is given back."""

    def __init__(self, devres: Devres, function: Callable[[], object]) -> None:
        """``Devres.add`` makes it."""
        self._devres = devres
        self._function = function

    def now(self) -> None:
        """Give it back before its turn. May be called twice."""
        if self._devres.drop(self):
            self._function()


class Devres:
    """The things that one driver has of one device, in the order of taking."""

    def __init__(self) -> None:
        """None yet."""
        self._taken: list[Release] = []
        self._late: list[Release] = []
        self._group: Devres | None = None

    def __len__(self) -> int:
        """How many there are."""
        return len(self._taken) + len(self._late) + (len(self._group) if self._group else 0)

    def add(self, release: Callable[[], object], *, late: bool = False) -> Release:
        """Something was taken; ``release`` gives it back. ``late``: after all that is not, as it is something that the
        hardware may use until then.
        """
        if self._group is not None:
            return self._group.add(release, late=late)
        return self._add(release, self._late if late else self._taken)

    def open_group(self, end: Callable[[], object]) -> Release:
        """What is taken from here on belongs together (Linux devres_open_group): when the group is released, ``end`` is
        called first, then all of it is given back. There is one group at a time.
        """
        group = self._group = Devres()

        def close() -> None:
            try:
                end()
            finally:
                self._group = None
                group.release_all()

        return self._add(close, self._taken)

    def _add(self, release: Callable[[], object], to: list[Release]) -> Release:
        taken = Release(self, release)
        to.append(taken)
        return taken

    def drop(self, release: Release) -> bool:
        """For Release: it is not there any more. Whether it was."""
        for taken in (self._taken, self._late):
            if release in taken:
                taken.remove(release)
                return True
        return False

    def release_all(self) -> None:
        """Give everything back, the latest first. What fails is logged, and the rest still given back."""
        while self._taken or self._late:
            try:
                (self._taken or self._late)[-1].now()
            except Exception:
                log.exception("a driver's resource could not be given back")
