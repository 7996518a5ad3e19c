"""What is said over a running vmkernel's socket: JSON, one request or reply a line.

A request names an operation and has its arguments; the reply has the result, or the error. Replies come in the order
of the requests. docs/console.md is the description for those who write a client of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from vmkernel_core.errors import UsageError, VmkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from vmkernel_core.boot import VMkernel

#: Goes up when a client of before would misunderstand.
VERSION: Final = 1
#: Bytes of a line, with its newline.
LONGEST_REQUEST: Final = 1 << 16
LONGEST_REPLY: Final = 1 << 24
#: Seconds that a request may take.
REQUEST_LIMIT: Final = 60.0

Arguments = TypeVar("Arguments", bound=msgspec.Struct)
Result = TypeVar("Result")


class BadRequest(UsageError):
    """A line that is no request, or a request for what there is not."""


class RemoteError(VmkError):
    """What was asked for failed in the vmkernel; ``kind`` is the error's class there."""

    def __init__(self, failure: Failure) -> None:
        """The same text and exit code as the error there."""
        super().__init__(failure.what, where=failure.where, remedy=failure.remedy)
        self.kind = failure.kind
        self.exit_code = failure.exit_code


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request; ``id`` comes back in the reply."""

    version: int
    operation: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    id: int = 0


class Failure(msgspec.Struct, frozen=True):
    """An error: its class, the parts of its text, and the exit code of a command that ends with it."""

    kind: str
    what: str
    where: str = ""
    remedy: str = ""
    exit_code: int = 1


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A reply: ``error``, or else the ``result`` of the operation."""

    version: int
    id: int
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: Failure | None = None


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The arguments of an operation that has none."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[Arguments, Result]):
    """Something that can be asked of a vmkernel: a function, and the types of what it takes and returns."""

    name: str
    arguments: type[Arguments]
    result: type[Result]
    function: Callable[[VMkernel, Arguments], Result]

    def __call__(self, host: VMkernel, arguments: Arguments) -> Result:
        """Run the function."""
        return self.function(host, arguments)

    def perform(self, host: VMkernel, arguments: msgspec.Raw) -> msgspec.Raw:
        """Decode the arguments, run the function, encode its result; BadRequest, and what the function raises."""
        taken = _decode(arguments, self.arguments, f"arguments of {self.name}")
        return msgspec.Raw(msgspec.json.encode(self.function(host, taken)))


def operation(
    name: str, arguments: type[Arguments], result: type[Result]
) -> Callable[[Callable[[VMkernel, Arguments], Result]], Operation[Arguments, Result]]:
    """Make an operation of the function below."""

    def make(function: Callable[[VMkernel, Arguments], Result]) -> Operation[Arguments, Result]:
        return Operation(name, arguments, result, function)

    return make


def one_of(names: Iterable[str]) -> str:
    """The remedy for a name of what devices make, such as an uplink, that there is not."""
    if known := ", ".join(dict.fromkeys(names)):
        return f"use one of {known}"
    return "no device has made one; `vmk hardware pci list` tells why"


def decode_request(line: bytes) -> Request:
    """Read a line, with or without its newline; BadRequest for what is no request of this version."""
    request = _decode(line, Request, "a request")
    if request.version != VERSION:
        raise BadRequest(
            f"this vmkernel speaks version {VERSION} of the protocol, not {request.version}",
            remedy="use the vmk that started it",
        )
    return request


def encode_line(message: Request | Reply) -> bytes:
    """The line that says it."""
    return msgspec.json.encode(message) + b"\n"


def failure(error: Exception) -> Failure:
    """What a reply says of an error; one that nobody raised on purpose is a fault of vmk itself."""
    kind = type(error).__name__
    exit_code = getattr(error, "exit_code", None)
    if exit_code is None:
        return Failure(
            kind,
            f"a fault of vmk itself: {kind}: {error}",
            remedy="the vmkernel's log has more",
            exit_code=70,
        )
    what, where, remedy = (getattr(error, part, "") for part in ("what", "where", "remedy"))
    return Failure(kind, what, where, remedy, exit_code)


Decoded = TypeVar("Decoded")


def _decode(text: bytes | msgspec.Raw, kind: type[Decoded], what: str) -> Decoded:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"this is not {what}: {error}", remedy="docs/console.md has the protocol") from error
