"""Interrupts of drivers in Python (Linux kernel/irq/manage.c, drivers/pci/msi/api.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmkernel_core.errors import NotSupported, UsageError
from vmkernel_core.interrupt import Handler
from vmklinux.msi_registers import (
    PCI_IRQ_INTX,
    PCI_IRQ_MSI,
    PCI_IRQ_MSIX,
    Msi,
    MsiX,
    msi_count,
    msix_count,
)
from vmklinux.pci_regs import PCI_COMMAND_INTX_DISABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.platform.messages import MessageInterrupts
    from vmklinux.msi_registers import Vectors
    from vmklinux.native.devres import Release
    from vmklinux.native.pci import PciDev

__all__ = [
    "PCI_IRQ_ALL_TYPES",
    "PCI_IRQ_INTX",
    "PCI_IRQ_MSI",
    "PCI_IRQ_MSIX",
    "pci_alloc_irq_vectors",
    "pci_free_irq_vectors",
    "pci_irq_vector",
    "request_irq",
]

PCI_IRQ_ALL_TYPES = PCI_IRQ_MSIX | PCI_IRQ_MSI | PCI_IRQ_INTX


def pci_alloc_irq_vectors(pdev: PciDev, min_vecs: int, max_vecs: int, flags: int = PCI_IRQ_ALL_TYPES) -> int:
    """Give the device interrupt vectors of a kind in ``flags``, MSI-X rather than MSI rather than its pin; how many,
    from ``min_vecs`` to ``max_vecs``. They are its until pci_free_irq_vectors, or until the driver lets go of it.

    NotSupported where there are not so many: the device has not, or its messages cannot arrive. UsageError.
    """
    if not 0 < min_vecs <= max_vecs or pdev.vectors is not None:
        raise UsageError(f"{min_vecs} to {max_vecs} vectors cannot be given", where=pdev.name)
    if source := pdev.platform.messages:
        for kind, give in ((PCI_IRQ_MSIX, _give_msix), (PCI_IRQ_MSI, _give_msi)):
            if flags & kind and (vectors := give(pdev, source, min_vecs, max_vecs)):
                pdev.vectors = vectors
                pdev.devres.add(lambda: pci_free_irq_vectors(pdev))
                vectors.enable()
                return min(len(vectors.lines), max_vecs)
    if flags & PCI_IRQ_INTX and min_vecs == 1 and pdev.function.interrupt_pin:
        return 1
    raise NotSupported(f"there are no {min_vecs} interrupt vectors of the kinds asked for", where=pdev.name)


def _give_msix(pdev: PciDev, source: MessageInterrupts, least: int, most: int) -> Vectors | None:
    count = min(most, msix_count(pdev))
    lines = _lines(source, least, count, aligned=False)
    return MsiX(pdev, source, lines, list(range(len(lines))), spread=False) if lines else None


def _give_msi(pdev: PciDev, source: MessageInterrupts, least: int, most: int) -> Vectors | None:
    count = min(most, msi_count(pdev))
    block = 1 << (count - 1).bit_length()  # what the capability tells are powers of two
    lines = _lines(source, least, block if count else 0, aligned=True)
    return Msi(pdev, source, lines, spread=False) if lines else None


def _lines(source: MessageInterrupts, least: int, count: int, *, aligned: bool) -> list[int]:
    """At least so many, or none."""
    lines = source.allocate(count, aligned=aligned) if count >= least else []
    if len(lines) >= least:
        return lines
    for line in lines:
        source.release(line)
    return []


def pci_free_irq_vectors(pdev: PciDev) -> None:
    """Take the vectors back, whose handlers are gone already: the pin works again. May be called twice."""
    vectors, pdev.vectors = pdev.vectors, None
    if vectors is None:
        return
    if not pdev.gone:
        vectors.disable()
        if pdev.stopped is not None:
            pdev.command(set=PCI_COMMAND_INTX_DISABLE)  # its driver does not take the interrupt back
    if source := pdev.platform.messages:
        for line in vectors.lines.values():
            source.release(line)


def pci_irq_vector(pdev: PciDev, nr: int) -> int:
    """The interrupt line of a vector; 0 of a device without such vectors is its pin. UsageError, NotSupported."""
    if pdev.vectors is not None and nr in pdev.vectors.lines:
        return pdev.vectors.lines[nr]
    if pdev.vectors is not None or nr:
        raise UsageError(f"the device has no interrupt vector {nr}", where=pdev.name)
    if not pdev.function.interrupt_pin:
        raise NotSupported("the device has no interrupt pin", where=pdev.name)
    return pdev.function.line


def request_irq(pdev: PciDev, handler: Callable[[], bool], irq: int | None = None) -> Release:
    """Have the handler called when the device interrupts on the line ``irq`` (of pci_irq_vector; None: of vector 0),
    until it is released or the driver lets go of it all.

    It runs with the baton at a delivery point and tells whether its device had asked: the line of a pin may be another's
    too. Whatever it raises stops the driver. NotSupported for a device that cannot interrupt.
    """
    line = pci_irq_vector(pdev, 0) if irq is None else irq
    shared = Handler(line, lambda: bool(pdev.deliver(handler)))
    vectors = pdev.vectors

    def free() -> None:
        if vectors is not None and vectors is pdev.vectors and not pdev.gone:
            vectors.mask(line)
        shared.remove()

    if vectors is not None:
        vectors.unmask(line)
    return pdev.devres.add(free)
