"""libiscsi, the library that speaks iSCSI (LGPL-2.1 or later), loaded when it is needed: no header of it is used.

What is declared here is the part of its public interface (iscsi/iscsi.h, iscsi/scsi-lowlevel.h) that the driver calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from cffi import FFI

from native_drivers.scsi.vmkiscsi.errors import NoLibrary

if TYPE_CHECKING:
    from collections.abc import Callable

# Addresses that only pass through (iov_base, private_data) are integers here: to C it is the same.
_CDEF = """
struct iscsi_context;
typedef void (*iscsi_command_cb)(struct iscsi_context *iscsi, int status, void *command_data, uintptr_t private_data);

struct iscsi_context *iscsi_create_context(const char *initiator_name);
int iscsi_destroy_context(struct iscsi_context *iscsi);
const char *iscsi_get_error(struct iscsi_context *iscsi);
const char *iscsi_get_target_address(struct iscsi_context *iscsi);
int iscsi_set_targetname(struct iscsi_context *iscsi, const char *targetname);
int iscsi_set_session_type(struct iscsi_context *iscsi, int session_type);
int iscsi_set_header_digest(struct iscsi_context *iscsi, int header_digest);
int iscsi_set_data_digest(struct iscsi_context *iscsi, int data_digest);
int iscsi_set_initiator_username_pwd(struct iscsi_context *iscsi, const char *user, const char *passwd);
int iscsi_set_target_username_pwd(struct iscsi_context *iscsi, const char *user, const char *passwd);
int iscsi_set_isid_random(struct iscsi_context *iscsi, uint32_t rnd, uint32_t qualifier);
void iscsi_set_noautoreconnect(struct iscsi_context *iscsi, int state);
typedef void (*iscsi_log_fn)(int level, const char *mesg);
void iscsi_set_log_fn(struct iscsi_context *iscsi, iscsi_log_fn fn);
void iscsi_set_log_level(struct iscsi_context *iscsi, int level);

int iscsi_get_fd(struct iscsi_context *iscsi);
int iscsi_which_events(struct iscsi_context *iscsi);
int iscsi_service(struct iscsi_context *iscsi, int revents);
int iscsi_out_queue_length(struct iscsi_context *iscsi);

int iscsi_connect_async(struct iscsi_context *iscsi, const char *portal, iscsi_command_cb cb, uintptr_t private_data);
int iscsi_login_async(struct iscsi_context *iscsi, iscsi_command_cb cb, uintptr_t private_data);
int iscsi_logout_async(struct iscsi_context *iscsi, iscsi_command_cb cb, uintptr_t private_data);
int iscsi_nop_out_async(struct iscsi_context *iscsi, iscsi_command_cb cb, unsigned char *data, int len,
                        uintptr_t private_data);

struct iscsi_target_portal { struct iscsi_target_portal *next; const char *portal; };
struct iscsi_discovery_address {
    struct iscsi_discovery_address *next; const char *target_name; struct iscsi_target_portal *portals;
};
int iscsi_discovery_async(struct iscsi_context *iscsi, iscsi_command_cb cb, uintptr_t private_data);

int iscsi_task_mgmt_async(struct iscsi_context *iscsi, int lun, int function, uint32_t ritt, uint32_t rcmdscn,
                          iscsi_command_cb cb, uintptr_t private_data);

struct scsi_iovec { uintptr_t iov_base; size_t iov_len; };
struct scsi_data { int size; unsigned char *data; };
struct scsi_sense {
    unsigned char error_type; int key; int ascq;
    unsigned sense_specific:1, ill_param_in_cdb:1, bit_pointer_valid:1 %(flag)s;
    unsigned char bit_pointer; uint16_t field_pointer; %(information)s
};
struct scsi_task { /* it goes on */
    int status, cdb_size, xfer_dir, expxferlen;
    unsigned char cdb[16];
    int residual_status; size_t residual;
    struct scsi_sense sense;
    struct scsi_data datain;
    void *mem, *ptr;
    uint32_t itt, cmdsn, lun;
};
struct scsi_task *scsi_create_task(int cdb_size, const unsigned char *cdb, int xfer_dir, int expxferlen);
void scsi_free_scsi_task(struct scsi_task *task);
void scsi_task_set_iov_out(struct scsi_task *task, struct scsi_iovec *iov, int niov);
void scsi_task_set_iov_in(struct scsi_task *task, struct scsi_iovec *iov, int niov);
int iscsi_scsi_command_async(struct iscsi_context *iscsi, int lun, struct scsi_task *task, iscsi_command_cb cb,
                             void *data, uintptr_t private_data);
