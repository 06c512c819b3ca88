"""Cursors of a store's commits, and waiting for a store's publisher."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import anyio
import pytest
from stores.storehouse import ALL_JOBS, PATIENCE

from trio_stream import Cursor, Event, EventPublisher, SubscribeRequest, Subscription, SubscriptionForceClosed
from trio_stream.stores import JSON, Record, Store

P = TypeVar("P")


async def cursors(store: Store) -> Sequence[Cursor]:
    """Of all commits of the log, oldest first."""
    head = await store.head()
    found: list[Cursor] = []
    if head.index > head.floor:
        async with store.changes(head.floor) as commits:
            async for commit in commits:
                found.append(Cursor(commit.index, head.epoch, commit.mark))
                if commit.index >= head.index:
                    break
    return found


async def cursor_at(store: Store, index: int) -> Cursor:
    """Of the commit with this index, which the log has."""
    return next(each for each in await cursors(store) if each.index == index)


def after(request: SubscribeRequest[P], cursor: Cursor) -> SubscribeRequest[P]:
    """The same request, to go on from there."""
    return request.after(cursor)


async def until_index(publisher: EventPublisher, index: int) -> None:
    """Returns when the publisher has come to this index, or a newer one, of whatever epoch it is in then."""
    with anyio.fail_after(PATIENCE):
        while publisher.index < index:
            # Without a snapshot, which may be ahead: whoever has had that is not let in again after a refresh.
            ahead = replace(ALL_JOBS, index=1_000_000, epoch=publisher.epoch)
            request = ALL_JOBS.after(publisher.cursor) if publisher.cursor.mark else ahead
            async with publisher.subscribe(request) as subscription:
                with suppress(SubscriptionForceClosed):
                    await subscription.wait_published(index)


def values(events: Iterable[Event[Record]]) -> list[JSON]:
    """Of all records of these."""
    return [record.value for event in events for record in event.payloads]


async def end_of(subscription: Subscription[Any]) -> SubscriptionForceClosed:
    """How it is closed, which must come."""
    with pytest.raises(SubscriptionForceClosed) as caught, anyio.fail_after(PATIENCE):
        while True:
            await subscription.receive()
    return caught.value
