"""The PCI functions that drivers call, on both kernels. Independent side: QEMU's root port, bridge and devices, what
their configuration space then reads, and the kernel image's own code.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from vmkernel_core._core import ffi
from vmkernel_core.boot import VMkernel
from vmkernel_core.memory import load, load_bytes
from vmkernel_core.platform.base import PciAddress
from vmkernel_core.platform.qemu import QemuPlatform
from vmklinux.kernels import Kernel
from vmklinux.kobject import Obj, addressof
from vmklinux.linux import Linux
from vmklinux.pci import PciCore, PciDevice
from vmklinux.pci_regs import PCI_COMMAND, PCI_COMMAND_MASTER

DEVICES = [
    "pcie-root-port,id=port0,chassis=1,addr=3",
    "virtio-rng-pci,bus=port0",
    "pcie-root-port,id=port1,chassis=2,addr=4",
    "usb-ehci,addr=5",
    "qemu-xhci,addr=6,bus=pcie.0",
    "ich9-usb-uhci1,addr=7",
]
# include/uapi/linux/pci_regs.h
PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_CERE, PCI_EXP_LNKCTL = 8, 1, 16
PCI_PM_CTRL, PME_ENABLE = 4, 0x100
NOTHING = 0xFFFF


@pytest.fixture(scope="module")
def host(kernel: Kernel) -> Iterator[VMkernel]:
    with VMkernel(QemuPlatform(DEVICES), kernel=kernel.release) as host:
        yield host


@pytest.fixture(scope="module")
def linux(host: VMkernel) -> Linux:
    return host.linux


@pytest.fixture(scope="module")
def core(linux: Linux) -> PciCore:
    return linux.state(PciCore)


def at(core: PciCore, bus: int, slot: int) -> PciDevice:
    found = core.at(PciAddress(0, bus, slot, 0))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def express(core: PciCore) -> PciDevice:
    """A PCI Express device behind a root port, with power management and function level reset."""
    return at(core, 1, 0)


def word(linux: Linux, function: str, device: PciDevice, offset: int) -> tuple[int, int]:
    """What a reading function returns, and the word that it read."""
    value = linux.allocate(8)
    error = linux.call_int(function, device.obj, offset, value)
    read = load(value, 2)
    linux.free(value)
    return error, read


def test_what_drivers_read_in_a_pci_dev(core: PciCore, express: PciDevice, linux: Linux) -> None:
    port = at(core, 0, 3)
    dev, above = express.obj, port.obj
    assert dev.bus.self == above
    assert dev.bus.parent == above.bus
    assert (dev.bus.number, dev.bus.primary, above.subordinate.number) == (1, 0, 1)
    assert not above.bus.self
    assert dev.pcie_cap == express.capability(0x10)
    assert (dev.pcie_flags_reg >> 4 & 15, above.pcie_flags_reg >> 4 & 15) == (0, 4), "endpoint, root port"
    assert dev.pm_cap == express.capability(1)
    assert (dev.current_state, dev.error_state, dev.is_virtfn, dev.is_physfn, dev.multifunction) == (
        0,
        1,
        0,
        0,
        0,
    )
    assert int(dev.dev.bus) == linux.symbols["pci_bus_type"]
    assert dev.dev.parent == above.dev
    assert dev.dev.numa_node == -1
    assert linux.string(dev.dev.kobj.name) == "0000:01:00.0"
    assert dev.irq == express.function.line
    assert dev.dma_parms.max_segment_size == 65536
    assert (dev.cfg_size, at(core, 0, 7).obj.cfg_size) == (4096, 256)


def test_devices_are_found(core: PciCore, express: PciDevice, linux: Linux) -> None:
    dev = express.obj

    def references() -> int:
        return int(dev.dev.kobj.kref.refcount.refs.counter)

    before = references()
    assert linux.call("pci_get_device", dev.vendor, dev.device, 0) == int(dev)
    assert linux.call("pci_get_domain_bus_and_slot", 0, 1, 0) == int(dev)
    assert linux.call("pci_get_slot", dev.bus, 0) == int(dev)
    assert references() == before + 3
    assert linux.call("pci_get_device", dev.vendor, dev.device, dev) == 0, (
        "it is the only one, and given back"
    )
    linux.call("pci_dev_put", dev)
    linux.call("pci_dev_put", dev)
    assert references() == before
    assert linux.call("pci_get_slot", dev.bus, 8) == 0
    found, ports = 0, []
    while found := linux.call("pci_get_device", 0x1B36, 0x000C, found):
        ports.append(found)
    assert ports == [int(at(core, 0, slot).obj) for slot in (3, 4)]
    assert linux.call("pci_get_class", 0x0C0330, 0) == int(at(core, 0, 6).obj)
    linux.call("pci_dev_put", at(core, 0, 6).obj)
    table = ffi.new("uint32_t[16]", [dev.vendor, dev.device, 0xFFFF_FFFF, 0xFFFF_FFFF])
    address = int(ffi.cast("uint64_t", table))
    assert linux.call("pci_dev_present", address) & 0xFF == 1
    assert linux.call("pci_match_id", address, dev) == address
    table[1] = 0x1234
    assert linux.call("pci_dev_present", address) & 0xFF == 0


def test_configuration_space(core: PciCore, express: PciDevice, linux: Linux) -> None:
    dev = express.obj
    assert word(linux, "pci_read_config_word", express, 0) == (0, dev.vendor)
    assert word(linux, "pci_user_read_config_word", express, 2) == (0, dev.device)
    assert word(linux, "pci_read_config_word", express, 1)[0] == 0x87, "PCIBIOS_BAD_REGISTER_NUMBER"
    assert linux.call_int("pci_find_ext_capability", at(core, 0, 3).obj, 1) == 0x100, "AER"
    assert linux.call_int("pci_find_capability", dev, 1) == dev.pm_cap
    assert linux.call_int("pci_find_next_capability", dev, dev.pm_cap, 1) == 0
    assert linux.call_int("pci_device_is_present", dev) & 0xFF == 1
    linux.call("pci_cfg_access_lock", dev)
    assert dev.block_cfg_access == 1
    linux.call("pci_cfg_access_unlock", dev)
    assert dev.block_cfg_access == 0


def test_pci_express_registers(core: PciCore, express: PciDevice, linux: Linux) -> None:
    dev = express.obj
    control = dev.pcie_cap + PCI_EXP_DEVCTL
    before = express.read(control, 2)
    change = "pcie_capability_clear_and_set_word_" + (
        "locked" if "pcie_capability_clear_and_set_word_locked" in linux.symbols else "unlocked"
    )
    assert linux.call_int(change, dev, PCI_EXP_DEVCTL, 0, PCI_EXP_DEVCTL_CERE) == 0
    assert express.read(control, 2) == before | PCI_EXP_DEVCTL_CERE
    assert word(linux, "pcie_capability_read_word", express, PCI_EXP_DEVCTL) == (
        0,
        before | PCI_EXP_DEVCTL_CERE,
    )
    assert linux.call_int("pcie_capability_write_word", dev, PCI_EXP_DEVCTL, before) == 0
    assert express.read(control, 2) == before
    assert linux.call_int("pcie_get_readrq", dev) == 128 << (before >> 12 & 7)
    assert linux.call_int("pcie_set_readrq", dev, 100) == -errno.EINVAL
    for function in ("pci_disable_link_state", "pci_disable_link_state_locked"):  # QEMU's links have no ASPM
        assert linux.call_int(function, dev, 3) == 0
        assert express.read(dev.pcie_cap + PCI_EXP_LNKCTL, 2) & 3 == 0
    assert linux.call_int("pci_disable_link_state", at(core, 0, 7).obj, 3) == -errno.EINVAL


def test_power_states(express: PciDevice, linux: Linux) -> None:
    dev = express.obj

    def state() -> int:
        return express.read(dev.pm_cap + PCI_PM_CTRL, 2) & 3

    for wanted in (3, 0):
        assert linux.call_int("pci_set_power_state", dev, wanted) == 0
        assert (state(), dev.current_state) == (wanted, wanted)
    assert linux.call_int("pci_choose_state", dev, 2) == 3, "PM_EVENT_SUSPEND: D3hot"
    assert linux.call_int("pci_prepare_to_sleep", dev) == 0
    assert state() == 3
    assert linux.call_int("pci_back_from_sleep", dev) == 0
    assert state() == 0


def test_waking_up(core: PciCore, linux: Linux) -> None:
    """QEMU's devices cannot wake anybody; that of the test is told that it can, which Linux then writes into PMCSR."""
    device = at(core, 1, 0)
    dev = device.obj
    assert linux.call_int("pci_wake_from_d3", dev, 1) == -errno.EINVAL
    generic = addressof(dev, "dev")
    before, dev.pme_support = dev.pme_support, 0x1F
    linux.call("device_set_wakeup_capable", generic, 1)
    linux.call("device_set_wakeup_enable", generic, 1)
    assert dev.dev.power.wakeup
    assert linux.call("pci_dev_run_wake", dev) & 0xFF == 1
    assert linux.call_int("pci_wake_from_d3", dev, 1) == 0
    assert dev.wakeup_prepared == 1
    assert linux.call_int("pci_wake_from_d3", dev, 0) == 0
    assert dev.wakeup_prepared == 0
    linux.call("device_set_wakeup_enable", generic, 0)
    assert not dev.dev.power.wakeup
    dev.pme_support = before


