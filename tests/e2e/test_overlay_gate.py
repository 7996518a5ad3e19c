"""A site's overlay at the vmkernel's gate: what it refuses is left alone, with the site's reason.

Independent side: Debian's e1000, which would drive the card, as would ours in Python; the card is a model of ours.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vmkernel_core.boot import VMkernel
from vmkernel_core.engine import EngineName
from vmkernel_core.engine_choice import Choice
from vmkernel_core.platform.e1000_model import E1000Model
from vmkernel_core.platform.model import ModelPlatform
from vmklinux.kernels import Kernel

REFUSED = '[[device]]\nids = "8086:100e"\nstatus = "unsupported"\nreason = "it burnt in rack 7"\n'


@pytest.mark.parametrize("engine", ["linux", "native"])
def test_what_a_site_refuses_is_left_alone(
    kernel: Kernel, engine: EngineName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rack7.toml").write_text(REFUSED)
    monkeypatch.setenv("VMK_HCL", str(tmp_path))
    with VMkernel(ModelPlatform([E1000Model()]), kernel=kernel.release, engine=engine) as host:
        (card,) = host.adapters
        assert card.verdict.overlay == f"{tmp_path / 'rack7.toml'}:1"
        assert "it burnt in rack 7" in str(card.error)
        assert card.uplink is None
        assert not host.modules()
    monkeypatch.setenv("VMK_HCL", "")
    with VMkernel(ModelPlatform([E1000Model()]), kernel=kernel.release, engine=engine) as host:
        assert host.adapters[0].error is None
        assert [(one.engine, one.name) for one in host.modules()] == [(engine, "e1000")]


def test_the_engine_that_a_site_prefers(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series = ".".join(kernel.release.split(".")[:2])
    (tmp_path / "rack7.toml").write_text(
        f'[[device]]\nids = "8086:100e"\nkernels = ["{series}"]\nengine = "native"\n'
    )
    monkeypatch.setenv("VMK_HCL", str(tmp_path))
    with VMkernel(ModelPlatform([E1000Model()]), kernel=kernel.release) as host:
        (card,) = host.adapters
        assert (card.choice, card.bound) == (Choice("native", "native", None), True)
        assert f"{tmp_path / 'rack7.toml'}:1 prefers the engine native" in card.verdict.reason
    with VMkernel(ModelPlatform([E1000Model()]), kernel=kernel.release, engine="linux") as host:
        (card,) = host.adapters
        assert (card.choice, card.bound) == (Choice("linux", "native", "linux"), True)
