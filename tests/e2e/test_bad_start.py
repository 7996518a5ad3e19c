"""A host that cannot start its driver says why, and the next host of the process works.

Independent: Debian's e1000.ko, whose parameters these are, on our e1000 model.
"""

from __future__ import annotations

import pytest

from tests.e2e.conftest import PLATFORMS, exchange
from vmkernel_core.boot import VMkernel
from vmklinux.kernels import Kernel
from vmklinux.module.errors import BadParameter


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nonsense=1", "nonsense"),
        ("debug=loud", "debug.*loud"),
        ("debug=99999999999", "debug.*99999999999"),
        ("TxDescriptors=" + "80," * 40 + "80", "TxDescriptors"),
        ("debug", "debug"),
    ],
)
def test_bad_parameter(kernel: Kernel, setting: str, message: str) -> None:
    with VMkernel(PLATFORMS["model"](), kernel=kernel.release, settings={"e1000": [setting]}) as host:
        (adapter,) = host.adapters
        assert isinstance(adapter.error, BadParameter)
        assert adapter.error.module == "e1000"
        with pytest.raises(BadParameter, match=message):
            raise adapter.error
        assert host.uplinks == {}
        assert host.loader.modules == {}
    assert host.leaks == []


def test_a_good_host_after_a_bad_parameter(kernel: Kernel) -> None:
    with VMkernel(PLATFORMS["model"](), kernel=kernel.release, settings={"e1000": ["debug=x"]}):
        pass
    with VMkernel(PLATFORMS["model"](), kernel=kernel.release, settings={"e1000": ["debug=0"]}) as host:
        exchange(host)
    assert host.leaks == []
