"""Fusion-MPT's driver in Python on an IOC with request frames of 128 bytes, as those of parallel SCSI have.

Independent of us: QEMU's mptsas1068, which takes frames of any size, and follows chains wherever they lead; what it says
of their size is changed on the way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from native_drivers.scsi.mptscsi_2xx.ioc import Ioc
from native_drivers.scsi.mptscsi_2xx.messages import IOC_FACTS, IOC_FACTS_REPLY, Reply, Request
from tests.e2e.storage import blank, load
from tests.native_drivers.fusion import LIMIT, Fusion, check_pieces

FRAME = 128


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """IOC Facts tell of frames of that size, and of 40 of them."""
    handshake = Ioc.handshake

    def changed(ioc: Ioc, request: Request, kind: type[Reply], seconds: float = LIMIT) -> Reply:
        reply = handshake(ioc, request, kind, seconds)
        if isinstance(request, IOC_FACTS):
            assert isinstance(reply, IOC_FACTS_REPLY)
            reply.set(RequestFrameSize=FRAME // 4, GlobalCredits=40)
        return reply

    monkeypatch.setattr(Ioc, "handshake", changed)


@pytest.mark.usefixtures("small")
def test_data_in_any_pieces_arrives(tmp_path: Path) -> None:
    """Six elements fit behind a request, ten into a chain buffer: fourteen of these carry what three do elsewhere."""
    image = blank(tmp_path / "disk.raw")
    with Fusion([image]) as fusion:
        assert fusion.driver.ioc.frames.size == FRAME
        assert (fusion.adapter.queue_depth, fusion.driver.io.segments) == (36, 128)
        check_pieces(fusion, image, [1, 2, 5, 6, 7, 15, 16, 17, 24, 25, 26, 127, 128])
        for request in load(fusion.disk, 200):
            assert request.result(LIMIT).good
        assert fusion.disk.stats().in_flight_most == 36
        assert image.read_bytes()[: 200 * 512] == b"".join(bytes([n]) * 512 for n in range(200))
