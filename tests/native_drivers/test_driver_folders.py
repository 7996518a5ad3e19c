"""Every driver's folder: what its data says, and the code there if it has any.

Independent side: the compatibility list and the driver's own code, which know nothing of each other.
"""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from hcl.reading import DRIVERS, shipped
from hcl.registry import Claim
from vmkernel_core.pci_function import PciFunction
from vmkernel_core.platform.base import PciAddress
from vmklinux.native.pci import PciDriver

FOLDERS = {
    f"{path.parent.parent.name}/{path.parent.name}": path.parent for path in DRIVERS.glob("*/*/driver.toml")
}
IN_PYTHON = sorted(name for name, folder in FOLDERS.items() if (folder / "__init__.py").exists())


def driver_of(name: str) -> object:
    return import_module(f"native_drivers.{name.replace('/', '.')}").DRIVER


def function_of(claim: Claim) -> PciFunction:
    """A device of a row."""
    vendor, device, subvendor, subdevice = (0xFEED if each is None else each for each in claim.ids)
    return PciFunction(
        address=PciAddress(0, 0, 5, 0), vendor=vendor, device=device, subsystem_vendor=subvendor,
        subsystem_device=subdevice, class_code=claim.pci_class, revision=0, header_type=0, interrupt_pin=1, bars=(),
        capabilities=(),
    )  # fmt: skip


def test_a_driver_bears_its_folders_name() -> None:
    for name in IN_PYTHON:
        driver = driver_of(name)
        if isinstance(driver, type) and issubclass(driver, PciDriver):
            assert name.endswith(f"/{driver.name}")


@pytest.mark.parametrize("name", IN_PYTHON)
def test_the_list_knows_which_devices_a_driver_in_python_claims(name: str) -> None:
    driver = driver_of(name)
    rows = [claim for claim in shipped().claims if claim.driver == name]
    if shipped().drivers[name].software:
        assert rows == []
        return
    assert isinstance(driver, type)
    assert issubclass(driver, PciDriver)
    assert [claim.place for claim in rows if driver.claims(function_of(claim)) != claim.native] == []
    assert any(claim.native for claim in rows)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_readme_says_what_the_driver_is_for(name: str) -> None:
    title, _, rest = (FOLDERS[name] / "README.md").read_text().partition("\n")
    assert title.startswith(f"# {name.partition('/')[2]}")
    declared, linux_only = shipped().drivers[name], "**Served by Linux's module only**" in rest
    assert linux_only == (declared.engines == ("linux",))
    assert not linux_only or [f"`{module}`" in rest for module in declared.modules] == [True] * len(
        declared.modules
    )


def test_links_and_files_of_readmes_exist() -> None:
    for folder in FOLDERS.values():
        for named in re.findall(r"`([a-z0-9_]+\.(?:py|toml|tsv))`", (folder / "README.md").read_text()):
            assert (folder / named).exists(), folder
