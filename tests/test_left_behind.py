"""What a snapshot function, or a thread, leaves behind when what it works for has ended."""

import asyncio

import anyio
import pytest
from catalogue import HEALTH, Health, event, kinds, until_live
from interruptions import on_asyncio
from scenes import ALL, opened, quiet

from trio_stream import ClosedResourceError, SnapshotAppender, SnapshotFailed, SubscribeRequest
from trio_stream._inbox import Inbox

pytestmark = pytest.mark.anyio

AHEAD = 1024  # how many deliveries a snapshot function may be ahead of its readers


async def test_appends_that_still_wait_when_the_snapshot_function_returns_are_refused() -> None:
    """D1, D11: they are in no snapshot, and the one that was returned is whole without them."""
    refused = 0
    has_returned = False

    async def late(snapshot: SnapshotAppender[Health]) -> None:
        nonlocal refused
        with pytest.raises(ClosedResourceError):
            await snapshot.append([event(1, "late")])
        refused += 1

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        nonlocal has_returned
        for number in range(AHEAD):
            await snapshot.append([event(1, f"key-{number}")])
        tasks.start_soon(late, snapshot)
        tasks.start_soon(late, snapshot)
        await quiet()
        has_returned = True
        return 1

    async with opened(handler) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(ALL)
        while not has_returned:
            await quiet()
        assert refused == 0
        received = await until_live(subscription)
        await quiet()
        assert kinds(received) == [*(f"1:key-{number}=ok" for number in range(AHEAD)), "eos@1"]
        assert refused == 2
        assert kinds(await until_live(publisher.subscribe(ALL))) == kinds(received)


@on_asyncio
async def test_a_group_with_a_cancellation_that_nobody_asked_for_fails_its_snapshot_only() -> None:
    """D14, D16."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        raise BaseExceptionGroup("of a task of its own", [asyncio.CancelledError(), ValueError("v")])

    async with opened(handler) as (_, publisher):
        with pytest.raises(SnapshotFailed) as failed:
            await until_live(publisher.subscribe(SubscribeRequest(HEALTH)))
        assert isinstance(failed.value.__cause__, BaseExceptionGroup)
        publisher.publish([event(1, "web")])


def test_a_thread_that_comes_when_the_event_loop_has_just_ended_is_refused() -> None:
    """D18: it does not wait for a loop that will not come back."""

    def ended(_: object) -> None:
        raise RuntimeError("the event loop has ended")

    inbox = Inbox()
    inbox.open(ended)
    with pytest.raises(ClosedResourceError):
        inbox.put(lambda: None)
