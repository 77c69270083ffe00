"""A TCP proxy that can cut connections in the middle of a C-STORE."""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress

RESET = struct.pack("ii", 1, 0)  # linger 0: the peer sees a reset, not an orderly end


class Proxy:
    """Forwards connections to `port` on loopback; :meth:`cut` resets those that carry something."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._cut_after: int | None = None
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, generator: random.Random) -> None:
        """Reset the next connection after a random number of bytes, most of them inside a data set."""
        with self._lock:
            self._cut_after = generator.randrange(2_000, 400_000)

    def close(self) -> None:
        self._listener.close()
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(("127.0.0.1", self._target), timeout=10)
        except OSError:
            near.close()
            return
        far.settimeout(None)
        with self._lock:
            self._open |= {near, far}
        back = threading.Thread(target=self._pump, args=(far, near, False), daemon=True)
        back.start()
        self._pump(near, far, True)
        back.join()
        with self._lock:
            self._open -= {near, far}
        for one in (near, far):
            one.close()

    def _pump(self, source: socket.socket, sink: socket.socket, outward: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65_536):
                sink.sendall(data)
                passed += len(data)
                if outward and self._due(passed):
                    for one in (source, sink):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                        one.shutdown(socket.SHUT_RD)
                        one.close()
                    return
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _due(self, passed: int) -> bool:
        with self._lock:
            if self._cut_after is None or passed < self._cut_after:
                return False
            self._cut_after = None
            return True
