"""``vmk boot``: its life from the first to the last signal.

Independent side: the operating system (signals, sockets, file modes), QEMU, which gets killed, Debian's e1000.ko.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.vmkernel_core.console.running import LIMIT, MODEL_MACHINE, QEMU_MACHINE, Running
from tests.vmkernel_core.console.vmk_command import COMMAND, environment, said, vmk
from vmklinux.kernels import Kernel


@pytest.fixture
def machine(kernel61: Kernel) -> str:
    return QEMU_MACHINE.format(kernel=kernel61.release, more="", arguments="")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals, kernel61: Kernel) -> None:
    with Running(MODEL_MACHINE, tmp_path) as running:
        mode = running.socket.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert running.end(number) == 0
        assert not running.socket.exists()
        assert running.rest()[-1] == "vmk: vmnic0: removed (vmnic0 has gone)"


def test_a_signal_during_boot_ends_it_too(tmp_path: Path, machine: str) -> None:
    running = Running(machine, tmp_path)
    while not running.socket.exists():  # it is there before the boot begins
        assert running.process.poll() is None
    assert running.end() in (0, -signal.SIGTERM)  # by then or before it takes signals over
    running.__exit__(None, None, None)


def test_uplinks_are_opened_and_their_events_told(tmp_path: Path, machine: str) -> None:
    with Running(machine, tmp_path) as running:
        assert running.expect("link-up") == "vmk: vmnic0: link-up"
        [nic] = running.json("network", "nic", "list")
        assert (nic["admin_status"], nic["link_status"], nic["speed"]) == ("up", "up", 1000)
        running.table("network", "nic", "down", "-n", "vmnic0")
        running.expect("vmnic0: link-down")


def test_an_uplink_that_is_not_there_keeps_nobody_from_starting(tmp_path: Path, kernel61: Kernel) -> None:
    with Running('open = ["vmnic5"]\n' + MODEL_MACHINE, tmp_path) as running:
        assert "there is no uplink vmnic5; use one of vmnic0" in running.expect("vmnic5 is not opened")


def test_qemu_killed(tmp_path: Path, machine: str) -> None:
    with Running(machine, tmp_path) as running:
        os.kill(running.qemu(), signal.SIGKILL)
        running.expect("vmnic0: removed")
        # Dead at once; gone from the list as soon as its device was seen to be, and let go.
        for nic in running.json("network", "nic", "list"):
            assert (nic["state"], nic["admin_status"], nic["link_status"]) == ("removed", "down", "down")
            assert "vmnic0 has gone" in nic["error"]
        stats = running.vmk("network", "nic", "stats", "-n", "vmnic0")
        assert (stats.returncode, said(stats).startswith(("vmnic0 has gone", "there is no uplink vmnic0"))) in (
            (5, True), (3, True),
        )  # fmt: skip
        assert running.json("system", "module", "list")[0]["is_loaded"] is True
        assert running.json("system", "module", "unload", "-m", "e1000")["leaks"] == []
        assert running.json("network", "nic", "list") == []
        assert running.end() == 0


def test_it_does_not_start_twice(tmp_path: Path, kernel61: Kernel) -> None:
    with Running(MODEL_MACHINE, tmp_path) as running:
        second = vmk("boot", "-c", str(running.file), "--socket", str(running.socket))
        assert second.returncode == 3
        assert "a vmkernel runs already at" in said(second)
        assert running.json("network", "nic", "list")[0]["name"] == "vmnic0"


def test_a_stale_socket_is_replaced(tmp_path: Path, kernel61: Kernel) -> None:
    with Running(MODEL_MACHINE, tmp_path) as running:
        running.end(signal.SIGKILL)
        assert running.socket.exists()
        assert vmk("network", "nic", "list", "--socket", str(running.socket)).returncode == 4
    with Running(MODEL_MACHINE, tmp_path) as running:
        assert running.json("network", "nic", "list")[0]["name"] == "vmnic0"


def test_a_file_in_the_way_stays(tmp_path: Path) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(MODEL_MACHINE)
    run = vmk("boot", "-c", str(file), "--socket", str(file))
    assert run.returncode == 3
    assert "is in the way" in said(run)
    assert file.read_text() == MODEL_MACHINE


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    file = tmp_path / "machine.toml"
    file.write_text(MODEL_MACHINE)
    run = vmk("boot", "-c", str(file), "--socket", str(directory / "vmk.sock"))
    assert run.returncode == 3
    assert "others may replace files" in said(run)


def test_the_default_socket_is_in_a_directory_of_its_own(tmp_path: Path, kernel61: Kernel) -> None:
    file = tmp_path / "machine.toml"
    file.write_text(MODEL_MACHINE)
    with subprocess.Popen(
        [*COMMAND, "boot", "-c", str(file)],
        env={**environment(XDG_RUNTIME_DIR=str(tmp_path)), "VMK_SOCKET": ""},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready {tmp_path}/vmk/vmk.sock\n"
        assert stat.S_IMODE((tmp_path / "vmk").stat().st_mode) == 0o700
        process.terminate()


def test_systemd_is_told(tmp_path: Path, kernel61: Kernel) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT)
        with Running(MODEL_MACHINE, tmp_path, NOTIFY_SOCKET=str(tmp_path / "notify")):
            assert systemd.recv(100) == b"READY=1"


def test_a_machine_that_does_not_come_up(tmp_path: Path, kernel61: Kernel) -> None:
    file = tmp_path / "machine.toml"
    file.write_text('[platform]\ndevices = ["moon"]\n')
    run = vmk("boot", "-c", str(file), "--socket", str(tmp_path / "vmk.sock"))
    assert run.returncode == 3
    assert "'moon' is not a valid device model name" in said(run)
    assert list(tmp_path.iterdir()) == [file]


def test_frames_of_a_peer_of_qemus_own_wire_are_counted(tmp_path: Path, kernel61: Kernel) -> None:
    """QEMU's -netdev takes the place of the platform's wire; nobody fetches the frames, they are counted."""
    near, far = tmp_path / "near", tmp_path / "far"
    back_end = f"dgram,id=wire0,local.type=unix,local.path={near},remote.type=unix,remote.path={far}"
    machine = QEMU_MACHINE.format(
        kernel=kernel61.release, more="", arguments=f'arguments = ["-netdev", "{back_end}"]'
    )
    frame = bytes.fromhex("ffffffffffff 020000000001 88b5") + bytes(46)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(str(far))
        with Running(machine, tmp_path) as running:
            running.expect("link-up")
            sent = 0
            received = 0
            while not received:  # the card drops frames for a while after it came up
                peer.sendto(frame, str(near))
                sent += 1
                assert sent < 1000
                received = running.json("network", "nic", "stats", "get", "-n", "vmnic0")["driver"][
                    "rx_packets"
                ]
            assert 0 < received <= sent
