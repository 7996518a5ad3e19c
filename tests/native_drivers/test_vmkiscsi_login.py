"""Who may log in, and what is told when somebody may not. Independent of us: tgt's CHAP, and its list of sessions."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from native_drivers.scsi.vmkiscsi.connection import Connection
from native_drivers.scsi.vmkiscsi.errors import IscsiError, LoginRefused, PortalUnreachable
from native_drivers.scsi.vmkiscsi.library import load
from native_drivers.scsi.vmkiscsi.parameters import Settings
from tests.native_drivers.iscsi import MIB, NAME, disk, host_with, image, naa, on_disk, the_iscsi
from tests.native_drivers.tgt import Target, Tgt, free_port
from vmkernel_core.errors import UsageError, VmkError
from vmkernel_core.storage.events import StorageEvent

#: Accounts of the targets; tgt wants 12 characters at least of nobody.
INITIATOR, OUTGOING = ("initiator-name", "initiator-secret"), ("target-name", "target-secret-1")
GUARDED, MUTUAL, OPEN = NAME.format("guarded"), NAME.format("mutual"), NAME.format("open")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where images and secrets are."""
    return tmp_path_factory.mktemp("login")


@pytest.fixture(scope="module")
def tgt(directory: Path) -> Iterator[Tgt]:
    """A target with CHAP, one with mutual CHAP, one for everybody."""
    with Tgt(
        Target(GUARDED, {1: image(directory / "guarded", MIB)}, account=INITIATOR),
        Target(
            MUTUAL,
            {1: image(directory / "mutual", MIB)},
            account=("mutual-name", "mutual-secret-1"),
            outgoing=OUTGOING,
        ),
        Target(OPEN, {1: image(directory / "open", MIB)}),
    ) as running:
        yield running


def secret(directory: Path, text: str) -> Path:
    """A file with a secret."""
    path = directory / f"secret-{len(list(directory.iterdir()))}"
    path.write_text(f"{text}\n")
    path.chmod(0o600)
    return path


def chap(directory: Path, name: str, text: str, prefix: str = "chap") -> list[str]:
    """The parameters that give name and secret."""
    return [f"{prefix}_name={name}", f"{prefix}_secret_file={secret(directory, text)}"]


def refused(*settings: str) -> VmkError:
    """What loading raises."""
    with pytest.raises(VmkError) as raised, host_with(*settings):
        pass
    return raised.value


def test_chap_lets_in(tgt: Tgt, directory: Path) -> None:
    with host_with(f"portal={tgt.portal}", f"target={GUARDED}", *chap(directory, *INITIATOR)) as host:
        assert disk(host, 1).read(0, 64) == on_disk(directory / "guarded", 0, 64)


def test_mutual_chap_lets_in(tgt: Tgt, directory: Path) -> None:
    both = chap(directory, "mutual-name", "mutual-secret-1") + chap(directory, *OUTGOING, "mutual_chap")
    with host_with(f"portal={tgt.portal}", f"target={MUTUAL}", *both) as host:
        assert disk(host, 2).read(0, 64) == on_disk(directory / "mutual", 0, 64)


@pytest.mark.parametrize("account", [None, (INITIATOR[0], "wrong-secret-7"), ("wrong-name", INITIATOR[1])])
def test_a_wrong_account_is_refused(tgt: Tgt, directory: Path, account: tuple[str, str] | None) -> None:
    given = chap(directory, *account) if account else []
    error = refused(f"portal={tgt.portal}", f"target={GUARDED}", *given)
    assert isinstance(error, LoginRefused)
    assert error.status == 0x0201
    assert GUARDED in str(error)
    assert tgt.portal in str(error)
    assert "chap_secret_file" in error.remedy


@pytest.mark.parametrize("outgoing", [(OUTGOING[0], "wrong-secret-7"), ("wrong-name", OUTGOING[1])])
def test_a_target_that_cannot_prove_itself_is_not_used(
    tgt: Tgt, directory: Path, outgoing: tuple[str, str]
) -> None:
    both = chap(directory, "mutual-name", "mutual-secret-1") + chap(directory, *outgoing, "mutual_chap")
    error = refused(f"portal={tgt.portal}", f"target={MUTUAL}", *both)
    assert isinstance(error, LoginRefused)
    assert "mutual CHAP" in error.what
    assert "mutual_chap_secret_file" in error.remedy


