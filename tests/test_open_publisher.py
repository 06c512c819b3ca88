"""`open_publisher`: a publisher for the time of a block, and whatever ends the block leaves it as it is."""

import asyncio
import inspect

import anyio
import anyio.abc
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Catalogue, Health, event, kinds, until_live
from interruptions import on_asyncio
from scenes import WEB, quiet

from trio_stream import (
    ClosedResourceError,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    SubscriptionForceClosed,
    open_publisher,
    running,
)

pytestmark = pytest.mark.anyio


def one_service() -> Catalogue:
    catalogue = Catalogue()
    catalogue.commit(("web", "a"))
    return catalogue


async def endless(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    await snapshot.append([event(1, "web")])
    await anyio.sleep_forever()
    return 1


async def stopped_publisher() -> EventPublisher:
    async with open_publisher({HEALTH: one_service().snapshot}) as publisher:
        pass
    return publisher


async def test_open_publisher_works_as_the_design_shows_it() -> None:
    token, seen = "t", []
    async with open_publisher({HEALTH: one_service().snapshot}) as publisher:
        async with publisher.subscribe(SubscribeRequest(HEALTH, "web", token=token)) as subscription:
            async for received in subscription:
                seen.append(received)
                if received.is_end_of_snapshot:
                    break
    assert kinds(seen) == ["1:web=a", "eos@1"]


@pytest.mark.parametrize(
    "failure",
    [ValueError("v"), ExceptionGroup("g", [ValueError("v")]), KeyboardInterrupt(), StopAsyncIteration()],
)
async def test_an_exception_of_the_body_leaves_open_publisher_as_it_is(failure: BaseException) -> None:
    with pytest.raises(type(failure)) as caught:
        async with open_publisher({HEALTH: endless}) as publisher:
            publisher.subscribe(SubscribeRequest(HEALTH))
            await quiet()
            raise failure
    assert caught.value is failure
    assert (failure.__cause__, failure.__context__) == (None, None)
    with pytest.raises(ClosedResourceError):
        publisher.publish([])


async def test_a_subscription_that_ends_with_an_error_inside_the_body_leaves_as_that_error() -> None:
    with pytest.raises(SubscriptionForceClosed):
        async with (
            open_publisher({HEALTH: endless}) as publisher,
            publisher.subscribe(SubscribeRequest(HEALTH)) as subscription,
        ):
            publisher.refresh()
            await subscription.receive()


async def test_an_outer_scope_that_is_cancelled_ends_the_body_quietly() -> None:
    """D12."""
    with anyio.CancelScope() as scope:
        async with open_publisher({HEALTH: endless}) as publisher:
            subscription = publisher.subscribe(SubscribeRequest(HEALTH))
            await subscription.receive()
            scope.cancel()
            await subscription.receive()
    assert scope.cancelled_caught
    assert publisher.statistics().subscriptions == 0


@pytest.mark.parametrize("failure", [ValueError("block"), KeyboardInterrupt("block")])
@pytest.mark.parametrize("first", ["block", "run"])
async def test_where_the_block_and_what_it_uses_both_raise_neither_is_lost(
    first: str, failure: BaseException
) -> None:
    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        try:
            await entered.wait()
            if first == "block":
                await anyio.sleep_forever()
        finally:
            raise error

    entered, error = anyio.Event(), KeyError("run")
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(serve):
            try:
                entered.set()
                if first == "run":
                    await anyio.sleep_forever()
            finally:
                raise failure
    assert caught.value.exceptions == (failure, error)


async def test_a_block_is_not_entered_if_what_it_uses_was_cancelled_while_it_started() -> None:
    """D12: it would find a service that has stopped, and end with its error instead of the cancellation."""
    entered = False

    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        scope.cancel()
        await anyio.sleep_forever()

    with anyio.CancelScope() as scope:
        async with running(serve):
            entered = True
    assert scope.cancelled_caught
    assert not entered


@pytest.mark.parametrize("failure", [ValueError("v"), KeyboardInterrupt()])
async def test_a_failure_of_the_body_beside_the_cancellation_of_an_outer_scope_is_not_lost(
    failure: BaseException,
) -> None:
    """D12: the publisher ends with the cancellation, but nobody else has seen the failure."""

    async def body(scope: anyio.CancelScope) -> None:
        async with open_publisher({HEALTH: endless}) as publisher:
            publisher.subscribe(SubscribeRequest(HEALTH))
            scope.cancel()
            raise failure

    with pytest.raises(type(failure)) as caught:
        with anyio.CancelScope() as scope:
            await body(scope)
    assert caught.value is failure


@on_asyncio
async def test_a_native_cancellation_of_the_body_leaves_as_a_cancellation() -> None:
    """D12."""
    publishers: list[EventPublisher] = []

    async def body() -> None:
        async with open_publisher({HEALTH: endless}) as publisher:
            publishers.append(publisher)
            async for _ in publisher.subscribe(SubscribeRequest(HEALTH)):
                pass

    task = asyncio.create_task(body())
    await quiet()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert publishers[0].statistics().subscriptions == 0


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("canceller_first", [False, True])
async def test_whoever_is_cancelled_while_it_enters_never_finds_a_publisher_that_has_stopped(
    at: int, canceller_first: bool
) -> None:
    """D12: the cancellation comes from another task, after so many of its turns."""
    scope = anyio.CancelScope()

    async def cancel() -> None:
        for _ in range(at):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async def use() -> None:
        with scope:
            async with open_publisher({HEALTH: one_service().snapshot}) as publisher:
                with anyio.CancelScope(shield=True):
                    assert kinds(await until_live(publisher.subscribe(WEB))) == ["1:web=a", "eos@1"]

    for _ in range(20):  # trio shuffles the tasks
        scope = anyio.CancelScope()
        async with anyio.create_task_group() as tasks:
            for task in (cancel, use) if canceller_first else (use, cancel):
                tasks.start_soon(task)


def test_the_options_of_open_publisher_are_those_of_the_class() -> None:
    of_class, of_block = (inspect.signature(each).parameters for each in (EventPublisher, open_publisher))
    assert list(of_class) == list(of_block)
    for name, parameter in of_class.items():
        assert (parameter.kind, parameter.default) == (of_block[name].kind, of_block[name].default)
