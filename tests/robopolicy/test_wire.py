"""What comes through the wire is what was sent, or is refused; whatever the bytes."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading

import hypothesis.strategies as st
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from robopolicy.errors import BadInput
from robopolicy.wire import (
    MAX_FRAME,
    Array,
    Client,
    Handler,
    PeerGone,
    PeerSilent,
    Server,
    WireError,
    check,
    decode,
    encode,
    receive,
)

arrays = st.sampled_from(["f4", "f8", "i8", "u1", "?"]).flatmap(
    lambda t: hnp.arrays(t, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
tree = st.recursive(
    plain | arrays,
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(), x, max_size=4),
    max_leaves=8,
)


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and (a.tobytes() == b.tobytes())
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


@settings(deadline=None, derandomize=True)
@given(st.dictionaries(st.text(), tree, max_size=4))
def test_message_any_round_trips_exactly(fields):
    message = {**fields, "kind": "x"}
    frame = encode(message)
    assert struct.unpack(">I", frame[:4]) == (len(frame) - 4,)
    assert _same(decode(frame[4:]), message)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_decode_random_bytes_refused_or_a_message(data):
    with contextlib.suppress(WireError):
        assert isinstance(decode(data)["kind"], str)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_decode_mutated_frame_refused_or_a_message(data):
    body = bytearray(encode({"kind": "act", "obs": np.zeros((2, 3), np.float32), "step": 7})[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        assert isinstance(decode(bytes(body))["kind"], str)


def _array(**changes: object) -> bytes:
    whole = {"dtype": "<f4", "shape": [2, 2], "bytes": bytes(16)}
    return msgpack.packb({"kind": "x", "a": {**whole, **changes}})


@pytest.mark.parametrize(
    "body",
    [
        _array(dtype="|O"),
        _array(dtype="<c8"),
        _array(dtype="<f2"),
        _array(dtype=["<f4"]),
        _array(shape=[2, 3]),
        _array(shape=[-2, -2]),
        _array(shape=[1] * 5),
        _array(shape=[True, 4]),
        _array(shape="22"),
        _array(bytes="text"),
        _array(dtype="|b1", shape=[1], bytes=b"\x02"),
        msgpack.packb({"kind": "x", "e": msgpack.ExtType(42, b"code")}),
        msgpack.packb({"kind": 5}),
        msgpack.packb({"kind": "x", b"k": 1}),
        msgpack.packb({"no": "kind"}),
        msgpack.packb([1, 2]),
        msgpack.packb({"kind": "x"}) + b"\x00",
        msgpack.packb({"kind": "x"})[:-1],
        b"\x91" * 100_000,
        b"",
    ],
)
def test_decode_malformed_refused(body):
    with pytest.raises(WireError):
        decode(body)


@pytest.mark.parametrize("value", [object(), np.zeros(2, "c8"), np.array([None]), np.float64(1), {1, 2}])
def test_encode_anything_but_plain_data_refused(value):
    with pytest.raises(BadInput):
        encode({"kind": "x", "a": value})


def test_encode_too_large_refused():
    with pytest.raises(BadInput, match="bytes"):
        encode({"kind": "x", "a": np.zeros(MAX_FRAME, np.uint8)})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 1, "a": np.zeros((2, 5), "f4"), "more": 1},
        {"n": True, "a": np.zeros((2, 5), "f4")},
        {"n": 1.0, "a": np.zeros((2, 5), "f4")},
        {"n": 1, "a": np.zeros((2, 5), "f8")},
        {"n": 1, "a": np.zeros((3, 5), "f4")},
        {"n": 1, "a": np.zeros((2, 5, 1), "f4")},
        {"n": 1, "a": [1.0]},
    ],
)
def test_check_other_fields_refused(fields):
    schema = {"n": int, "a": Array("float32", (2, None))}
    check({"kind": "x", "n": 1, "a": np.zeros((2, 5), "f4")}, schema)
    with pytest.raises(BadInput):
        check({"kind": "x", **fields}, schema)


def _refuse():
    raise BadInput("field", "wanted", "got")


@pytest.fixture
def echo(tmp_path):
    """A server that echoes an integer and counts per connection."""

    def connect():
        count = iter(range(1000))
        return {
            "echo": Handler({"n": int}, lambda n: {"n": n, "count": next(count)}),
            "refuse": Handler({}, _refuse),
        }

    address = str(tmp_path / "s")
    with Server(address, connect, connections=2):
        yield address


def test_server_two_clients_have_sessions_of_their_own(echo):
    with Client(echo) as a, Client(echo) as b:
        assert [a.request("echo", n=n)["count"] for n in range(3)] == [0, 1, 2]
        assert b.request("echo", n=7) == {"kind": "echo", "n": 7, "count": 0}


def test_server_bad_requests_are_answered_and_the_connection_lives(echo):
    with Client(echo) as client:
        for kind, fields in (("nonsense", {}), ("echo", {}), ("echo", {"n": "1"}), ("refuse", {})):
            with pytest.raises(BadInput):
                client.request(kind, **fields)
        assert client.request("echo", n=1)["n"] == 1


@pytest.mark.parametrize(
    "frame", [b"\xff\xff\xff\xff", struct.pack(">I", MAX_FRAME + 1), struct.pack(">I", 3) + b"abc"]
)
def test_server_bad_frame_ends_that_connection_only(echo, frame):
    with Client(echo) as good, socket.socket(socket.AF_UNIX) as bad:
        bad.connect(echo)
        bad.sendall(frame)
        assert receive(bad, 2.0)["kind"] == "error"
        assert bad.recv(1) == b""
        assert good.request("echo", n=1)["n"] == 1


def test_server_too_many_connections_are_closed(echo):
    with Client(echo) as a, Client(echo) as b, Client(echo) as c:
        a.request("echo", n=1)
        b.request("echo", n=1)
        with pytest.raises(PeerGone):
            c.request("echo", n=1)


def test_client_server_gone_says_so(tmp_path):
    address = str(tmp_path / "s")
    with Server(address, lambda: {"ok": Handler({}, lambda: {})}):
        client = Client(address)
        client.request("ok")
    with pytest.raises(PeerGone):
        client.request("ok")
    with pytest.raises(PeerGone):
        Client(address)


def test_client_late_answer_is_never_taken_for_the_next(tmp_path):
    release = threading.Event()
    slow = {"slow": Handler({}, lambda: {"done": release.wait(5.0)})}
    with Server(str(tmp_path / "s"), lambda: slow):
        client = Client(str(tmp_path / "s"), timeout_s=0.05)
        with pytest.raises(PeerSilent):
            client.request("slow")
        release.set()
        with pytest.raises(PeerGone):
            client.request("slow")


def test_server_socket_is_private_and_a_dead_one_is_taken_over(tmp_path):
    address = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(address)
    with Server(address, dict):
        assert os.stat(address).st_mode & 0o077 == 0
        with pytest.raises(BadInput, match="no server uses"):
            Server(address, dict)
    assert not os.path.exists(address)


@pytest.mark.parametrize("address", ["0.0.0.0:5000", "example.org:80", "127.0.0.1:99999", "", "x" * 200])
def test_address_not_local_refused(address):
    with pytest.raises(BadInput, match="address"):
        Client(address)


def test_loopback_port_works():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with Server(address, lambda: {"ok": Handler({}, lambda: {})}), Client(address) as client:
        assert client.request("ok") == {"kind": "ok"}
