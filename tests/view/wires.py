"""What tests of a view share: how it is read, and a connection whose other end is the test."""

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Any, Self, TypeVar

import anyio
import anyio.lowlevel
from catalogue import HEALTH, Catalogue, Health
from scenes import ALL, opened

from trio_stream import Event, EventPublisher, Framing, SubscribeRequest
from trio_stream.view import Connect, Frozen, View, open_view

HealthView = View[str, Health]
K = TypeVar("K")


def is_gone(payload: Health) -> bool:
    return payload.value is None


def values(state: Mapping[K, Health]) -> dict[K, str | None]:
    return {key: payload.value for key, payload in state.items()}


def truth(store: Catalogue, index: int, request: SubscribeRequest[Health]) -> dict[str, str | None]:
    """What a view of the request must show at an index."""
    return {subject.key: value for subject, value in store.state_at(index, request).items()}


def viewing(
    connect: Connect, request: SubscribeRequest[Health] = ALL, *, raise_on_end: bool = True
) -> AbstractAsyncContextManager[HealthView]:
    return open_view(connect, request, is_delete=is_gone, raise_on_end=raise_on_end)


@asynccontextmanager
async def viewed(
    request: SubscribeRequest[Health] = ALL, **options: Any
) -> AsyncIterator[tuple[Catalogue, EventPublisher, HealthView]]:
    """A catalogue, its publisher, and a view that is current."""
    async with opened(**options) as (store, publisher), viewing(publisher.subscribe, request) as view:
        await view.wait_current()
        yield store, publisher, view


def put(index: int, key: str, value: str | None = "ok") -> Event[Health]:
    return Event(HEALTH, index, Health(key, value))


def whole(index: int) -> Event[Any]:
    return Event(HEALTH, index, Framing.END_OF_SNAPSHOT)


MARKER: Event[Any] = Event(HEALTH, 0, Framing.NEW_SNAPSHOT_TO_FOLLOW)


class Wire:
    """A connection whose other end is the test."""

    def __init__(self, request: SubscribeRequest[Any], epoch: str, horizon: int = 0) -> None:
        self.request = request
        self.epoch = epoch
        self.horizon = horizon
        self.is_open = False
        self.leaving: Exception | None = None  # what leaving it raises
        self.awaited: list[int] = []  # of wait_published
        self._events: list[Event[Any]] = []
        self._published = horizon
        self._error: Exception | None = None
        self._resume = 0
        self._stirred = anyio.Event()

    def give(self, *events: Event[Any], horizon: int = 0) -> None:
        """Delivers these; then everything up to `horizon`, if that is more than their last index, is received."""
        self._events += events
        self._published = max(horizon, *(event.index for event in events), self._published)
        self._stir()

    def publish(self, index: int) -> None:
        """There is a commit with this index, which touches something else."""
        self._published = self.horizon = index
        self._stir()

    def end(self, error: Exception, *, resume: int = 0) -> None:
        self._error = error
        self._resume = resume
        self._stir()

    def _stir(self) -> None:
        self._stirred.set()
        self._stirred = anyio.Event()

    async def receive_batch(self, max_events: int | None = None) -> Sequence[Event[Any]]:
        await anyio.lowlevel.checkpoint()
        while not self._events:
            if self._error is not None:
                raise self._error
            await self._stirred.wait()
        events, self._events = self._events[:max_events], self._events[len(self._events[:max_events]) :]
        if any(event.is_end_of_snapshot for event in events) or (self.horizon and MARKER not in events):
            self.horizon = events[-1].index if self._events else self._published
        return events

    async def wait_published(self, index: int) -> None:
        self.awaited.append(index)
        await anyio.lowlevel.checkpoint()
        while self._published < index:
            if self._error is not None:
                raise self._error
            await self._stirred.wait()

    def resume_request(self) -> SubscribeRequest[Any]:
        return replace(self.request, index=self._resume, epoch=self.epoch if self._resume else None)

    async def __aenter__(self) -> Self:
        self.is_open = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_open = False
        if self.leaving is not None:
            raise self.leaving


class Exchange:
    """Connects by wires, the newest last; each connect takes the next of `errors`, if there is one, and raises it."""

    def __init__(self, *errors: Exception, epoch: str = "one") -> None:
        self.errors = deque(errors)
        self.epoch = epoch
        self.horizon = 0  # of a new wire
        self.wires: list[Wire] = []
        self.requests: list[SubscribeRequest[Any]] = []
        self.at: list[float] = []  # when they came
        self.connected = anyio.Event()  # there is a first wire

    def __call__(self, request: SubscribeRequest[Any]) -> Wire:
        self.requests.append(request)
        self.at.append(anyio.current_time())
        if self.errors:
            raise self.errors.popleft()
        self.connected.set()
        self.wires.append(Wire(request, self.epoch, self.horizon))
        return self.wires[-1]

    @property
    def wire(self) -> Wire:
        return self.wires[-1]


async def indexes(view: View[Any, Any], seen: list[Frozen[Any, Any]]) -> None:
    """Notes every state that this task could see, until it is cancelled."""

    def note(state: Frozen[Any, Any]) -> bool:
        if not seen or seen[-1] is not state:
            seen.append(state)
        return False

    await view.wait_for(note)
