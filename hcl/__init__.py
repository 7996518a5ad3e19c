"""The hardware compatibility list: which driver serves a device, a Linux module or one in Python, and how well that is
proven.

>>> import hcl
>>> verdict = hcl.lookup(0x8086, 0x100E, 0x1AF4, 0x1100, 0x020000, kernel="6.1.0-56-amd64")
>>> str(verdict.rung), verdict.driver, verdict.module, str(verdict.status)
('vendor:device', 'net/e1000', 'e1000', 'certified')

The list itself are the drivers' folders in ``native_drivers``, of which data is read. The package imports nothing
of its users'. Importing it costs next to nothing: its parts come in when their names are first used, and the list
is read at the first lookup.
"""

from importlib import import_module

TYPE_CHECKING = False  # as in typing, whose import would cost more than all the rest here
if TYPE_CHECKING:
    from hcl.errors import BadIds, HclError, RegistryError, UnknownKernel
    from hcl.names import device_name
    from hcl.unlisted import Claimants, Obstacle
    from hcl.verdict import Engine, Loser, Rung, Status, Verdict

__all__ = [
    "BadIds",
    "HclError",
    "Loser",
    "RegistryError",
    "Rung",
    "Status",
    "UnknownKernel",
    "Verdict",
    "device_name",
    "lookup",
]

_HOMES = {
    "hcl.errors": ("BadIds", "HclError", "RegistryError", "UnknownKernel"),
    "hcl.names": ("device_name",),
    "hcl.verdict": ("Loser", "Rung", "Status", "Verdict"),
}


if not TYPE_CHECKING:  # a type checker is to know which names there are

    def __getattr__(name: str) -> object:
        """Bring in a public name at its first use (PEP 562)."""
        for home, names in _HOMES.items():
            if name in names:
                globals()[name] = value = getattr(import_module(home), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def lookup(
    vendor: int,
    device: int,
    subvendor: int,
    subdevice: int,
    pci_class: int,
    *,
    kernel: str = "6.1",
    claimants: "Claimants | None" = None,
    obstacle: "Obstacle | None" = None,
    engine: "Engine | None" = None,
) -> "Verdict":
    """The list's verdict on a PCI device: its four ids (16 bits each) and its class code (24 bits).

    The ladder is: all four ids, vendor and device, vendor and class under a mask, unknown. Within a rung
    the row with more detail wins, then the driver with the higher priority. Any device gets a verdict.
    ``kernel`` is a release or its beginning: ``6.1``, ``6.12.107+deb13-amd64``. ``claimants`` tells which of its
    modules claim a device: modalias to module names, the nearest first. It is asked when no row of the list matches,
    and only for devices of the classes in ``hcl.unlisted``; what a module claims is ``compatible``.
    ``obstacle`` tells why a module cannot be run: module to a clause, "" for none. A device whose module cannot be is
    ``unsupported``.
    ``engine`` says whose driver is meant: Linux's module, or the driver in Python (``native``), each judged by its own
    certification runs; None: the one that the list prefers.

    What a site lays over the list, in the directory that VMK_HCL names or /etc/vmklinux/hcl.d, goes before it.

    Raises BadIds for a value out of range, UnknownKernel for a kernel that the list does not cover and
    RegistryError when the list itself is damaged.
    """
    from hcl.reading import installed
    from hcl.unlisted import no_obstacle

    return installed().lookup(
        vendor, device, subvendor, subdevice, pci_class,
        kernel=kernel, claimants=claimants, obstacle=obstacle or no_obstacle, engine=engine,
    )  # fmt: skip
