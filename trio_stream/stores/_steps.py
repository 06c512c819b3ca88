"""Iteration over what an engine fetches page by page."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, Self, TypeVar

import anyio.lowlevel

from trio_stream import BusyResourceError, ClosedResourceError

T = TypeVar("T")

_BURST: Final = 64  # items between two checkpoints


class Steps(Generic[T]):
    """Gives one at a time what is fetched some at a time, until nothing is."""

    def __init__(self, fetch: Callable[[], Awaitable[Sequence[T]]]) -> None:
        self._fetch = fetch
        self._is_busy = False  # a task is in __anext__
        self._fetched: deque[T] = deque()
        self._burst = 0  # given since the last checkpoint
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_closed = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._is_busy:
            raise BusyResourceError("iterating over")
        if self._is_closed:
            raise ClosedResourceError("this iteration has ended: its context was left")
        self._is_busy = True
        try:
            if not self._fetched:
                self._fetched.extend(await self._fetch())
                self._burst = 0
            elif self._burst == _BURST:
                await anyio.lowlevel.checkpoint()
                self._burst = 0
        finally:
            self._is_busy = False
        if not self._fetched:
            raise StopAsyncIteration
        self._burst += 1
        return self._fetched.popleft()  # noqa: ASYNC910 - every _BURST items it does
