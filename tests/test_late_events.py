"""Events that a snapshot has seen already and that are published after it never come, and nobody lags behind them."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Health, event, kinds, ready, until_live
from scenes import ALL, opened, quiet, settled

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Subscription, WouldBlock

pytestmark = pytest.mark.anyio


async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    """A store that has committed 5, of which the publisher has not heard."""
    await snapshot.append([event(5, "web", "five")])
    return 5


@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
async def test_late_events_are_dropped_whether_or_not_rights_are_checked(authorizer: Any) -> None:
    """D2."""
    async with opened(ahead) as (_, publisher):
        subscription = publisher.subscribe(ALL, authorizer=authorizer)
        assert kinds(await until_live(subscription)) == ["5:web=five", "eos@5"]
        for index in (3, 4, 5, 6):
            publisher.publish([event(index, "web", f"{index}")])
        assert await settled(subscription) == ["6:web=6"]


@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
async def test_who_only_missed_late_events_has_not_lagged(authorizer: Any) -> None:
    """D2, D6: the history is of one commit, and what it has dropped was in the snapshot."""
    async with opened(ahead, history=1) as (_, publisher):
        subscription = publisher.subscribe(ALL, authorizer=authorizer)
        await until_live(subscription)
        for index in (3, 4, 5, 6):
            publisher.publish([event(index, "web", f"{index}")])
        assert kinds(ready(subscription)) == ["6:web=6"]


async def receive(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await subscription.receive()]


async def iterate(subscription: Subscription[Health]) -> list[Event[Health]]:
    return [await anext(subscription)]


async def batch(subscription: Subscription[Health]) -> list[Event[Health]]:
    return list(await subscription.receive_batch())


async def nowait(subscription: Subscription[Health]) -> list[Event[Health]]:
    await anyio.lowlevel.checkpoint()
    return [subscription.receive_nowait()]


@pytest.mark.parametrize("take", [receive, iterate, batch, nowait])
@pytest.mark.parametrize("resumes", [False, True])
@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
@pytest.mark.parametrize("history", [1, 300])
@pytest.mark.parametrize("looks", [False, True])
async def test_late_events_are_passed_over_however_many_they_are(
    take: Callable[[Subscription[Health]], Awaitable[list[Event[Health]]]],
    resumes: bool,
    authorizer: Any,
    history: int,
    looks: bool,
) -> None:
    """D2, U27: more than the history keeps, behind a snapshot that was ahead or a cursor from the future."""
    many = 1_000

    async def far_ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return many

    async with opened(far_ahead, history=history) as (_, publisher):
        request = SubscribeRequest(HEALTH, "web", index=many, epoch=publisher.epoch) if resumes else ALL
        subscription = publisher.subscribe(request, authorizer=authorizer)
        if not resumes:
            await until_live(subscription)
        for index in range(1, many + 1):
            publisher.publish([event(index, "web")])
        if looks:
            assert subscription.horizon == many
            assert subscription.resume_request().index == many
        else:
            with pytest.raises(WouldBlock):
                subscription.receive_nowait()
        publisher.publish([event(many + 1, "web")])
        assert kinds(await take(subscription)) == [f"{many + 1}:web=ok"]
        delivered = subscription.statistics().delivered
        assert delivered == (1 if resumes else 2)


@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})])
async def test_a_waiting_reader_sleeps_through_late_events_of_any_number(authorizer: Any) -> None:
    """D2, U27: while it waits, too."""
    async with opened(history=2) as (_, publisher), anyio.create_task_group() as tasks:
        request = SubscribeRequest(HEALTH, "web", index=700, epoch=publisher.epoch)
        subscription = publisher.subscribe(request, authorizer=authorizer)
        got: list[Event[Health]] = []

        async def read() -> None:
            got.append(await subscription.receive())

        tasks.start_soon(read)
        for index in range(1, 702):
            publisher.publish([event(index, "web")])
            if index in (600, 700):
                await quiet()
                assert got == []
        await quiet()
        assert kinds(got) == ["701:web=ok"]
