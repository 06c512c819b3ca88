"""`watch`: the state of some topics, then every change to it, for as long as anyone wants to know."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, Literal, assert_never

import anyio
import anyio.lowlevel
import click

from trio_stream import (
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    Framing,
    PayloadEvents,
    Subscription,
    SubscriptionForceClosed,
)
from trio_stream.stores import Record, Store, open_store_publisher

from ._lines import event_line, event_text
from ._output import Output, ReaderLeftError
from ._run import open_tasks
from ._watched import Watched

_BATCH: Final = 64  # events that are written in one go
_ATTEMPTS: Final = 5  # at a snapshot: one that falls into the replacing of the store's file fails


class Watch:
    """One run of the command; `cursor` can be read when it has ended."""

    cursor: Cursor | None
    """Up to which everything was written; None where one cannot resume, as inside a snapshot."""

    def __init__(
        self,
        watched: Watched,
        start: Cursor | None,
        output: Output,
        *,
        as_json: bool,
        exits: bool = False,
        is_latest: bool = False,
    ) -> None:
        self.cursor = start
        self._watched = watched
        self._request = watched.request.after(start)
        self._output = output
        self._as_json = as_json
        self._exits = exits  # as soon as the state is there
        # For who reads our output too slowly; with "conflate" the newest of each key takes the place of all.
        self._on_lag: Literal["reset", "conflate"] = "conflate" if is_latest else "reset"
        # Whether who reads our output has a state, of this run or of an earlier one.
        self._is_state_known = self._request.index > 0
        self._failures = 0  # of snapshots, since one was complete

    async def run(self, opening: AbstractAsyncContextManager[Store]) -> None:
        """Until it is cancelled, or has written all it should; `ReaderLeftError` when nobody reads any more."""
        is_done = False
        async with (
            opening as store,
            open_store_publisher(store, self._watched.topics) as publisher,
        ):
            async with open_tasks() as tasks:
                tasks.start_soon(self._end_with_reader, tasks.cancel_scope)
                if self._request.epoch == publisher.epoch and not self._request.mark:
                    self._request = replace(self._request, epoch=None)  # written by hand: it is trusted
                if self._is_state_known and self._on_lag == "conflate":
                    await self._catch_up(publisher)
                await self._follow(publisher)
                is_done = True
        if not is_done:
            raise ReaderLeftError

    async def _end_with_reader(self, scope: anyio.CancelScope) -> None:
        await self._output.wait_until_reader_leaves()
        scope.cancel()

    async def _catch_up(self, publisher: EventPublisher) -> None:  # noqa: ASYNC910 - what follows waits
        """Writes the newest change of each key since the cursor, from the log, in one line; nothing if it is stale."""
        async with publisher.subscribe(self._request) as subscription:
            try:
                events = await subscription.receive_until_current()
            except (SubscriptionForceClosed, EndOfSubject):
                return
            if any(event.is_framing for event in events):
                return
            cursor = subscription.cursor
        newest: dict[tuple[str, str, str], Event[Record]] = {}
        for each in (single for event in events for single in event.events):
            assert isinstance(each.payload, Record)
            row = (each.topic.name, each.payload.namespace, each.payload.key)
            newest.pop(row, None)
            newest[row] = each
        if newest:
            last = events[-1]
            latest = Event(last.topic, last.index, PayloadEvents(newest.values(), True), mark=last.mark)  # noqa: FBT003
            await self._output.write(self._format(latest, publisher.epoch, is_live=True))
        self.cursor, self._request = cursor, self._request.after(cursor)

    async def _follow(self, publisher: EventPublisher) -> None:
        """Subscribes, and again whenever the publisher has closed the subscription; returns if that is all."""
        while True:
            async with publisher.subscribe(self._request, on_lag=self._on_lag) as subscription:
                try:
                    await (self._copy_state(subscription) if self._exits else self._copy(subscription))
                    return
                except SubscriptionForceClosed as closed:
                    await self._recover(closed)
                self._request = subscription.resume_request()
            if self._is_state_known:  # by then out of date, and nobody else says so: this is a fresh start
                topic = self._request.interests[0].topic
                marker = Event(topic, 0, Framing.NEW_SNAPSHOT_TO_FOLLOW)
                await self._output.write(self._format(marker, publisher.epoch, is_live=False))
                self.cursor = None

    async def _recover(self, closed: SubscriptionForceClosed) -> None:
        """Returns when it makes sense to start again."""
        match closed.reason:
            case CloseReason.REFRESH:
                pass
            case CloseReason.SNAPSHOT_FAILED:
                self._failures += 1
                if self._failures == _ATTEMPTS:
                    raise click.ClickException(f"the state cannot be read: {closed.__cause__}") from closed
                await anyio.sleep(0.05 * 2**self._failures)
            case CloseReason.TOKEN | CloseReason.LAGGED | CloseReason.STOPPED:
                raise closed
            case reason:
                assert_never(reason)
        await anyio.lowlevel.checkpoint()

    async def _copy(self, subscription: Subscription[Record]) -> None:
        """Writes what comes, until the publisher closes the subscription."""
        is_live = self._request.index > 0
        while True:
            events = await subscription.receive_batch(_BATCH)
            is_live = await self._write(events, subscription, is_live=is_live)

    async def _copy_state(self, subscription: Subscription[Record]) -> None:
        """Writes the state; after a resume what has been committed since."""
        is_live = self._request.index > 0
        if is_live:
            await self._write(await subscription.receive_until_current(), subscription, is_live=True)
        while not is_live:
            events = await subscription.receive_batch(_BATCH)
            is_live = await self._write(events, subscription, is_live=False)

    async def _write(
        self, events: Sequence[Event[Record]], subscription: Subscription[Record], *, is_live: bool
    ) -> bool:
        """Whether the state is complete after them; it was before if `is_live`."""
        lines: list[str] = []
        for event in events:
            match event.framing:
                case Framing.END_OF_SNAPSHOT:
                    is_live = True
                case Framing.NEW_SNAPSHOT_TO_FOLLOW:
                    is_live = False
                case None:
                    pass
                case kind:
                    assert_never(kind)
            lines.append(self._format(event, subscription.epoch, is_live=is_live))
        reached = subscription.cursor
        self._is_state_known = True
        if is_live:
            self._failures = 0
        await self._output.write("".join(lines))
        self.cursor = reached if is_live else None
        return is_live

    def _format(self, event: Event[Record], epoch: str, *, is_live: bool) -> str:
        if self._as_json:
            return event_line(event, epoch, self._watched, is_live=is_live)
        return event_text(event, self._watched, is_live=is_live)