def test_an_unknown_target_is_told(tgt: Tgt) -> None:
    error = refused(f"portal={tgt.portal}", f"target={NAME.format('nobody')}")
    assert isinstance(error, LoginRefused)
    assert error.status == 0x0203
    assert NAME.format("nobody") in str(error)
    assert tgt.portal in str(error)


@pytest.mark.parametrize("target", ["", f"target={OPEN}"])
def test_a_portal_where_nobody_listens_is_told(target: str) -> None:
    portal = f"127.0.0.1:{free_port()}"
    error = refused(f"portal={portal}", *([target] if target else []))
    assert isinstance(error, PortalUnreachable)
    assert "Connection refused" in error.what
    assert portal in str(error)
    assert error.exit_code == 5


def test_a_portal_without_an_address_is_told() -> None:
    error = refused("portal=nobody.invalid:3260", f"target={OPEN}")
    assert isinstance(error, PortalUnreachable)
    assert "no address for portal nobody.invalid:3260" in str(error)


def test_a_portal_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        error = refused(f"portal=127.0.0.1:{mute.getsockname()[1]}", f"target={OPEN}", "login_timeout=1")
    assert isinstance(error, PortalUnreachable)
    assert "no login within 1 s" in error.what
    assert "login_timeout" in error.remedy


def test_a_portal_that_hangs_up_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as rude:
        rude.settimeout(10)

        def hang_up() -> None:
            connection, _ = rude.accept()
            connection.recv(1)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = refused(f"portal=127.0.0.1:{rude.getsockname()[1]}", f"target={OPEN}")
        thread.join()
    assert isinstance(error, IscsiError)
    assert OPEN in str(error)


#: Flags of a login response (RFC 7143, 11.13.1): on to the full feature phase, from the operational stage at once.
AT_ONCE = 0x87


