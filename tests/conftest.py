"""Fixtures that every test may use: Debian's own kernels, fetched when they are missing, and their images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from vmklinux.image import Image, prepare
from vmklinux.kernels import Kernel, NoKernel, fetch, find

if TYPE_CHECKING:
    from pathlib import Path

    from vmklinux.btf import Btf


#: What the machine's owner laid over the list is not what is tested; also not in the processes that tests start.
os.environ["VMK_HCL"] = ""

#: Parameters of fixtures that boot something: tests that share one stay together where tests run in parallel.
_BOOTED = ("kernel", "linux", "driven", "device", "pair", "platform_name", "card")


# No example is timed, nor its making: the machine may be busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)  # xdist looks for the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for pytest-xdist by file and by what they boot, so that no host is booted twice for them."""
    for item in items:
        parameters = getattr(item, "callspec", None)
        booted = [str(parameters.params.get(name, "")) for name in _BOOTED] if parameters else []
        item.add_marker(pytest.mark.xdist_group("-".join([item.path.name, *booted])))


def _kernel(series: str) -> Kernel:
    try:
        return find(series)
    except NoKernel:
        return fetch(series)


@pytest.fixture(scope="session")
def kernel61() -> Kernel:
    """Debian 12's kernel: 6.1, modules uncompressed, image compressed with xz."""
    return _kernel("6.1")


@pytest.fixture(scope="session")
def kernel612() -> Kernel:
    """Debian 13's kernel: 6.12, modules compressed with xz, image compressed with zstd."""
    return _kernel("6.12")


@pytest.fixture(scope="session", params=["kernel61", "kernel612"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    """Each of the two kernels in turn."""
    found: Kernel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of prepared kernel images, for this test run."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="session")
def image(kernel: Kernel, images: Path) -> Image:
    """The prepared image of that kernel."""
    return prepare(kernel, images)


@pytest.fixture(scope="session")
def types(image: Image) -> Btf:
    """The types of that kernel."""
    return image.btf
