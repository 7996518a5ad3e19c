"""A device as its driver in Python has it (Linux's struct device): what the host lends it, and how it is stopped."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVar

from vmkernel_core._core import lib
from vmkernel_core.errors import DeviceGone, VmkError
from vmklinux.errors import DriverStopped
from vmklinux.native.context import atomic
from vmklinux.native.devres import Devres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from vmkernel_core.idle import IdleLoop
    from vmkernel_core.memory import MachineMemory
    from vmkernel_core.net.uplink import Uplink, UplinkDriver

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@contextmanager
def baton() -> Iterator[None]:
    """Hold the baton: what belongs to drivers is touched with it only."""
    lib.vmk_baton_take()
    try:
        yield
    finally:
        lib.vmk_baton_drop()


class Device:
    """What a driver drives: ``name``, and of the host its memory and its idle loop.

    ``devres`` has what the driver took. ``gone``: its hardware is not there any more. ``stopped``: why its driver runs
    no longer; ``on_stopped`` is told once. ``on_uplink`` makes an uplink of a network device that the driver registers.
    ``exclusive`` is around what may not come while the device is being configured.
    """

    def __init__(self, name: str, driver_name: str, memory: MachineMemory, idle: IdleLoop) -> None:
        self.name = name
        self.driver_name = driver_name
        self.memory = memory
        self.idle = idle
        self.devres = Devres()
        self.gone = False
        self.stopped: DriverStopped | None = None
        self.on_stopped: Callable[[DriverStopped], None] = lambda _error: None
        self.on_uplink: Callable[[UplinkDriver], Uplink | None] = lambda _driver: None
        self.exclusive: Callable[[], AbstractContextManager[None]] = nullcontext
        self._inside: list[int] = []

    def __repr__(self) -> str:
        """Name and driver."""
        return f"<{type(self).__name__} {self.name} ({self.driver_name})>"

    def stop(self, error: BaseException) -> DriverStopped:
        """Its driver failed where nobody can be told, or did what it must not: it runs no more. The error to raise."""
        if self.stopped is None:
            site = _site(error)
            log.error("%s: %s at %s", self.name, error, site, exc_info=error)
            self.stopped = DriverStopped(
                self.driver_name, f"{type(error).__name__}: {error}", reason="python", site=site
            )
            self.quiesce()
            self.on_stopped(self.stopped)
        return self.stopped

    def quiesce(self) -> None:
        """Cut the hardware off from memory and from the interrupt line."""

    def answers(self) -> bool:
        """Whether its hardware, if it is any, is there."""
        return True

    def failed(self, error: Exception) -> VmkError:
        """Its driver raised what is no VmkError. The error to raise: DriverStopped, or DeviceGone when the hardware is
        not there, and what is read of it is nonsense.
        """
        return self.stop(error) if self.answers() else DeviceGone("nothing answers there", where=self.name)

    def hurry(self) -> None:
        """What its driver waits for has gone: for the worlds that are in it now time runs faster while they sleep."""
        for task in self._inside:
            lib.vmk_world_hurry(task, True)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around code of the driver that may sleep. With the baton."""
        task = lib.vmk_world_task()
        self._inside.append(task)
        try:
            yield
        finally:
            self._inside.remove(task)
            if task not in self._inside:
                lib.vmk_world_hurry(task, False)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around a call into the driver on somebody's behalf: with the baton; what is no VmkError stops the driver.

        Raises DriverStopped, then and when it was stopped before, and DeviceGone (``failed``); VmkErrors pass.
        """
        with baton():
            if self.stopped is not None:
                raise self.stopped
            with self.inside():
                try:
                    yield
                except VmkError:
                    raise
                except Exception as error:
                    raise self.failed(error) from error

    def deliver(self, function: Callable[[], Result], *, may_sleep: bool = False) -> Result | None:
        """Call the driver where nobody waits for it: an interrupt, a timer, polling; a work item, which ``may_sleep``.
        Any error stops it.

        None when it was stopped, and when the hardware went meanwhile. With the baton.
        """
        if self.stopped is not None:
            return None
        try:
            with self.inside() if may_sleep else atomic:
                return function()
        except DeviceGone as error:
            log.info("%s: %s", self.name, error)
        except Exception as error:
            if self.answers():
                self.stop(error)
            else:
                log.info("%s: nothing answers there any more (%s)", self.name, error)
        return None


def _site(error: BaseException) -> str:
    """Where in the driver it happened: the innermost place, file and line."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_qualname}, line {trace.tb_lineno} of {code.co_filename.rpartition('/')[2]}"
        trace = trace.tb_next
    return place
