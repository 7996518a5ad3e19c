"""A TCP relay between initiator and target: it keeps what passes, and cuts connections."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading


class Relay:
    """Listens at ``portal`` and passes everything on to a port of this machine, until the end of its ``with``.

    ``heard`` has the first bytes that each side of the latest connection sent; ``connections`` counts them. While
    ``swallows`` is set, nothing that the target says arrives, ``swallowed`` bytes: the connection is of no use then.
    """

    KEEP = 8192

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.portal = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: dict[str, bytes] = {}
        self.connections = 0
        self.swallows = False
        self.swallowed = 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._end, self._ending = socket.socketpair()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end.close()
        self._thread.join(30)
        for one in itertools.chain(*self._pairs):
            one.close()
        self._listener.close()
        self._ending.close()

    def cut(self) -> None:
        """End all connections at once."""
        with self._lock:
            for one in itertools.chain(*self._pairs):
                with contextlib.suppress(OSError):  # the other end was quicker
                    one.shutdown(socket.SHUT_RDWR)

    def say(self, data: bytes) -> None:
        """Something that the target never said, to the initiator of the latest connection."""
        with self._lock:
            near, _ = self._pairs[-1]
        near.sendall(data)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ending, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._ending:
                        return
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0:
                        self._pass(selector, key.fileobj, *key.data)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        near, _ = self._listener.accept()
        far = socket.create_connection(("127.0.0.1", self._to))
        with self._lock:
            self.connections += 1
            self.heard = {"initiator": b"", "target": b""}
            self._pairs.append((near, far))
        selector.register(near, selectors.EVENT_READ, (far, "initiator"))
        selector.register(far, selectors.EVENT_READ, (near, "target"))

    def _pass(
        self, selector: selectors.BaseSelector, source: socket.socket, sink: socket.socket, who: str
    ) -> None:
        try:
            data = source.recv(1 << 18)
            if self.swallows and who == "target":
                self.swallowed += len(data)
            else:
                sink.sendall(data)
        except OSError:
            data = b""
        self.heard[who] += data[: self.KEEP - len(self.heard[who])]
        if not data:
            with self._lock:
                self._pairs = [pair for pair in self._pairs if source not in pair]
            for one in (source, sink):
                selector.unregister(one)
                one.close()
