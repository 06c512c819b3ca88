"""The subscribers of the demonstration: each has its own way to follow the catalogue, and remembers what it had."""

import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, assert_never

import anyio
from typing_extensions import override

from trio_stream import CloseReason, Event, EventPublisher, Framing, SubscribeRequest, SubscriptionForceClosed
from trio_stream.stores import Record

from ._audit import Point, Segment, State, View
from ._lines import key_text

CLOSED: Final = "closed"  # the status of the followed service after the last commit


class Follower:
    """Follows until the service `last` is closed."""

    def __init__(
        self,
        name: str,
        publisher: EventPublisher,
        request: SubscribeRequest[Record],
        *,
        last: str,
        note: Callable[[str], None],
    ) -> None:
        self.name = name
        self.view = View(request.key)
        self.state = State()
        self.segments: list[Segment] = []
        self.problems: list[str] = []
        self.delays: list[float] = []  # seconds from the making of a change to its arrival here
        self.changes = 0
        self.snapshots = 0
        self.resumes = 0
        self.doing = "starts"
        self.latest = ""
        self.done = anyio.Event()
        self._publisher = publisher
        self._request = request
        self._last = last
        self._note = note
        self._is_live = False

    @property
    def index(self) -> int:
        """The index that it has reached."""
        return self.segments[-1].points[-1].index if self.segments else 0

    @property
    def views(self) -> set[View]:
        """Through which it has looked."""
        return {self.view, *(segment.view for segment in self.segments)}

    async def follow(self) -> None:
        """Returns when it has seen the last commit."""
        while True:
            await self._stay()
            if self.done.is_set():
                return

    async def _stay(self) -> None:
        """One subscription, until it was cancelled or force-closed, or has brought the last commit."""
        async with self._publisher.subscribe(
            self._request, authorizer=self._may_read, on_lag="reset"
        ) as subscription:
            self._enter()
            try:
                while not self.done.is_set():
                    for event in await subscription.receive_batch():
                        self._take(event)
            except SubscriptionForceClosed as closed:
                if closed.reason is CloseReason.STOPPED:
                    raise
                self._note(f"{self.name}: closed by the publisher ({closed.reason.value}) at {closed.index}")
            finally:
                self._request = subscription.resume_request()

    def _may_read(self, record: Record) -> bool:
        return self.view.shows(record.key)

    def _enter(self) -> None:
        self.doing = "follows"
        self._is_live = self._request.index > 0
        if self._is_live:
            self.resumes += 1
            self.segments.append(Segment(self.view, [Point(self._request.index, self.state.digest)]))
        else:
            self.state.clear()

    def _take(self, event: Event[Record]) -> None:
        match event.framing:
            case Framing.NEW_SNAPSHOT_TO_FOLLOW:
                self.state.clear()
                self._is_live = False
            case Framing.END_OF_SNAPSHOT:
                self.snapshots += 1
                self._is_live = True
                self.segments.append(Segment(self.view, [Point(event.index, self.state.digest)]))
            case None:
                for each in event.events:
                    assert isinstance(each.payload, Record)
                    self._apply(each.payload)
                if self._is_live:
                    self.changes += 1
                    self.segments[-1].points.append(Point(event.index, self.state.digest))
            case kind:
                assert_never(kind)
        if self._is_live and self._status(self._last) == CLOSED:
            self.doing = "is done"
            self.done.set()

    def _apply(self, record: Record) -> None:
        if record.is_delete:
            self.state.delete(record.key)
            self.latest = f"{key_text(record.key)} deleted"
            return
        self.state.put(record.key, record.value)
        self.latest = f"{key_text(record.key)} {self._status(record.key)}"
        if (
            self._is_live
            and isinstance(record.value, dict)
            and isinstance(at := record.value.get("at"), float)
        ):
            self.delays.append(time.time() - at)

    def _status(self, key: str) -> object:
        value = self.state.entries.get(key)
        return value.get("status") if isinstance(value, dict) else None


class Leaver(Follower):
    """Leaves again and again, and comes back to go on where it was."""

    pace = 1.0
    """Seconds, about: how long it stays; half of that it is away."""

    @override
    async def follow(self) -> None:
        while True:
            with anyio.move_on_after(self.pace * random.uniform(0.5, 1.5)):  # noqa: S311 - no secret
                await self._stay()
            if self.done.is_set():
                return
            self.doing = "is away"
            self._note(f"{self.name}: left at {self._request.index}")
            await anyio.sleep(self.pace / 2)
            self._note(
                f"{self.name}: resumes after {self._request.index}, {self._publisher.index} is the newest"
            )


class Revoked(Follower):
    """Its token is revoked at some time; it comes back with one that may read less."""

    pause = 0.3
    """Seconds until it has another token."""
    less = View()
    """What it may read then."""
    _revoked: str | None = None

    def revoke(self) -> None:
        """Takes its token away."""
        self._revoked = self._request.token
        count = self._publisher.close_subscriptions([self._revoked])
        self._note(f"{self.name}: token {self._revoked!r} revoked, {count} subscription closed")

    @override
    async def _stay(self) -> None:
        await super()._stay()
        if self._revoked == self._request.token:
            self.state.clear()
            self.view = self.less
            self._request = replace(self._request, token="token-2")
            self.doing = "no token"
            await anyio.sleep(self.pause)
            self._note(
                f"{self.name}: comes back with {self._request.token!r}, which may read *{self.less.suffix} only"
            )

    @override
    def _take(self, event: Event[Record]) -> None:
        if self._request.token == self._revoked:
            self.problems.append(f"received index {event.index} after its token was revoked")
        super()._take(event)
