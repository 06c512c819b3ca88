"""Waiting for what is new: of all who wait, one looks for all.

A reader notes `version`, reads, and if there was nothing waits until the version is another.
When the one who looks leaves, the next one takes over.
Between two looks it rests, which `announce` and `close` end.
"""

from abc import ABC, abstractmethod

import anyio

from trio_stream import ClosedResourceError


class Lookout(ABC):
    """See above; for the event loop's thread."""

    def __init__(self) -> None:
        self.version = 0
        """Another one when there may be more."""
        self._is_closed = False
        self._is_looking = False
        # Set, and replaced by a new one, when the version changes and when nobody looks any more.
        self._stir = anyio.Event()
        # Of the one who looks, while it rests.
        self._rest: anyio.CancelScope | None = None

    def announce(self) -> None:
        """There may be something new."""
        self.version += 1
        self._wake()

    def close(self) -> None:
        """Everybody who waits is told, and nobody looks any more."""
        self._is_closed = True
        self._wake()

    async def wait(self, seen: int) -> None:  # noqa: ASYNC910 - the reader has waited
        """Waits until the version is no longer `seen`; returns at once if it is not."""
        while self.version == seen:
            if self._is_closed:
                raise ClosedResourceError("this store is closed")
            if self._is_looking:
                await self._stir.wait()
                continue
            self._is_looking = True
            try:
                await self._look(seen)
            finally:
                self._is_looking = False
                self._wake()

    @abstractmethod
    async def _look(self, seen: int) -> None:
        """Looks, until the version is not `seen` or it is closed."""

    async def _rest_for(self, seconds: float, notice: int | None) -> None:
        """So long, or until there is something to read at this file descriptor or socket, or somebody wakes it."""
        try:
            with anyio.move_on_after(seconds) as self._rest:
                if notice is None:
                    await anyio.sleep_forever()
                else:
                    await anyio.wait_readable(notice)
        finally:
            self._rest = None

    def _wake(self) -> None:
        self._stir.set()
        self._stir = anyio.Event()
        if self._rest is not None:
            self._rest.cancel()
