"""Messages between processes: length-prefixed msgpack frames over a local socket.

A frame is four bytes of length (big endian) and one msgpack map with a text "kind". Arrays travel as
{dtype, shape, bytes}; nothing else that is not plain data is accepted, in either direction, so a peer can
send wrong numbers but never code. Addresses are a path (unix socket) or "127.0.0.1:PORT". Torch-free.

Not encrypted and not authenticated: whoever may open the socket may speak. It is created for its owner only.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgpack
import numpy as np

from robopolicy.errors import BadInput, RoboPolicyError

MAX_FRAME = 1 << 20
"""Largest frame in bytes: a chunk of 64 actions of 500 joints in float64 fits four times."""
_DTYPES = {np.dtype(t).str: np.dtype(t) for t in ("f4", "f8", "i8", "u1", "?")}
_ARRAY_KEYS = {"dtype", "shape", "bytes"}
_MAX_DIMS = 4
_MAX_ITEMS = 4096
_LOOPBACK = ("127.0.0.1", "localhost")
_FRAME_TIMEOUT_S = 2.0  # a peer that starts a frame must finish it within this time
_UNIX_PATH_MAX = 100
_DIAL_AGAIN_S = 0.1

Message = dict[str, Any]


class WireError(RoboPolicyError):
    """The peer sent something that is not a frame of this protocol; the connection is of no more use."""


class PeerGone(WireError):
    """The peer closed the connection, died or was never there."""


class PeerSilent(WireError):
    """The peer did not answer in time."""


@dataclass(frozen=True)
class Array:
    """What an array field of a message must be; None in `shape` stands for any length."""

    dtype: str
    shape: tuple[int | None, ...]

    def fits(self, value: object) -> bool:
        return (
            isinstance(value, np.ndarray)
            and value.dtype == np.dtype(self.dtype)
            and value.ndim == len(self.shape)
            and all(w is None or w == n for w, n in zip(self.shape, value.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{self.dtype} array of shape {tuple('any' if n is None else n for n in self.shape)}"


Schema = Mapping[str, "type | Array"]


def encode(message: Message) -> bytes:
    """One frame, header included.

    Raises:
        BadInput: if the message holds anything but plain data and allowed arrays, or is too large.
    """
    try:
        body = msgpack.packb(message, default=_pack_array, strict_types=True)
    except (TypeError, ValueError, OverflowError) as e:
        raise BadInput("message", "plain data and arrays", e) from e
    if body is None or len(body) > MAX_FRAME:
        raise BadInput("message", f"at most {MAX_FRAME} bytes", len(body or b""))
    return struct.pack(">I", len(body)) + body


def decode(body: bytes) -> Message:
    """The message in the body of a frame.

    Raises:
        WireError: for anything that `encode` could not have made.
    """
    try:
        message = msgpack.unpackb(
            body,
            object_hook=_unpack_map,
            ext_hook=_refuse_extension,
            max_str_len=MAX_FRAME,
            max_bin_len=MAX_FRAME,
            max_array_len=_MAX_ITEMS,
            max_map_len=_MAX_ITEMS,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as e:
        raise WireError(f"not a message: {e}") from e
    if not isinstance(message, dict) or not isinstance(message.get("kind"), str):
        raise WireError("not a message: no kind")
    if not all(isinstance(name, str) for name in message):
        raise WireError("not a message: a field name is not text")
    return message


def check(message: Message, schema: Schema) -> None:
    """Refuses a message whose fields (besides "kind") are not exactly those of `schema`."""
    if set(message) - {"kind"} != set(schema):
        raise BadInput(message["kind"], f"the fields {sorted(schema)}", sorted(set(message) - {"kind"}))
    for name, wanted in schema.items():
        value = message[name]
        # bool is an int in Python; a flag where a number belongs is a mistake.
        fits = wanted.fits(value) if isinstance(wanted, Array) else type(value) is wanted
        if not fits:
            text = str(wanted) if isinstance(wanted, Array) else wanted.__name__
            raise BadInput(f"{message['kind']}.{name}", text, _describe(value))


def _describe(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    return repr(value)[:80]


def _pack_array(value: object) -> object:
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, np.ndarray) or value.dtype.str not in _DTYPES:
        raise TypeError(f"{type(value).__name__} {getattr(value, 'dtype', '')}")
    return {"dtype": value.dtype.str, "shape": list(value.shape), "bytes": value.tobytes()}


def _unpack_map(data: dict[Any, Any]) -> object:
    if set(data) != _ARRAY_KEYS:
        return data
    dtype, shape, raw = _DTYPES.get(data["dtype"]), data["shape"], data["bytes"]
    if dtype is None or not isinstance(raw, bytes) or not isinstance(shape, list) or len(shape) > _MAX_DIMS:
        raise ValueError("array of a type that is not allowed")
    if not all(type(n) is int and 0 <= n <= MAX_FRAME for n in shape):
        raise ValueError("array of a shape that is not allowed")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"array of shape {shape} in {len(raw)} bytes")
    if dtype.kind == "b" and raw.strip(b"\x00\x01"):
        raise ValueError("array of booleans that are neither")
    return np.frombuffer(raw, dtype).reshape(shape)


def _refuse_extension(code: int, data: bytes) -> object:
    raise ValueError(f"extension type {code}")


def _open(address: str) -> tuple[socket.socket, Any]:
    """A socket of the right family and the address to bind or connect it to."""
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        if host not in _LOOPBACK or not 0 < int(port) < 65536:
            raise BadInput("address", f"a port on one of {_LOOPBACK}", address)
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM), (host, int(port))
    if not address or len(os.fsencode(address)) > _UNIX_PATH_MAX:
        raise BadInput("address", f"a path of 1 to {_UNIX_PATH_MAX} bytes or 127.0.0.1:PORT", address)
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), address


def _read(sock: socket.socket, count: int, timeout_s: float | None) -> bytes:
    data = bytearray()
    while len(data) < count:
        try:
            sock.settimeout(timeout_s)
            part = sock.recv(count - len(data))
        except TimeoutError as e:
            raise PeerSilent("no answer in time") from e
        except OSError as e:
            raise PeerGone(f"connection lost: {e}") from e
        if not part:
            raise PeerGone("connection closed")
        data += part
    return bytes(data)


def receive(sock: socket.socket, first_timeout_s: float | None) -> Message:
    """Reads one frame; waits `first_timeout_s` for it to begin and a short while for its end."""
    first = _read(sock, 1, first_timeout_s)
    (length,) = struct.unpack(">I", first + _read(sock, 3, _FRAME_TIMEOUT_S))
    if length > MAX_FRAME:
        raise WireError(f"frame of {length} bytes, at most {MAX_FRAME} are allowed")
    return decode(_read(sock, length, _FRAME_TIMEOUT_S))


def send(sock: socket.socket, message: Message) -> None:
    """Writes one frame."""
    frame = encode(message)
    try:
        sock.settimeout(_FRAME_TIMEOUT_S)
        sock.sendall(frame)
    except TimeoutError as e:
        raise PeerSilent("peer does not read") from e
    except OSError as e:
        raise PeerGone(f"connection lost: {e}") from e


class Client:
    """Asks one server; one request at a time, from any thread.

    Args:
        address: where the server listens.
        timeout_s: longest wait for an answer.
    """

    def __init__(self, address: str, timeout_s: float = 1.0):
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._sock, target = _open(address)
        self._sock.settimeout(timeout_s)
        try:
            self._sock.connect(target)
        except OSError as e:
            self._sock.close()
            raise PeerGone(f"{address}: {e}") from e

    def request(self, kind: str, timeout_s: float | None = None, **fields: Any) -> Message:
        """The answer to one request.

        Raises:
            BadInput: if the server refused the request.
            WireError: if the connection is lost or answers are late; open a new client.
        """
        with self._lock:
            try:
                send(self._sock, {"kind": kind, **fields})
                answer = receive(self._sock, timeout_s or self._timeout_s)
            except WireError:
                # A late answer would be taken for the next one: this connection is spent.
                self._sock.close()
                raise
        if answer["kind"] == "error":
            check(answer, {"field": str, "wanted": str, "got": str})
            raise BadInput(answer["field"], answer["wanted"], answer["got"])
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for an answer
        self._sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def dial(
    address: str,
    stop: threading.Event,
    within_s: float = 60.0,
    timeout_s: float = 1.0,
    watch: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Client:
    """A client as soon as its server listens, which may still be starting.

    Args:
        address: where it will listen.
        stop: gives up when set.
        within_s: gives up after this time.
        timeout_s: of the client.
        watch: called between attempts; may raise.
        clock: monotonic seconds.

    Raises:
        PeerGone: if there is no server when giving up.
    """
    deadline = clock() + within_s
    while True:
        watch()
        try:
            return Client(address, timeout_s)
        except PeerGone:
            if clock() > deadline or stop.wait(_DIAL_AGAIN_S):
                raise


@dataclass(frozen=True)
class Handler:
    """Answers one kind of request: the fields it must have and what to do with them."""

    schema: Schema
    answer: Callable[..., Message]


class Server:
    """Answers requests, one thread per connection; a bad frame ends its connection and no other.

    Args:
        address: where to listen; a dead server's socket file is taken over, a live one's is not.
        connect: called for each connection; returns its handlers by kind (so each has its own session).
        connections: most that are open at once; further ones are closed at once.
    """

    def __init__(self, address: str, connect: Callable[[], Mapping[str, Handler]], connections: int = 8):
        self._address, self._connect, self._most = address, connect, connections
        self._open: set[socket.socket] = set()
        self._listener, target = _open(address)
        if self._listener.family == socket.AF_UNIX:
            _remove_dead(address)
        else:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._listener.bind(target)
        except OSError as e:
            raise BadInput("address", "one that is free and can be written", f"{address} ({e})") from e
        if self._listener.family == socket.AF_UNIX:
            os.chmod(address, 0o600)
        self._listener.listen(connections)
        self._thread = threading.Thread(target=self._accept, name="wire-accept", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # closed
                return
            if len(self._open) >= self._most:
                sock.close()
                continue
            self._open.add(sock)
            threading.Thread(target=self._talk, args=(sock,), name="wire", daemon=True).start()

    def _talk(self, sock: socket.socket) -> None:
        handlers = self._connect()
        try:
            while True:
                try:
                    message = receive(sock, None)
                except (PeerGone, PeerSilent):
                    return
                except WireError as e:
                    send(sock, _error(BadInput("frame", "a message of this protocol", e)))
                    return
                send(sock, _answer(handlers, message))
        except WireError:
            return  # the peer left while it was being answered
        finally:
            self._open.discard(sock)
            sock.close()

    def close(self) -> None:
        """Stops listening and drops every connection."""
        if self._listener.family == socket.AF_UNIX and os.path.exists(self._address):
            os.unlink(self._address)
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept or recv
            sock.close()
        self._thread.join(timeout=1.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _answer(handlers: Mapping[str, Handler], message: Message) -> Message:
    kind = message["kind"]
    try:
        if kind not in handlers:
            raise BadInput("kind", f"one of {sorted(handlers)}", kind[:40])
        check(message, handlers[kind].schema)
        fields = {k: v for k, v in message.items() if k != "kind"}
        return {"kind": kind, **handlers[kind].answer(**fields)}
    except BadInput as e:
        return _error(e)


def _error(e: BadInput) -> Message:
    return {"kind": "error", "field": e.field, "wanted": e.wanted, "got": str(e.got)[:200]}


def _remove_dead(path: str) -> None:
    """Deletes the socket file of a server that no longer listens."""
    if not os.path.exists(path):
        return
    try:
        Client(path, 0.5).close()
    except PeerGone:
        os.unlink(path)
    else:
        raise BadInput("address", "one that no server uses", path)
