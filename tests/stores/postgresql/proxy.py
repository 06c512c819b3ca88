"""A network between a store and its server, of which a test says when it fails."""

import selectors
import socket
import threading
from contextlib import suppress
from typing import Final, Self

_CHUNK: Final = 1 << 16
_NOTIFICATION: Final = b"A"  # "Message Formats" in PostgreSQL's documentation of its protocol
_PROCESS: Final = b"K"
_HEADER: Final = 5  # bytes of a message before its content


class Proxy:
    """Hands bytes on between its own port and that of the server, in a thread."""

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._waker, self._wake = socket.socketpair()
        # Guards the fields below.
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._left: int | None = None  # requests until the network fails
        self._loses_answer = False
        self._is_over = False
        self.requests = 0
        """That were handed on."""
        self.is_refusing = False
        """Whether new connections are closed at once."""
        self.refuses_when_failing = False
        """Whether new connections are refused from the failure on."""
        self.is_deaf = False
        """Whether notifications get lost."""
        self.is_pooler = False
        """Whether it tells of another server process than there is, as a pooler does."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def fail_after(self, requests: int, *, loses_answer: bool) -> None:
        """All connections end at the one after so many requests: before the server gets it, or with its answer."""
        with self._lock:
            self._left = requests
            self._loses_answer = loses_answer

    @property
    def has_failed(self) -> bool:
        """Whether it has, since `fail_after`."""
        with self._lock:
            return self._left is None

    def heal(self) -> None:
        """Nothing more fails."""
        with self._lock:
            self._left = None
            self.is_refusing = False

    def cut(self) -> None:
        """All connections end now."""
        with self._lock:
            for link in list(self._links):  # the thread drops those that are over
                link.cut()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._wake.send(b"x")
        self._thread.join()
        for link in self._links:
            link.close()
        for each in (self._listening, self._waker, self._wake):
            each.close()

    def _run(self) -> None:
        while not self._is_over:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listening, selectors.EVENT_READ)
                selector.register(self._waker, selectors.EVENT_READ)
                for link in self._links:
                    selector.register(link.client, selectors.EVENT_READ, (link, link.client))
                    selector.register(link.server, selectors.EVENT_READ, (link, link.server))
                for key, _ in selector.select():
                    if key.fileobj is self._listening:
                        self._accept()
                    elif key.data is not None:
                        self._hand_on(*key.data)
            for link in [each for each in self._links if each.is_over]:
                link.close()
                self._links.remove(link)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        try:
            if self.is_refusing:
                raise ConnectionRefusedError
            server = socket.create_connection(("127.0.0.1", self._server_port))
        except OSError:
            client.close()
        else:
            self._links.append(_Link(client, server))

    def _hand_on(self, link: "_Link", source: socket.socket) -> None:
        try:
            chunk = source.recv(_CHUNK)
        except OSError:
            chunk = b""
        if not chunk or link.is_over:
            link.is_over = True
            return
        try:
            if source is link.client:
                self._request(link, chunk)
            else:
                link.client.sendall(link.heard(chunk, self) if self.is_deaf or self.is_pooler else chunk)
        except OSError:
            link.is_over = True

    def _request(self, link: "_Link", chunk: bytes) -> None:
        with self._lock:
            if self._left == 0:
                self._left = None
                self.is_refusing = self.is_refusing or self.refuses_when_failing
                if self._loses_answer:
                    link.server.sendall(chunk)
                    link.server.shutdown(socket.SHUT_WR)
                    while link.server.recv(_CHUNK):  # until the server is done with it
                        pass
                for each in list(self._links):
                    each.is_over = True
                return
            if self._left is not None:
                self._left -= 1
            self.requests += 1
        link.server.sendall(chunk)


class _Link:
    """One connection."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_over = False
        self._rest = b""  # of a message that has not come whole yet

    def heard(self, chunk: bytes, proxy: Proxy) -> bytes:
        """What the client is to hear of it."""
        text = self._rest + chunk
        passed = b""
        while len(text) >= _HEADER:
            size = 1 + int.from_bytes(text[1:_HEADER], "big")
            if len(text) < size:
                break
            message, text = text[:size], text[size:]
            if proxy.is_pooler and message[:1] == _PROCESS:
                message = message[:_HEADER] + b"\0\0\0\1" + message[_HEADER + 4 :]
            if not (proxy.is_deaf and message[:1] == _NOTIFICATION):
                passed += message
        self._rest = text
        return passed

    def cut(self) -> None:
        """Ends it, from another thread."""
        self.is_over = True
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.client.close()
        self.server.close()
