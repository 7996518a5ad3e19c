"""docs/console.md tells the truth: the shapes of JSON, the operations, the keys and the example of a machine file.

Independent side: none; the code vouches for the text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from vmkernel_core.console import (
    hcl_operations,
    iscsi_operations,
    module_operations,
    nic_operations,
    pci_operations,
    storage_bench,
    storage_operations,
)
from vmkernel_core.console.machine import Machine, PlatformTable, read_machine
from vmkernel_core.console.operations import OPERATIONS

PAGE = (Path(__file__).parents[3] / "docs/console.md").read_text()
RESULTS = {
    result.__name__: result
    for operation in OPERATIONS.values()
    for result in (get_args(operation.result) or (operation.result,))
}


def _rows(heading: str) -> list[list[str]]:
    section = re.split(r"\n##+ ", PAGE.partition(f"# {heading}\n")[2])[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("name", RESULTS)
def test_shapes(name: str) -> None:
    assert [row[0] for row in _rows(name)] == list(RESULTS[name].__struct_fields__)


@pytest.mark.parametrize(
    ("shape", "key", "within"),
    [
        ("PciDevice", "bars", pci_operations.PciBar),
        ("BenchResult", "latency_us", storage_bench.Latency),
    ],
)
def test_the_shape_within_a_shape(shape: str, key: str, within: type[msgspec.Struct]) -> None:
    [told] = [row[2] for row in _rows(shape) if row[0] == key]
    for field in within.__struct_fields__:
        assert field in told


def test_operations() -> None:
    told = {name: (arguments, result) for name, arguments, result in _rows("The protocol")}
    assert told == {
        name: (
            ", ".join(operation.arguments.__struct_fields__),
            "".join(f"array of {one.__name__}" for one in get_args(operation.result))
            or operation.result.__name__,
        )
        for name, operation in OPERATIONS.items()
    }


def test_every_operation_is_in_the_table() -> None:
    modules = (
        hcl_operations, iscsi_operations, module_operations, nic_operations, pci_operations, storage_bench,
        storage_operations,
    )  # fmt: skip
    found = {
        one.name for module in modules for one in vars(module).values() if type(one).__name__ == "Operation"
    }
    assert found == set(OPERATIONS)


def test_keys_of_a_machine() -> None:
    platform = [f"platform.{key}" for key in PlatformTable.__struct_fields__]
    told = [row[0] for row in _rows("The machine file")]
    assert sorted(told) == sorted([*platform, *(set(Machine.__struct_fields__) - {"platform"})])


def _examples() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def _machine(text: str, directory: Path) -> Machine:
    (directory / "machine.toml").write_text(text)
    return read_machine(directory / "machine.toml")


def test_the_examples_are_machines(tmp_path: Path) -> None:
    machine, with_disks, without_hardware, over_a_network = (_machine(text, tmp_path) for text in _examples())
    assert [disk.split(",")[0] for disk in with_disks.platform.disks] == ["system.raw", "data.qcow2"]
    assert machine.modules == {"10ec:8139": "8139cp"}
    assert msgspec.structs.asdict(machine)["parameters"] == {"e1000": "RxDescriptors=512 debug=16"}
    assert (without_hardware.platform.type, without_hardware.platform.devices) == ("model", [])
    assert (over_a_network.engine, list(over_a_network.parameters)) == ("native", ["vmkiscsi"])