int iscsi_scsi_cancel_task(struct iscsi_context *iscsi, struct scsi_task *task);
"""
#: Struct scsi_sense grew a field in libiscsi 1.20.
_SHORT = {"flag": "", "information": ""}
_LONG = {"flag": ", info_valid:1", "information": "uint64_t information;"}
#: Names of the shared library, the best first: 1.20.1 and later, 1.20.0, 1.19, and 1.19 as Debian 12 names it.
_SONAMES = {
    "libiscsi.so.11": _LONG,
    "libiscsi.so.10": _LONG,
    "libiscsi.so.9": _SHORT,
    "libiscsi.so.7": _SHORT,
}


class Event:
    """What a socket is ready for, in numbers of poll(2) and epoll(7). No IntFlag: they are looked at for each event."""

    IN = 0x1
    OUT = 0x4
    ERROR = 0x8
    HANGUP = 0x10
    READ_HANGUP = 0x2000


class SessionType(IntEnum):
    """What a login is for."""

    DISCOVERY = 1
    NORMAL = 2


class Transfer(IntEnum):
    """Which way data goes (scsi_xfer_dir)."""

    NONE = 0
    READ = 1
    WRITE = 2


class Residual(IntEnum):
    """Whether all data was transferred (scsi_residual)."""

    NONE = 0
    UNDERFLOW = 1
    OVERFLOW = 2


class TaskStatus(IntEnum):
    """What libiscsi adds to the statuses of SCSI."""

    REDIRECT = 0x101
    CANCELLED = 0x0F00_0000
    ERROR = 0x0F00_0001
    TIMEOUT = 0x0F00_0002


class TaskFunction(IntEnum):
    """Task management functions (RFC 7143, 11.5.1)."""

    ABORT_TASK = 1
    LUN_RESET = 5


#: By the value of a parameter: which digests are offered, in the order of preference (RFC 7143, 13.1).
DIGESTS = {"none": 0, "none,crc32c": 1, "crc32c,none": 2, "crc32c": 3}


@dataclass(frozen=True)
class Library:
    """``ffi`` knows its types, ``lib`` has its functions; ``name`` is what was loaded."""

    name: str
    ffi: FFI
    lib: Any

    @property
    def data_digest(self) -> bool:
        """Whether it can put a checksum on data (1.20.1 and later)."""
        return hasattr(self.lib, "iscsi_set_data_digest")

    def callback(
        self, function: Callable[[Any, int, Any, int], None], failed: Callable[[BaseException], None]
    ) -> Any:
        """A function for the library to call, as long as this is kept; ``failed`` is told what it raises."""
        return self._callback("iscsi_command_cb", function, failed)

    def log_function(self, hear: Callable[[str], None], failed: Callable[[BaseException], None]) -> Any:
        """The same for the lines of its log."""
        return self._callback("iscsi_log_fn", lambda _level, line: hear(self.text(line)), failed)

    def _callback(
        self, kind: str, function: Callable[..., None], failed: Callable[[BaseException], None]
    ) -> Any:
        def on_error(_kind: object, error: BaseException, _trace: object) -> None:
            failed(error)

        return self.ffi.callback(kind, function, onerror=on_error)

    def text(self, pointer: Any) -> str:
        """A C string; "" for a null pointer."""
        text = self.ffi.string(pointer) if pointer else b""
        assert isinstance(text, bytes)
        return text.decode("utf-8", "replace").strip()


def load() -> Library:
    """Load it. NoLibrary when it is not there."""
    for name, sense in _SONAMES.items():
        ffi = FFI()
        try:
            lib = ffi.dlopen(name)
        except OSError:
            continue
        ffi.cdef(_CDEF % sense)
        return Library(name, ffi, lib)
    raise NoLibrary(
        "libiscsi, which vmkiscsi speaks iSCSI with, cannot be loaded",
        where=", ".join(_SONAMES),
        remedy="install it; Debian 12's package is libiscsi7",
    )
