"""Operations on modules, Linux's and drivers in Python: ``vmk system module``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from vmkernel_core.console.protocol import Nothing, operation

if TYPE_CHECKING:
    from vmkernel_core.boot import VMkernel
    from vmkernel_core.engine import EngineName


class ModuleName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: a module's name, and its engine where both have one of that name."""

    name: str
    engine: Literal["linux", "native"] | None = None


class Module(msgspec.Struct, frozen=True):
    """A module that is loaded, or that a device of the machine may be driven by; ``size`` is in bytes, 0: not loaded, or
    Python.
    """

    name: str
    engine: Literal["linux", "native"]
    """Whose it is: Linux's, or a driver in Python."""
    policy: str
    """The engine that the list prefers for its devices."""
    override: str
    """The one that an operator chose for them, "" for none."""
    is_loaded: bool
    is_stopped: bool
    """Its driver did what cannot be allowed; unload it and load it again."""
    size: int
    used_by: list[str]
    """Loaded modules that depend on it."""
    devices: list[str]
    """PCI addresses of the devices that it drives."""
    taints: list[str]
    """What an operator overrode for its devices."""


class ModuleDetails(Module, frozen=True):
    """The same, and what the module's file says of itself (.modinfo)."""

    file: str
    kernel: str
    license: str
    version: str
    description: str
    depends: list[str]
    firmware: list[str]
    parameters: list[str]
    """Settings for the next load, ``name=value``."""
    failed: dict[str, str]
    """Devices that it should drive and does not, by PCI address, and why."""


class Parameter(msgspec.Struct, frozen=True):
    """A parameter: its type as module_param() names it, the value for the next load ("" for the driver's own choice)."""

    name: str
    type: str
    value: str
    description: str


class ParameterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments: settings ``name=value`` that replace those made before, or, with ``append``, join them."""

    name: str
    settings: list[str]
    append: bool = False
    engine: Literal["linux", "native"] | None = None


class Unloaded(msgspec.Struct, frozen=True):
    """A module that was unloaded, and what it left behind (which was taken back)."""

    name: str
    leaks: list[str]


@operation("system.module.list", Nothing, list[Module])
def module_list(host: VMkernel, _: Nothing) -> list[Module]:
    """Modules that are loaded, then those that could be for the devices there are."""
    loaded = [(module.name, module.engine) for module in host.modules()]
    wanted = {(adapter.module_name, adapter.engine) for adapter in host.adapters if adapter.module}
    return [_module(host, *one) for one in [*loaded, *sorted(wanted.difference(loaded))]]


@operation("system.module.get", ModuleName, ModuleDetails)
def module_get(host: VMkernel, wanted: ModuleName) -> ModuleDetails:
    """One module of the kernel, loaded or not."""
    info = host.module_info(wanted.name, engine=wanted.engine)
    return ModuleDetails(
        **msgspec.structs.asdict(_module(host, info.name, info.engine)),
        file=info.file,
        kernel=info.kernel,
        license=info.license,
        version=info.version,
        description=info.description,
        depends=list(info.depends),
        firmware=list(info.firmware),
        parameters=list(host.settings(info.name, engine=info.engine)),
        failed={
            str(adapter.function.address): str(adapter.error)
            for adapter in host.adapters_of(info.name, info.engine)
            if adapter.error
        },
    )


@operation("system.module.load", ModuleName, ModuleDetails)
def module_load(host: VMkernel, wanted: ModuleName) -> ModuleDetails:
    """Load it with its settings, and let its driver probe the devices that it may serve."""
    host.load(wanted.name, engine=wanted.engine)
    return module_get(host, wanted)


@operation("system.module.unload", ModuleName, Unloaded)
def module_unload(host: VMkernel, wanted: ModuleName) -> Unloaded:
    """Unload it; its uplinks are removed."""
    name = wanted.name.replace("-", "_")
    left = host.unload(name, engine=wanted.engine)
    return Unloaded(name, [f"{leak.kind}: {leak.what}, {leak.where}" for leak in left])


@operation("system.module.parameters.list", ModuleName, list[Parameter])
def parameters_list(host: VMkernel, wanted: ModuleName) -> list[Parameter]:
    """The parameters that a module takes, in its order."""
    known = host.parameters(wanted.name, engine=wanted.engine)
    parts = (setting.partition("=") for setting in host.settings(wanted.name, engine=wanted.engine))
    values = {name.replace("-", "_"): value if equals else "1" for name, equals, value in parts}
    return [Parameter(one.name, one.type, values.get(one.name, ""), one.description) for one in known]


@operation("system.module.parameters.set", ParameterSettings, list[Parameter])
def parameters_set(host: VMkernel, wanted: ParameterSettings) -> list[Parameter]:
    """Note settings for the next load of the module, for as long as the vmkernel runs."""
    before = host.settings(wanted.name, engine=wanted.engine) if wanted.append else ()
    host.set_parameters(wanted.name, [*before, *wanted.settings], engine=wanted.engine)
    return parameters_list(host, ModuleName(wanted.name, wanted.engine))


def _module(host: VMkernel, name: str, engine: EngineName) -> Module:
    loaded = next((one for one in host.modules() if (one.name, one.engine) == (name, engine)), None)
    devices = host.adapters_of(name, engine)
    return Module(
        name=name,
        engine=engine,
        policy=", ".join(dict.fromkeys(one.choice.policy for one in devices if one.choice.policy)),
        override=", ".join(dict.fromkeys(one.choice.override for one in devices if one.choice.override)),
        is_loaded=loaded is not None,
        is_stopped=loaded is not None and loaded.is_stopped,
        size=loaded.size if loaded else 0,
        used_by=list(loaded.used_by) if loaded else [],
        devices=[str(one.function.address) for one in devices if one.bound],
        taints=list(dict.fromkeys(one.taint for one in devices if one.taint)),
    )