def test_enabling_reaches_the_bridges_above(core: PciCore, express: PciDevice, linux: Linux) -> None:
    dev, port = express.obj, at(core, 0, 3)
    count = dev.enable_cnt.counter
    assert linux.call_int("pci_enable_device", dev) == 0
    linux.call("pci_set_master", dev)
    assert dev.enable_cnt.counter == count + 1
    assert express.read(PCI_COMMAND, 2) & 6 == 6
    assert port.read(PCI_COMMAND, 2) & 7 == 7
    linux.call("pci_disable_device", dev)
    assert dev.enable_cnt.counter == count
    assert bool(express.read(PCI_COMMAND, 2) & PCI_COMMAND_MASTER) == bool(count)
    linux.call("pci_intx", dev, 0)
    assert express.read(PCI_COMMAND, 2) & 0x400
    linux.call("pci_intx", dev, 1)
    assert not express.read(PCI_COMMAND, 2) & 0x400


@pytest.mark.parametrize("function", ["pci_reset_function", "pci_reset_bus"])
def test_a_reset_leaves_the_configuration(express: PciDevice, linux: Linux, function: str) -> None:
    dev = express.obj
    linux.call("pci_enable_device", dev)
    linux.call("pci_set_master", dev)
    express.write(dev.pcie_cap + PCI_EXP_DEVCTL, 2, express.read(dev.pcie_cap + PCI_EXP_DEVCTL, 2) | 1)
    before = [express.read(offset, 4) for offset in range(4, 64, 4)]
    assert linux.call_int(function, dev) == 0
    assert [express.read(offset, 4) for offset in range(4, 64, 4)] == before
    assert express.read(dev.pcie_cap + PCI_EXP_DEVCTL, 2) & 1
    linux.call("pci_disable_device", dev)


