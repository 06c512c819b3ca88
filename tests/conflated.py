"""Where tests of `on_lag="conflate"` begin: a catalogue whose topics say what a row is, and readers to compare with."""

from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Any

from catalogue import HEALTH, JOBS, Catalogue, Health

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotFunc,
    Source,
    SubscribeRequest,
    Subscription,
    WouldBlock,
    open_publisher,
)

Row = Callable[[Health], Hashable]

EVERY = SubscribeRequest(HEALTH)


def by_subject(payload: Health) -> Hashable:
    return payload.subject


@asynccontextmanager
async def by_row(
    row: Row | None = by_subject,
    *,
    handler: SnapshotFunc[Health] | None = None,
    of_jobs: Row | None = by_subject,
    **options: Any,
) -> AsyncIterator[tuple[Catalogue, EventPublisher]]:
    """A catalogue and its publisher; `row` is that of HEALTH, `of_jobs` that of JOBS, `handler` is for both."""
    store = Catalogue(index=options.get("index", 0))
    store.states[store.index] = {}
    snapshot = handler or store.snapshot
    sources = {HEALTH: Source(snapshot, row=row, wide=True), JOBS: Source(snapshot, row=of_jobs, wide=True)}
    async with open_publisher(sources, **options) as publisher:
        store.publisher = publisher
        yield store, publisher


def live(
    publisher: EventPublisher, request: SubscribeRequest[Health] = EVERY, **options: Any
) -> Subscription[Health]:
    """A conflating reader that has everything up to now, without a snapshot; the publisher's index is above 0."""
    return publisher.subscribe(request.after(publisher.cursor), on_lag="conflate", **options)


def taken(subscription: Subscription[Health]) -> list[Event[Health]]:
    """Everything that is ready now, however many calls that takes."""
    events: list[Event[Health]] = []
    try:
        while True:
            events.append(subscription.receive_nowait())
    except WouldBlock:
        return events


def replacing(store: Catalogue, *changes: tuple[str, str | None]) -> list[Event[Health]]:
    """The next commit of a catalogue, whose events say what they replace; not committed yet."""
    state = store.state_at(store.index, EVERY)
    events: list[Event[Health]] = []
    for key, value in changes:
        payload = Health(key, value)
        before = state.get(payload.subject)
        previous = None if before is None else Health(key, before)
        events.append(Event(HEALTH, store.index + 1, payload, previous=previous))
        if value is None:
            state.pop(payload.subject, None)
        else:
            state[payload.subject] = value
    return events
