"""Message-signalled interrupts as drivers ask for them (Linux drivers/pci/msi/api.c)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from vmkernel_core.memory import load
from vmklinux.api import linux_api
from vmklinux.message_vectors import MessageVectors
from vmklinux.msi_registers import PCI_IRQ_INTX, PCI_IRQ_MSI, PCI_IRQ_MSIX, msi_count, msix_count
from vmklinux.pci import PciCore, pci_device, pci_intx

if TYPE_CHECKING:
    from vmklinux.kobject import Obj
    from vmklinux.linux import Linux

# include/linux/pci.h, msi_api.h
PCI_IRQ_AFFINITY = 8
MSI_ANY_INDEX = 0xFFFF_FFFF


def _cpus(linux: Linux) -> int:
    """How many CPUs drivers count."""
    return max(1, load(linux.symbols["__cpu_possible_mask"], 8).bit_count())


def _spread(linux: Linux, least: int, most: int, affd: Obj) -> int:
    """How many vectors make sense that are spread over the CPUs (irq_calc_affinity_vectors); 0: not even ``least``."""
    reserved = affd.pre_vectors + affd.post_vectors if affd else 0
    if reserved > least:
        return 0
    sets = most - reserved if affd and affd.calc_sets else _cpus(linux)
    return int(reserved + min(sets, most - reserved))


@linux_api()
def pci_alloc_irq_vectors_affinity(
    linux: Linux, dev: Obj, min_vecs: int, max_vecs: int, flags: int, affd: Obj
) -> int:
    """Give a device interrupt vectors of the kinds allowed: MSI-X rather than MSI rather than its pin; how many."""
    device, vectors = pci_device(linux, dev), linux.state(MessageVectors)
    spread = bool(flags & PCI_IRQ_AFFINITY)
    most = _spread(linux, min_vecs, max_vecs, affd) if spread else max_vecs
    error = -errno.ENOSPC
    for kind, give in ((PCI_IRQ_MSIX, vectors.give_msix), (PCI_IRQ_MSI, vectors.give_msi)):
        if flags & kind and most:
            count = give(device, min_vecs, most, spread=spread)
            if count > 0:
                if spread and affd and affd.calc_sets:
                    linux.call(affd.calc_sets, affd, count - affd.pre_vectors - affd.post_vectors)
                return count
            error = count
    if flags & PCI_IRQ_INTX and min_vecs == 1 and dev.irq:
        if spread and affd and affd.calc_sets:
            linux.call(affd.calc_sets, affd, 1)
        pci_intx(linux, dev, 1)
        return 1
    return error


@linux_api()
def pci_alloc_irq_vectors(linux: Linux, dev: Obj, min_vecs: int, max_vecs: int, flags: int) -> int:
    """Give a device interrupt vectors of the kinds allowed; how many."""
    return pci_alloc_irq_vectors_affinity(linux, dev, min_vecs, max_vecs, flags & ~PCI_IRQ_AFFINITY, dev)


@linux_api("pci_disable_msi", "pci_disable_msix")
def pci_free_irq_vectors(linux: Linux, dev: Obj) -> None:
    """Take a device's vectors back; handlers are gone already."""
    linux.state(MessageVectors).release(pci_device(linux, dev))


@linux_api()
def pci_irq_vector(linux: Linux, dev: Obj, nr: int) -> int:
    """The interrupt line of a vector; -EINVAL when the device has no such vector."""
    vectors = linux.state(MessageVectors).devices.get(int(dev))
    if vectors is None:
        return -errno.EINVAL if nr else int(dev.irq)
    return vectors.lines.get(nr, -errno.EINVAL)


@linux_api(note="Vectors that are spread over the CPUs are each on every CPU, since there is one.")
def pci_irq_get_affinity(linux: Linux, dev: Obj, nr: int) -> int:
    """The CPUs of a vector; null for vectors that are not spread."""
    vectors = linux.state(MessageVectors).devices.get(int(dev))
    if vectors is not None and (nr not in vectors.lines or not vectors.spread):
        return 0
    return linux.symbols["__cpu_possible_mask"]


@linux_api()
def pci_enable_msi(linux: Linux, dev: Obj) -> int:
    """Give a device one vector of MSI, which becomes its irq; 0 or a negative error number."""
    count = linux.state(MessageVectors).give_msi(pci_device(linux, dev), 1, 1)
    return min(count, 0)


@linux_api()
def pci_enable_msix_range(linux: Linux, dev: Obj, entries: Obj, minvec: int, maxvec: int) -> int:
    """Give a device vectors of MSI-X, at the table entries that the driver lists; how many."""
    if maxvec < minvec:
        return -errno.ERANGE
    places = [entries[number].entry for number in range(maxvec)] if entries else None
    vectors = linux.state(MessageVectors)
    count = vectors.give_msix(pci_device(linux, dev), minvec, maxvec, places)
    for number in range(count if entries else 0):
        entries[number].vector = vectors.devices[int(dev)].lines[number]
    return count


@linux_api()
def pci_msi_vec_count(linux: Linux, dev: Obj) -> int:
    """How many vectors of MSI the device can have; -EINVAL for none."""
    return msi_count(pci_device(linux, dev)) or -errno.EINVAL


@linux_api()
def pci_msix_vec_count(linux: Linux, dev: Obj) -> int:
    """How many vectors of MSI-X the device can have; -EINVAL for none."""
    return msix_count(pci_device(linux, dev)) or -errno.EINVAL


@linux_api()
def pci_msi_enabled(linux: Linux) -> bool:
    """Whether a device's messages can arrive: the platform says."""
    return any(device.platform.messages for device in linux.state(PciCore).devices.values())


@linux_api()
def pci_restore_msi_state(linux: Linux, dev: Obj) -> None:
    """Write a device's vectors again, after it lost them."""
    linux.state(MessageVectors).restore(pci_device(linux, dev))


@linux_api()
def pci_msix_can_alloc_dyn(linux: Linux, dev: Obj) -> bool:
    """Whether vectors of MSI-X can be added while others are used: always, where there is MSI-X."""
    return bool(dev.msix_cap)


@linux_api(note="The affinity asked for changes nothing: all handlers run on CPU 0.")
def pci_msix_alloc_irq_at(linux: Linux, dev: Obj, index: int, affdesc: int) -> int:
    """Add a vector of MSI-X at a table entry; a struct msi_map of entry, or negative error number, and line."""
    entry, line = linux.state(MessageVectors).add(
        pci_device(linux, dev), None if index == MSI_ANY_INDEX else index
    )
    return entry & 0xFFFF_FFFF | line << 32


@linux_api()
def pci_msix_free_irq(linux: Linux, dev: Obj, map: int) -> None:
    """Take one vector of MSI-X back: of a struct msi_map, which fits a register."""
    linux.state(MessageVectors).drop(pci_device(linux, dev), map & 0xFFFF_FFFF)