@contextmanager
def portal_of(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """The portal of somebody who talks so with the first who connects."""

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.settimeout(30)
        with connection:
            talk(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join(30)


def hear(connection: socket.socket) -> bytes:
    """The header of the next request (RFC 7143, 11.2), whose data are passed over; b"" at the end."""
    request = connection.recv(48, socket.MSG_WAITALL)
    connection.recv(int.from_bytes(request[5:8], "big") + 3 & ~3, socket.MSG_WAITALL)
    return request


def rogue(*answers: dict[str, str]) -> AbstractContextManager[str]:
    """The portal of somebody who answers logins with these texts, lets everybody in with the last, and says no more."""

    def talk(connection: socket.socket) -> None:
        for number, answer in enumerate(answers, 1):
            flags = AT_ONCE if number == len(answers) else 0
            connection.sendall(login_response(hear(connection), flags, answer))
        while connection.recv(4096):
            pass

    return portal_of(talk)


def login_response(request: bytes, flags: int, answer: dict[str, str]) -> bytes:
    """A response that goes well (RFC 7143, 11.13), with a window of 16 commands."""
    (cmdsn,) = struct.unpack_from(">I", request, 24)
    text = "".join(f"{key}={value}\0" for key, value in answer.items()).encode()
    header = struct.pack(
        ">BBHI6sH4sIIIIH10x",
        0x23, flags, 0, len(text), request[8:14], 1, request[16:20], 0, 0, cmdsn, cmdsn + 16, 0,
    )  # fmt: skip
    return header + text + bytes(-len(text) % 4)


def telling(*told: tuple[str, str]) -> AbstractContextManager[str]:
    """The portal of somebody who lets everybody in and tells of these targets and portals (RFC 7143, 11.11)."""

    def talk(connection: socket.socket) -> None:
        text = "".join(f"TargetName={name}\0TargetAddress={portal},1\0" for name, portal in told).encode()
        while request := hear(connection):
            if request[0] & 0x3F == 3:
                connection.sendall(login_response(request, AT_ONCE, {}))
            else:
                header = struct.pack(
                    ">BBHI8s4sIIII12x", 0x24, 0x80, 0, len(text), b"", request[16:20], 0xFFFF_FFFF, 1, 1, 16
                )
                connection.sendall(header + text + bytes(-len(text) % 4))

    return portal_of(talk)


def test_portals_that_nobody_answers_at_are_told_and_the_others_used(
    tgt: Tgt, directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    told = ((OPEN, nowhere), (OPEN, tgt.portal), (NAME.format("gone"), nowhere), (NAME.format("bad"), "[::1"))
    with (
        telling(*told) as portal,
        caplog.at_level(logging.ERROR),
        host_with(f"portal={portal}", "login_timeout=5") as host,
    ):
        assert disk(host, 3).read(0, 8) == on_disk(directory / "open", 0, 8)
        states = {(one.target, one.portal): one.state for one in the_iscsi(host).sessions()}
        assert states[OPEN, tgt.portal] == "online"
        assert states[OPEN, nowhere] == states[NAME.format("gone"), nowhere] == "new"
        errors = {one.name: str(one.error) for one in the_iscsi(host).targets()}
        assert "Connection refused" in errors[NAME.format("gone")]
    assert sum(nowhere in record.getMessage() for record in caplog.records) == 2


def test_a_portal_that_does_not_answer_a_discovery_is_given_up() -> None:
    with rogue({}) as portal:
        error = refused(f"portal={portal}", "login_timeout=5")
    assert isinstance(error, PortalUnreachable)
    assert "no answer within 5 s" in error.what


@pytest.mark.parametrize(
    "answers",
    [
        [{}],  # as if this side had asked for no stage of security
        [{"CHAP_N": OUTGOING[0], "CHAP_R": "0x" + "0" * 32}],  # what libiscsi expects before it has asked
        [{"AuthMethod": "None"}, {}],
    ],
)
def test_a_target_that_does_not_prove_itself_is_not_used(
    directory: Path, answers: list[dict[str, str]]
) -> None:
    both = chap(directory, *INITIATOR) + chap(directory, *OUTGOING, "mutual_chap")
    with rogue(*answers) as portal:
        error = refused(f"portal={portal}", f"target={OPEN}", *both)
    assert isinstance(error, LoginRefused)
    assert "mutual CHAP" in error.what


@pytest.mark.parametrize("answer", [{"HeaderDigest": "None"}, {}])
def test_a_target_that_does_not_agree_to_what_was_insisted_on_is_not_used(answer: dict[str, str]) -> None:
    with rogue(answer) as portal:
        error = refused(f"portal={portal}", f"target={OPEN}", "header_digest=crc32c")
    assert "does not agree to header_digest=crc32c" in error.what
    assert "crc32c,none" in error.remedy


class Mallinfo2(ctypes.Structure):
    """What mallinfo2(3) tells, in bytes; ``uordblks`` are in use."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


def allocated() -> int:
    """Bytes that the C library has given out."""
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Mallinfo2
    return int(libc.mallinfo2().uordblks)


def fail_to_log_in(settings: Settings) -> None:
    """Once, with nothing of the host."""
    connection = Connection(load(), settings, settings.portals[0], settings.targets[0], (1, 2))
    with suppress(PortalUnreachable):
        connection.connect(settings.portals[0])
    while connection.error is None:
        waiting = select.poll()
        waiting.register(connection.fd, connection.events)
        [(_, ready)] = waiting.poll(30_000)
        connection.service(ready)
    connection.close()


def test_logins_that_fail_keep_no_memory(tgt: Tgt, directory: Path) -> None:
    wrong = dict(one.split("=", 1) for one in chap(directory, INITIATOR[0], "wrong-secret-7"))
    for portal in (tgt.portal, f"127.0.0.1:{free_port()}"):
        settings = Settings.read({"portal": portal, "target": GUARDED, **wrong})
        for _ in range(10):
            fail_to_log_in(settings)
        before = allocated()
        for _ in range(40):
            fail_to_log_in(settings)
        # A context of libiscsi has 10 kB and more.
        assert allocated() - before < 100_000


def test_targets_that_let_nobody_in_keep_no_other_from_being_used(
    tgt: Tgt, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), host_with(f"portal={tgt.portal}") as host:
        assert list(host.storage) == [naa(3, 1)]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all(any(name in text for text in told) for name in (GUARDED, MUTUAL))


@pytest.mark.parametrize("reason", ["Temporary", "Permanent"])
def test_a_redirected_login_goes_where_it_is_sent(directory: Path, reason: str) -> None:
    # tgt sends nobody to the address that they come from.
    backing = image(directory / "sent", MIB)
    with Tgt(Target(OPEN, {1: backing}), host="127.0.0.2") as there:
        address, port = there.portal.split(":")
        elsewhere = {"RedirectAddress": address, "RedirectPort": port, "RedirectReason": reason}
        signpost = Tgt(Target(OPEN, {}, settings=elsewhere))
        with signpost, host_with(f"portal={signpost.portal}", f"target={OPEN}") as host:
            assert disk(host).read(0, 8) == on_disk(backing, 0, 8)


def test_a_secret_is_shown_nowhere(tgt: Tgt, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = [f"portal={tgt.portal}", f"target={GUARDED}", *chap(directory, *INITIATOR)]
    wrong = [f"portal={tgt.portal}", f"target={GUARDED}", *chap(directory, INITIATOR[0], "wrong-secret-7")]
    seen: list[str] = []
    with caplog.at_level(logging.DEBUG):
        with host_with(*right) as host:
            told: list[StorageEvent] = []
            host.watch_storage(told.append)
            host.storage_adapters["vmhba0"].rescan()
            seen += map(str, told)
            adapter = host.storage_adapters["vmhba0"]
            seen += [repr(adapter), adapter.model, repr(host.module_info("vmkiscsi"))]
            seen += host.settings("vmkiscsi")
            seen += [Path(f"/proc/{os.getpid()}/{name}").read_text() for name in ("cmdline", "environ")]
        error = refused(*wrong)
        seen += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    seen += [record.getMessage() for record in caplog.records]
    settings = Settings.read(dict(text.split("=", 1) for text in right))
    seen += [repr(settings), str(settings.chap)]
    assert not [text for text in seen if INITIATOR[1] in text or "wrong-secret-7" in text]
    assert settings.chap is not None
    assert settings.chap.secret == INITIATOR[1]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"portal": ""}, "no portal is given"),
        ({"portal": "127.0.0.1:0"}, "is no portal"),
        ({"portal": "a:b:c"}, "is no portal"),
        ({"target": "disk"}, "is no iSCSI name"),
        ({"initiator": "me"}, "is no iSCSI name"),
        ({"sessions": "0"}, "sessions does not take '0'"),
        ({"header_digest": "md5"}, "header_digest does not take 'md5'"),
        ({"chap_name": "x"}, "chap needs a name and a secret"),
        ({"chap_name": "x", "chap_secret_file": "/nonexistent"}, "cannot be read"),
        ({"chap_name": "x", "chap_secret_file": "{empty}"}, "1 to 255 bytes"),
        ({"mutual_chap_name": "x", "mutual_chap_secret_file": "{one}"}, "mutual CHAP without CHAP"),
        (
            {
                "chap_name": "x",
                "chap_secret_file": "{one}",
                "mutual_chap_name": "y",
                "mutual_chap_secret_file": "{one}",
            },
            "or with its secret",
        ),
    ],
)
def test_what_cannot_be_is_told_before_anybody_is_asked(
    settings: dict[str, str], told: str, tmp_path: Path
) -> None:
    files = {"one": secret(tmp_path, "one-secret-file"), "empty": secret(tmp_path, "")}
    given = {"portal": "127.0.0.1"} | {name: text.format(**files) for name, text in settings.items()}
    with pytest.raises(UsageError, match=told):
        Settings.read(given)


def test_a_secret_that_others_may_read_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = secret(tmp_path, "one-secret-file")
    given = {"portal": "127.0.0.1", "chap_name": "x", "chap_secret_file": str(path)}
    Settings.read(given)
    assert not caplog.records
    path.chmod(0o640)
    Settings.read(given)
    assert [record.getMessage() for record in caplog.records] == [
        f"vmkiscsi: others may read {path}; run: chmod 600 {path}"
    ]


def test_defaults() -> None:
    settings = Settings.read({"portal": "192.0.2.1, [2001:db8::1]:3261,storage.example"})
    assert [str(portal) for portal in settings.portals] == [
        "192.0.2.1:3260",
        "[2001:db8::1]:3261",
        "storage.example:3260",
    ]
    assert (settings.sessions, settings.queue_depth, settings.replacement_timeout) == (1, 32, 120)
    assert settings.initiator == Settings.read({"portal": "192.0.2.1"}).initiator