def test_saved_state_comes_back(express: PciDevice, linux: Linux) -> None:
    dev = express.obj
    assert linux.call_int("pci_save_state", dev) == 0
    before = express.read(0x10 + 4, 4)
    express.write(0x10 + 4, 4, 0)
    linux.call("pci_restore_state", dev)
    assert express.read(0x10 + 4, 4) == before


def test_bars_are_reserved_and_mapped(core: PciCore, express: PciDevice, linux: Linux) -> None:
    dev, ports = express.obj, at(core, 0, 7)
    assert linux.call_int("pci_request_regions", dev, 0) == 0
    assert linux.call_int("pci_request_region", dev, 4, 0) == -errno.EBUSY
    linux.call("pci_release_regions", dev)
    assert linux.call_int("pci_request_region", dev, 4, 0) == 0
    linux.call("pci_release_region", dev, 4)
    bar = next(bar for bar in ports.function.bars if bar.kind == "io")
    assert linux.call("pci_iomap", ports.obj, bar.index, 0) == 0x10000 + bar.address, (
        "Linux's cookie of a port"
    )
    mapped = linux.call("pci_iomap", dev, 4, 0)
    assert mapped >= 1 << 32
    linux.call("pci_iounmap", dev, mapped)
    assert linux.call("pci_iomap", dev, 0, 0) == 0, "there is no such BAR"


def test_managed_things_end_with_the_binding(express: PciDevice, core: PciCore, linux: Linux) -> None:
    dev = express.obj
    count = dev.enable_cnt.counter
    assert linux.call_int("pcim_enable_device", dev) == 0
    assert linux.call_int("pcim_iomap_regions", dev, 1 << 4, 0) == 0
    table = linux.call("pcim_iomap_table", dev)
    assert [bool(load(table + 8 * bar, 8)) for bar in range(6)] == [False] * 4 + [True, False]
    assert linux.call_int("pcim_iomap_regions", dev, 1 << 4, 0) == -errno.EBUSY
    assert linux.call("pcim_iomap", dev, 4, 0) == 0, "it is mapped already"
    assert dev.enable_cnt.counter == count + 1
    core.unbind(express)
    assert (dev.enable_cnt.counter, dev.is_managed, express.table, express.regions) == (count, 0, 0, {})


def test_what_is_not_there_says_so(express: PciDevice, linux: Linux) -> None:
    dev = express.obj
    assert linux.call_int("pci_enable_sriov", dev, 2) == -errno.ENOSYS
    assert linux.call_int("pci_num_vf", dev) == 0
    buffer = linux.allocate(16)
    assert linux.call_int("pci_read_vpd", dev, 0, 16, buffer) == -errno.ENODEV
    assert load_bytes(buffer, 16) == bytes(16)
    assert linux.call("pci_map_rom", dev, buffer) == 0
    linux.free(buffer)


def test_a_device_that_has_gone_is_not_asked(express: PciDevice, linux: Linux) -> None:
    dev: Obj = express.obj
    dev.error_state = linux.types.enumerator("pci_channel_io_perm_failure")
    try:
        assert word(linux, "pci_read_config_word", express, 0) == (0x86, NOTHING)
        assert linux.call_int("pci_device_is_present", dev) & 0xFF == 0
        assert linux.call_int("pci_set_power_state", dev, 3) != 0 or dev.current_state == 4
    finally:
        dev.error_state = linux.types.enumerator("pci_channel_io_normal")
        dev.current_state = 0
