"""``vmk system``, in esxcli's grammar: modules of a vmkernel, and the HCL's verdicts on its devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import click

from vmkernel_core.console.show import show
from vmkernel_core.console.target import asks
from vmkernel_core.engine import ENGINES, EngineName
from vmkernel_core.module_settings import split_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmkernel_core.console.client import Caller

NameAndEngine: TypeAlias = tuple[str, EngineName | None]


class _Module(click.ParamType[NameAndEngine]):
    """``e1000``, or ``native:e1000`` where both engines have one of that name: name and engine."""

    name = "module"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> NameAndEngine:
        engine, colon, name = value.rpartition(":")
        if not name:
            self.fail(f"{value!r} names no module; write e1000, linux:e1000 or native:e1000", param, ctx)
        for known in ENGINES:
            if engine == known:
                return name, known
        if colon:
            self.fail(f"{engine!r} is no engine; write linux:{name} or native:{name}", param, ctx)
        return value, None


def _named(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-m", "--module", "module", required=True, type=_Module(), metavar="[ENGINE:]MODULE",
        help="The module, like e1000; linux:e1000 or native:e1000 where there are two.",
    )(function)  # fmt: skip


@click.group()
def system() -> None:
    """A running vmkernel: see, load and unload modules, set their parameters; the HCL's verdicts."""


@system.group()
def hcl() -> None:
    """The hardware compatibility list."""


@hcl.command("get")
@asks(config_flags=("--config",))
def hcl_get(vmkernel: Caller, as_json: bool) -> None:
    """The verdict on each device, as `hcl validate` gives it, and what an operator overrode."""
    from vmkernel_core.console.hcl_operations import hcl_get

    report = vmkernel.call(hcl_get)
    if as_json:
        show(report, as_json)
        return
    from hcl.formats import render
    from hcl.summary import Fleet

    for piece in render("table", Fleet([report]), brief=False):
        click.echo(piece, nl=False)


@system.group()
def module() -> None:
    """Modules: Linux's, and drivers in Python."""


@module.command("list")
@asks()
def module_list(vmkernel: Caller, as_json: bool) -> None:
    """Modules that are loaded, and those that could be for the devices there are."""
    from vmkernel_core.console.module_operations import module_list

    show(vmkernel.call(module_list), as_json)


@module.command("get")
@_named
@asks()
def module_get(vmkernel: Caller, as_json: bool, module: NameAndEngine) -> None:
    """One module, loaded or not."""
    from vmkernel_core.console.module_operations import ModuleName, module_get

    show(vmkernel.call(module_get, ModuleName(*module)), as_json)


@module.command("load")
@_named
@asks()
def module_load(vmkernel: Caller, as_json: bool, module: NameAndEngine) -> None:
    """Load a module with its parameters; its driver probes the devices that it may serve."""
    from vmkernel_core.console.module_operations import ModuleName, module_load

    show(vmkernel.call(module_load, ModuleName(*module)), as_json)


@module.command("unload")
@_named
@asks()
def module_unload(vmkernel: Caller, as_json: bool, module: NameAndEngine) -> None:
    """Unload a module, and tell what it left behind; its uplinks are removed."""
    from vmkernel_core.console.module_operations import ModuleName, module_unload

    show(vmkernel.call(module_unload, ModuleName(*module)), as_json)


@module.group()
def parameters() -> None:
    """Parameters of modules."""


@parameters.command("list")
@_named
@asks()
def parameters_list(vmkernel: Caller, as_json: bool, module: NameAndEngine) -> None:
    """What a module takes, and what it is given at its next load."""
    from vmkernel_core.console.module_operations import ModuleName, parameters_list

    show(vmkernel.call(parameters_list, ModuleName(*module)), as_json)


@parameters.command("set")
@_named
@click.option(
    "-p", "--parameter-string", "text", required=True, metavar="SETTINGS",
    help='Settings with spaces between them: "debug=16 Speed=100"; "" for none.',
)  # fmt: skip
@click.option("-a", "--append", is_flag=True, help="Keep the settings made before; else these replace them.")
@asks()
def parameters_set(vmkernel: Caller, as_json: bool, module: NameAndEngine, text: str, append: bool) -> None:
    """Set parameters of a module. They take effect when it is loaded the next time.

    The running vmkernel keeps them until it ends; for good they belong into the machine file.
    """
    from vmkernel_core.console.module_operations import ParameterSettings, parameters_set

    name, engine = module
    settings = split_settings(text)
    show(vmkernel.call(parameters_set, ParameterSettings(name, settings, append, engine)), as_json)
    if not as_json:
        click.echo(f"{name} is loaded with these values the next time.")
