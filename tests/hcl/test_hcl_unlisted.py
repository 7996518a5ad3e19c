"""Devices that the list does not name, and what the modules of a kernel claim of them.

Independent side: none for the rules, which are made up here; the modalias is compared with the kernel's own for the
devices of the machine that the test runs on, as sysfs has them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import hcl
from hcl.unlisted import BARRED, modalias

RTL8139 = (0x10EC, 0x8139, 0x1AF4, 0x1100, 0x020000)


def claimed_by(*modules: str) -> hcl.Verdict:
    return hcl.lookup(*RTL8139, kernel="6.1.0-56-amd64", claimants=lambda _: modules)


def test_a_module_of_the_kernel_makes_it_compatible() -> None:
    asked = []

    def claimants(device: str) -> list[str]:
        asked.append(device)
        return ["8139cp", "8139too"]

    verdict = hcl.lookup(*RTL8139, kernel="6.1.0-56-amd64", claimants=claimants)
    assert asked == ["pci:v000010ECd00008139sv00001AF4sd00001100bc02sc00i00"]
    assert (verdict.driver, verdict.rung, verdict.status) == (
        None,
        hcl.Rung.COMPATIBLE,
        hcl.Status.COMPATIBLE,
    )
    assert (verdict.module, verdict.claimants) == ("8139cp", ("8139cp", "8139too"))
    assert verdict.evidence == "8139cp and 8139too of Linux 6.1.0-56-amd64 claim it"
    assert (
        verdict.reason == f"10ec:8139 is not listed, nor is its vendor with class 020000; {verdict.evidence}."
    )


def test_who_took_it_is_told() -> None:
    verdict = claimed_by("8139too", "8139cp")
    assert verdict.taken_by("8139too", []) == verdict
    after = verdict.taken_by("8139cp", ["8139too"])
    assert (after.module, after.rung, after.claimants) == ("8139cp", verdict.rung, verdict.claimants)
    assert after.reason.endswith("claim it; 8139cp took it, 8139too did not.")


def test_nobody_is_asked_about_a_listed_device() -> None:
    def claimants(device: str) -> list[str]:
        raise AssertionError(device)

    listed = (0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)
    assert hcl.lookup(*listed, claimants=claimants) == hcl.lookup(*listed)


@pytest.mark.parametrize(
    "ids",
    [
        (0x8086, 0x29C0, 0x1AF4, 0x1100, 0x060000),
        (0x8086, 0x2918, 0x1AF4, 0x1100, 0x060100),
        (0x1B36, 0x000C, 0x1AF4, 0, 0x060400),
        (0x8086, 0x2930, 0x1AF4, 0x1100, 0x0C0500),
        (0x1013, 0x00B8, 0x1AF4, 0x1100, 0x030000),
    ],
    ids=["host bridge", "ISA bridge", "root port", "SMBus", "display"],
)
def test_what_is_no_device_to_drive_is_left_alone(ids: tuple[int, int, int, int, int]) -> None:
    verdict = hcl.lookup(*ids, claimants=lambda _: ["a_driver"])
    assert (verdict.rung, verdict.module, verdict.claimants) == (hcl.Rung.UNKNOWN, None, ())
    assert verdict.reason.endswith(
        "; of what is not listed, only storage controllers, network controllers and Fibre Channel adapters are driven."
    )


def test_a_fibre_channel_adapter_is_on_a_serial_bus_and_driven_all_the_same() -> None:
    verdict = hcl.lookup(0x10DF, 0xE300, 0x10DF, 0x1234, 0x0C0400, claimants=lambda _: ["lpfc"])
    assert (verdict.rung, verdict.module) == (hcl.Rung.COMPATIBLE, "lpfc")


def test_barred_modules() -> None:
    for name, why in BARRED.items():
        verdict = claimed_by(name)
        assert (verdict.rung, verdict.module) == (hcl.Rung.UNKNOWN, None)
        assert verdict.reason.endswith(f"; {name} may not have it: {why}.")
        assert claimed_by(name, "8139cp").claimants == ("8139cp",)


def test_nobody_claims_it() -> None:
    verdict = claimed_by()
    assert (verdict.rung, verdict.status, verdict.module) == (hcl.Rung.UNKNOWN, hcl.Status.UNKNOWN, None)
    assert verdict.reason.endswith("; no module of Linux 6.1.0-56-amd64 claims it.")


@pytest.mark.parametrize("chosen", ["8139cp", "8139too"])
def test_an_operators_choice_ends_the_trying(chosen: str) -> None:
    after = claimed_by("8139cp", "8139too").overridden(chosen)
    assert (after.module, after.status, after.claimants) == (chosen, hcl.Status.UNSUPPORTED, ())
    assert after.reason.startswith(f"an operator chose {chosen}")


def test_the_modalias_is_the_kernels_own() -> None:
    """Of every PCI device that this machine has; a machine may have none."""
    for place in Path("/sys/bus/pci/devices").glob("*"):
        vendor, device, subvendor, subdevice, pci_class = (
            int((place / name).read_text(), 16)
            for name in ("vendor", "device", "subsystem_vendor", "subsystem_device", "class")
        )
        ids = (vendor, device, subvendor, subdevice)
        assert modalias(ids, pci_class) == (place / "modalias").read_text().strip()


def test_a_module_that_cannot_be_run_is_passed_over() -> None:
    def verdict(*cannot: str) -> hcl.Verdict:
        return hcl.lookup(
            *RTL8139,
            claimants=lambda _: ["8139cp", "8139too"],
            obstacle=lambda module: f"{module} needs more" if module in cannot else "",
        )

    assert verdict() == hcl.lookup(*RTL8139, claimants=lambda _: ["8139cp", "8139too"])
    one = verdict("8139cp")
    assert (one.module, one.claimants, one.status, one.obstacle) == (
        "8139too",
        ("8139too",),
        "compatible",
        "",
    )
    assert one.reason.endswith("claim it; 8139cp needs more.")
    none = verdict("8139cp", "8139too")
    assert (none.module, none.rung, none.status) == ("8139cp", "compatible", "unsupported")
    assert none.reason.endswith("claim it, but 8139cp needs more; 8139too needs more.")


def test_a_listed_device_needs_a_module_that_can_be_run_too() -> None:
    listed = (0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000)
    verdict = hcl.lookup(*listed, obstacle=lambda module: f"{module} needs more")
    assert (verdict.module, verdict.status, verdict.obstacle) == (
        "e1000",
        "unsupported",
        "e1000 needs more",
    )
    assert verdict.reason.endswith("e1000 serves it in Linux 6.1, but e1000 needs more.")
    assert verdict.overridden("e1000e").obstacle == ""
