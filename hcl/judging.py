"""The judge: three verdicts on each device of an inventory - hardware, driver, firmware - and one of them all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from hcl import names, native
from hcl.firmware import compare
from hcl.inventory import Device, Inventory, PciDevice, Unidentified, UsbDevice
from hcl.reading import DRIVERS
from hcl.registry import Registry
from hcl.report import DeviceReport, Judgement, MachineReport, Profile, counts_of, exit_code_of
from hcl.rules import Exclusion, taint
from hcl.unlisted import is_driven, modalias, no_obstacle
from hcl.verdict import Engine, Rung, Status, Verdict


class KernelModules(Protocol):
    """A kernel release's modules, as far as the judge asks of them."""

    @property
    def release(self) -> str:
        """Which release it is."""

    def claimants(self, modalias: str) -> Sequence[str]:
        """The modules that claim a device, the nearest first."""

    def firmware(self, module: str) -> Sequence[str] | None:
        """Firmware files that a module may ask for; None when the release has no such module."""

    def obstacle(self, module: str) -> str:
        """A clause that says why a module cannot be run here; "" when it can be."""


_WORST = (Status.UNSUPPORTED, Status.UNKNOWN, Status.COMPATIBLE, Status.CERTIFIED)
_UNTOLD = "0"
#: What a device may be beyond the subsystems and classes that the list names.
_OTHER_SUBSYSTEM = (0xFFFF, 0xFFFF)
_NOTHING_TO_DRIVE = Judgement(Status.SKIPPED, "there is no driver to look at")


