"""The protocol's decoder: whatever comes, it is a request or a BadRequest.

Independent side: hypothesis, which makes up the lines, and Python's json.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmkernel_core.console.operations import OPERATIONS
from vmkernel_core.console.protocol import (
    LONGEST_REQUEST,
    VERSION,
    BadRequest,
    Operation,
    Reply,
    Request,
    decode_request,
    encode_line,
    failure,
)
from vmkernel_core.errors import DeviceGone

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
#: Objects that are nearly requests.
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "version": st.just(VERSION) | JSON,
        "operation": st.sampled_from(list(OPERATIONS)) | JSON,
        "arguments": JSON,
        "id": st.integers() | JSON,
        "more": JSON,
    },
)


@given(st.binary())
@example(b"")
@example(b"\n")
@example(b'{"version":1,"operation":"\xff"}')
@example(b"[" * (LONGEST_REQUEST - 1))
@example(b'{"version":1,"operation":"x","arguments":' + b"[" * 50000)
@example(b'{"a":' * 10000)
def test_bytes_are_a_request_or_refused(line: bytes) -> None:
    try:
        request = decode_request(line)
    except BadRequest:
        return
    assert request.version == VERSION


@given(JSON | NEARLY)
def test_json_is_a_request_or_refused(value: Any) -> None:
    line = json.dumps(value).encode()
    try:
        request = decode_request(line)
    except BadRequest:
        return
    assert request.operation == value["operation"]
    assert json.loads(bytes(request.arguments)) == value.get("arguments", {})


@given(st.sampled_from(list(OPERATIONS.values())), JSON | NEARLY)
def test_arguments_are_right_or_refused(operation: Operation[Any, Any], value: Any) -> None:
    class Reached(Exception):
        """The function would have run."""

    def function(host: object, arguments: object) -> None:
        assert isinstance(arguments, operation.arguments)
        raise Reached

    stub = msgspec.Raw(json.dumps(value).encode())
    reaching = Operation(operation.name, operation.arguments, operation.result, function)
    with pytest.raises((Reached, BadRequest)):
        reaching.perform(None, stub)  # type: ignore[arg-type]  # it is not reached with a vmkernel


@given(st.text(), st.integers(min_value=-(2**63), max_value=2**64 - 1))
def test_requests_and_replies_survive_their_lines(text: str, number: int) -> None:
    request = Request(VERSION, text, id=number)
    line = encode_line(request)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_request(line) == request
    reply = Reply(VERSION, number, error=failure(DeviceGone(text, remedy=text)))
    assert msgspec.json.decode(encode_line(reply), type=Reply) == reply


def test_another_version_is_refused() -> None:
    with pytest.raises(BadRequest, match="version 1 of the protocol, not 2"):
        decode_request(b'{"version":2,"operation":"network.nic.list"}')


def test_a_fault_of_ours_is_told_as_one() -> None:
    told = failure(ZeroDivisionError("division by zero"))
    assert (told.kind, told.exit_code) == ("ZeroDivisionError", 70)
    assert told.what == "a fault of vmk itself: ZeroDivisionError: division by zero"