class Judge:
    """Judges devices for one kernel by one registry; keeps what it found, since machines of a fleet are alike.

    ``modules`` are those of the kernel release, or None where they are not here: then ``kernel`` says which series is
    meant, and what only they know is unknown. ``overrides``: PCI address, or ``vendor:device``, to the module of Linux's
    that an operator chose. ``engine``: whose driver is to have each device, where the list has one of its; None: whose
    the list prefers. ``engines`` is what was chosen for some, by PCI address.
    """

    def __init__(
        self,
        registry: Registry,
        kernel: str,
        modules: KernelModules | None = None,
        *,
        profile: Profile = Profile.DEFAULT,
        exclusions: Iterable[Exclusion] = (),
        overrides: Mapping[str, str] | None = None,
        engine: Engine | None = None,
        engines: Mapping[str, Engine] | None = None,
    ) -> None:
        self.registry = registry
        self.kernel = kernel
        self.modules = modules
        self.profile = profile
        self._exclusions = tuple(exclusions)
        self._overrides = dict(overrides or {})
        self._engine = engine
        self._engines = dict(engines or {})
        #: Whether a report depends on where the device is.
        self._by_place = bool(self._overrides or self._engines) or any(
            rule.key == "place" for rule in self._exclusions
        )
        self._kept: dict[tuple[object, ...], DeviceReport] = {}

    def machine(self, inventory: Inventory) -> MachineReport:
        """The report of a machine, its devices in the inventory's order."""
        devices = tuple(self.device(device) for device in inventory.devices)
        counts = counts_of(devices)
        return MachineReport(
            host=inventory.host,
            model=inventory.model,
            source=inventory.source,
            kernel=self.kernel,
            profile=self.profile,
            engine=self._engine,
            exit_code=exit_code_of(counts),
            counts=counts,
            tainted=tuple(
                taint(found, self._overrides[found])
                for device in inventory.devices
                if (found := self._overridden(device))
            ),
            notes=inventory.notes,
            devices=devices,
        )

    def device(self, device: Device) -> DeviceReport:
        """The report of one device."""
        key = self._key(device)
        report = self._kept.get(key)
        if report is None:
            self._kept[key] = report = self._judged(device)
        return msgspec.structs.replace(
            report,
            place=device.place,
            driver_in_use=device.driver if isinstance(device, PciDevice) else None,
        )

    def _key(self, device: Device) -> tuple[object, ...]:
        """All that a report depends on, the place aside where no rule asks for it."""
        place = device.place if self._by_place else ""
        if isinstance(device, PciDevice):
            return (
                device.vendor, device.device, device.subvendor, device.subdevice, device.pci_class,
                device.firmware, device.name, place,
            )  # fmt: skip
        return (msgspec.structs.replace(device, port="") if isinstance(device, UsbDevice) else device, place)

    def _judged(self, device: Device) -> DeviceReport:
        excluded = next((rule for rule in self._exclusions if rule.matches(device)), None)
        if isinstance(device, PciDevice):
            report = self._pci(device)
        elif isinstance(device, UsbDevice):
            from hcl.usb import report as usb_report

            report = usb_report(device, self.registry.usb, self.modules)
        else:
            report = _unidentified(device)
        if excluded is None:
            return report
        left_out = Judgement(Status.SKIPPED, f"left out by the rule {excluded.text}")
        return msgspec.structs.replace(
            report,
            status=Status.SKIPPED,
            reason=f"{left_out.reason}; else: {report.status}",
            hardware=left_out,
            driver=left_out,
            firmware=left_out,
        )

    # ---- PCI ----

    def _pci(self, device: PciDevice) -> DeviceReport:
        override = self._overridden(device)
        chosen = "linux" if override else self._engines.get(device.address)
        verdict, open_question = self._verdict(device, chosen)
        if override:
            verdict = verdict.overridden(self._overrides[override])
        hardware = Judgement(Status.UNKNOWN, open_question) if open_question else self._hardware(verdict)
        driver = self._driver(device, verdict) if not open_question else _NOTHING_TO_DRIVE
        firmware = self._firmware(device, verdict)
        status, reason = self._together(hardware, driver, firmware)
        proof = verdict.proof
        return DeviceReport(
            bus="pci",
            place=device.place,
            ids=f"{device.vendor}:{device.device}",
            subsystem=f"{device.subvendor}:{device.subdevice}" if device.subvendor else None,
            device_class=device.pci_class,
            name=names.device_name(int(device.vendor, 16), int(device.device, 16)) or device.name,
            status=status,
            reason=reason,
            rung=verdict.rung,
            esx_driver=verdict.driver,
            engine=verdict.engine if verdict.module else None,
            module=verdict.module,
            function=verdict.function,
            hardware=hardware,
            driver=driver,
            firmware=firmware,
            losers=verdict.losers,
            claimants=verdict.claimants,
            proof=proof,
            proof_age=proof.age() if proof else None,
            limits=verdict.limits,
            overlay=verdict.overlay,
        )

    def _overridden(self, device: Device) -> str | None:
        """What of the operator's overrides means the device."""
        if not self._overrides or not isinstance(device, PciDevice):
            return None
        return next(
            (way for way in (device.address, f"{device.vendor}:{device.device}") if way in self._overrides),
            None,
        )

    def _verdict(self, device: PciDevice, chosen: Engine | None) -> tuple[Verdict, str]:
        """The list's verdict, and what it depends on that the inventory does not tell ("" when nothing)."""
        vendor, product = int(device.vendor, 16), int(device.device, 16)
        subsystems, classes = self.registry.told_apart(vendor, product)
        untold = []
        ways: list[tuple[int, int]] = [_OTHER_SUBSYSTEM, *sorted(subsystems)]
        if device.subvendor is not None and device.subdevice is not None:
            ways = [(int(device.subvendor, 16), int(device.subdevice, 16))]
        else:
            untold.append("the subsystem")
        told = device.pci_class or ""
        codes = [
            int(told.ljust(6, _UNTOLD), 16),
            *(code for code in sorted(classes) if f"{code:06x}".startswith(told)),
        ]
        if len(told) == 6:
            codes = codes[:1]
        else:
            untold.append("the class" if not told else "the programming interface")
        claimants = self.modules.claimants if self.modules else None
        obstacle = self.modules.obstacle if self.modules else no_obstacle
        look = partial(self.registry.lookup, kernel=self.kernel, claimants=claimants, obstacle=obstacle)

        def ask(*ids: int) -> Verdict:
            verdict, wanted = look(*ids, engine=chosen), self._engine
            other = chosen is None and wanted in verdict.engines and wanted != verdict.engine
            return look(*ids, engine=wanted) if other else verdict

        verdicts = [
            ask(vendor, product, *subsystem, code) for subsystem, code in itertools.product(ways, codes)
        ]
        first = verdicts[0]
        if any(
            (v.driver, v.module, v.status) != (first.driver, first.module, first.status) for v in verdicts
        ):
            return (
                first,
                f"it depends on {' and '.join(untold)}, which the inventory does not tell; lspci -vmmnn does",
            )
        if not told and first.rung is Rung.UNKNOWN:
            return first, "it is not listed, and the inventory does not tell its class; lspci -nn does"
        return first, ""

    def _hardware(self, verdict: Verdict) -> Judgement:
        if verdict.rung is not Rung.UNKNOWN:
            because = f" {verdict.evidence}." if verdict.evidence else ""
            status = verdict.status
            if verdict.status is Status.UNKNOWN and verdict.module:
                because = f" Nobody has run {verdict.module} here yet."
            limits = "".join(f" Known limit: {limit.rstrip('.')}." for limit in verdict.limits)
            return Judgement(status, f"{verdict.reason}{because}{limits}")
        if not is_driven(verdict.pci_class):
            return Judgement(
                Status.SKIPPED, f"{verdict.reason} It is neither a network nor a storage controller."
            )
        if self.modules is None:
            return Judgement(Status.UNKNOWN, f"{verdict.reason} {self._no_modules()}")
        return Judgement(Status.UNSUPPORTED, verdict.reason)

    def _no_modules(self) -> str:
        return f"The modules of Linux {self.kernel} are not here: vmk kernel fetch {self.kernel} gets them."

    def _driver(self, device: PciDevice, verdict: Verdict) -> Judgement:
        name = verdict.module
        if name is None:
            return _NOTHING_TO_DRIVE
        if verdict.engine == "native":
            return _in_python(verdict, name)
        if self.modules is None:
            return Judgement(Status.UNKNOWN, self._no_modules())
        release = self.modules.release
        if lacks := self._lacks(self.modules, device, verdict, name):
            return Judgement(Status.UNSUPPORTED, lacks)
        if verdict.proof and verdict.proof.status is Status.CERTIFIED:
            proven = verdict.proof.kernel
            other = "" if proven == release else f", this is {release} of the same series"
            return Judgement(Status.CERTIFIED, f"{name} was certified with Linux {proven}{other}.")
        return Judgement(Status.COMPATIBLE, f"{name} of Linux {release} claims the device.")

    @staticmethod
    def _lacks(modules: KernelModules, device: PciDevice, verdict: Verdict, name: str) -> str:
        """Why the kernel's module cannot drive the device, a sentence; "" when it can."""
        if modules.firmware(name) is None:
            return f"Linux {modules.release} has no module {name}."
        if verdict.obstacle:
            return f"{verdict.obstacle}."
        if verdict.claimants or verdict.status is Status.UNSUPPORTED:
            return ""
        # The list names the module; it says itself what it drives.
        subsystem = int(device.subvendor or "ffff", 16), int(device.subdevice or "ffff", 16)
        ids = (int(device.vendor, 16), int(device.device, 16), *subsystem)
        found = modules.claimants(modalias(ids, int(verdict.pci_class, 16)))
        if name.replace("-", "_") in {each.replace("-", "_") for each in found}:
            return ""
        return f"{name} of Linux {modules.release} does not claim the device."

    def _firmware(self, device: PciDevice, verdict: Verdict) -> Judgement:
        runs = f" The device runs {device.firmware}." if device.firmware else ""
        wanted = verdict.firmware
        if wanted and wanted.minimum:
            return _compared(device.firmware, wanted.minimum)
        files = []
        if self.modules and verdict.module and verdict.engine == "linux":
            files = list(self.modules.firmware(verdict.module) or ())
        if wanted and wanted.file:
            files = [wanted.file, *(file for file in files if file != wanted.file)]
        if not files:
            return Judgement(Status.SKIPPED, f"Its driver asks for no firmware file.{runs}")
        some = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
        asks = "wants" if wanted else "may ask for"
        return Judgement(
            Status.UNKNOWN,
            f"{verdict.module or 'It'} {asks} {some}; the inventory does not tell whether they are there.{runs}",
        )

    # ---- all three ----

    def _together(self, hardware: Judgement, driver: Judgement, firmware: Judgement) -> tuple[Status, str]:
        if hardware.status is Status.SKIPPED:
            return hardware.status, hardware.reason
        # Firmware that is known to be too old counts. Which of its files a driver loads, no inventory tells; a run that
        # passed had what it takes.
        asked = [hardware, driver, *([firmware] if firmware.status is Status.UNSUPPORTED else [])]
        worst = min(
            (each for each in asked if each.status in _WORST), key=lambda each: _WORST.index(each.status)
        )
        if worst.status is Status.COMPATIBLE and (wanted := self.profile.wants(worst.status)):
            return Status.UNSUPPORTED, f"{worst.reason.rstrip('.')}; {wanted}."
        return worst.status, worst.reason


def _in_python(verdict: Verdict, name: str) -> Judgement:
    """Whether this package has the driver in Python."""
    here, proof = native.version(), verdict.proof
    code = native.sources_sha256(DRIVERS / (verdict.driver or ""))
    if not code:
        return Judgement(Status.UNSUPPORTED, f"vmklinux {here} has no driver {name} in Python.")
    if proof is None or proof.status is not Status.CERTIFIED:
        return Judgement(Status.COMPATIBLE, f"{name} in Python of vmklinux {here} knows the device.")
    other = ""
    if code != proof.module_sha256:
        other = f"; its code has changed since, this is that of {here}, of the same series"
    return Judgement(Status.CERTIFIED, f"{proof.driver} was certified{other}.")


def _compared(runs: str | None, minimum: str) -> Judgement:
    """Whether a device's firmware, where told, is not older than the least that is wanted."""
    if runs is None:
        return Judgement(
            Status.UNKNOWN,
            f"Firmware {minimum} or later is wanted; the inventory does not tell which it runs.",
        )
    order = compare(runs, minimum)
    if order is None:
        return Judgement(
            Status.UNKNOWN,
            f"Firmware {minimum} or later is wanted; nobody can tell whether {runs}, which it runs, is that.",
        )
    if order < 0:
        return Judgement(Status.UNSUPPORTED, f"It runs firmware {runs}; {minimum} or later is wanted.")
    return Judgement(Status.COMPATIBLE, f"It runs firmware {runs}; {minimum} or later is wanted.")


def _unidentified(device: Unidentified) -> DeviceReport:
    reason = f"Cannot determine: {device.reason}."
    unknown = Judgement(Status.UNKNOWN, reason)
    return DeviceReport(
        bus="unidentified", place=device.place, name=device.name, status=Status.UNKNOWN, reason=reason,
        hardware=unknown, driver=unknown, firmware=unknown,
    )  # fmt: skip
