"""What a snapshot function may do, and what it cannot do to anybody but those who wait for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready, until_live
from scenes import ALL, WEB, Held, opened, quiet, settled

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    Event,
    EventPublisher,
    Framing,
    InvalidCommitError,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
)

pytestmark = pytest.mark.anyio

Request = SubscribeRequest[Health]
Appender = SnapshotAppender[Health]

NO_STORE: dict[str, Any] = {}


async def returns(value: Any) -> Any:
    await anyio.lowlevel.checkpoint()
    return value


async def raises(error: BaseException) -> int:
    await anyio.lowlevel.checkpoint()
    raise error


async def appends(snapshot: Appender, *payloads: Any) -> int:
    await snapshot.append([event(1, "web")])
    await snapshot.append(payloads)
    return 1


async def raises_a_group(_: Request, snapshot: Appender) -> int:
    async with anyio.create_task_group() as tasks:
        for error in (LookupError("one"), OSError("two")):
            tasks.start_soon(raises, error)
    return 1


async def lets_out_a_cancellation(_: Request, snapshot: Appender) -> int:
    """As a cache does that remembers how the task ended that was to fill it."""
    stray: BaseException | None = None
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            stray = error
            raise
    assert stray is not None
    raise stray


@pytest.mark.parametrize(
    ("handler", "cause"),
    [
        pytest.param(lambda r, s: raises(LookupError("gone")), LookupError, id="raises"),
        pytest.param(raises_a_group, ExceptionGroup, id="raises a group"),
        pytest.param(lambda r, s: NO_STORE["health"], KeyError, id="raises before it can be awaited"),
        pytest.param(lambda r, s: 7, TypeError, id="is not async"),
        pytest.param(lambda r, s: returns(-1), ValueError, id="negative index"),
        pytest.param(lambda r, s: returns(None), TypeError, id="no index"),
        pytest.param(lambda r, s: returns(True), TypeError, id="bool index"),
        pytest.param(lambda r, s: returns(1.0), TypeError, id="float index"),
        pytest.param(
            lambda r, s: appends(s, event(1, "a", topic=JOBS)), InvalidCommitError, id="other topic"
        ),
        pytest.param(
            lambda r, s: appends(s, event(1, "a"), event(2, "b")), InvalidCommitError, id="two indexes"
        ),
        pytest.param(lambda r, s: appends(s, event(-1, "a")), InvalidCommitError, id="negative event index"),
        pytest.param(lambda r, s: appends(s, "event"), InvalidCommitError, id="no event"),
        pytest.param(
            lambda r, s: appends(s, Event(HEALTH, 1, Framing.END_OF_SNAPSHOT)),
            InvalidCommitError,
            id="framing",
        ),
        pytest.param(
            lambda r, s: appends(s, Event(HEALTH, 1, PayloadEvents([event(1, "a")]))),
            InvalidCommitError,
            id="batch",
        ),
        pytest.param(lets_out_a_cancellation, BaseException, id="lets out a cancellation"),
    ],
)
async def test_a_snapshot_function_that_fails_concerns_only_those_who_wait_for_it(
    handler: Any, cause: type[BaseException]
) -> None:
    """D5, D16, D18: the error repeats, nothing is taken for a whole state, the publisher goes on."""
    async with opened(handler) as (_, publisher):
        resumed = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=5, epoch=publisher.epoch))
        jobs = publisher.subscribe(SubscribeRequest(JOBS, "web"))
        subscription = publisher.subscribe(WEB)
        for _ in range(2):
            with pytest.raises(SnapshotFailed) as failed:
                await until_live(subscription)
            assert isinstance(failed.value.__cause__, cause)
            assert (failed.value.reason, failed.value.index) == (CloseReason.SNAPSHOT_FAILED, 0)
        assert subscription.resume_request() == WEB
        assert kinds(await until_live(jobs)) == ["eos@0"]
        publisher.publish([event(6, "web"), event(6, "web", topic=JOBS)])
        assert kinds(ready(resumed)) == kinds(ready(jobs)) == ["6:web=ok"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_asyncio_cancellation_that_the_handler_made_up_does_not_take_the_publisher_down() -> None:
    """D16: the task that it waited for was cancelled, not the handler."""

    async def handler(_: Request, snapshot: Appender) -> int:
        task = asyncio.ensure_future(asyncio.sleep(10))
        await asyncio.sleep(0)
        task.cancel()
        await task
        return 1

    async with opened(handler) as (_, publisher):
        with pytest.raises(SnapshotFailed) as failed:
            await until_live(publisher.subscribe(WEB))
        assert isinstance(failed.value.__cause__, asyncio.CancelledError)
        assert kinds(await until_live(publisher.subscribe(SubscribeRequest(JOBS)))) == ["eos@0"]


async def test_a_failure_overtakes_what_was_made_so_far() -> None:
    """Departure 11: no end-of-snapshot, so that a part is never taken for the whole."""
    async with opened(lambda _, snapshot: appends(snapshot, "no event")) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await quiet()
        with pytest.raises(SnapshotFailed):
            subscription.receive_nowait()


async def test_a_snapshot_older_than_a_commit_that_nobody_can_be_given_any_more_has_failed() -> None:
    """D6, D8: the store of the snapshot function is behind what was published before it was asked."""
    async with opened(lambda r, s: returns(2), history=2) as (_, publisher):
        for index in (1, 2, 3, 4):
            publisher.publish([event(index, "web")])
        assert kinds(await until_live(subscription := publisher.subscribe(WEB))) == ["eos@2"]
        assert kinds(ready(subscription)) == ["3:web=ok", "4:web=ok"]
        publisher.publish([event(5, "web")])
        with pytest.raises(SnapshotFailed) as failed:
            await until_live(publisher.subscribe(WEB))
        assert isinstance(failed.value.__cause__, ValueError)


async def test_a_snapshot_function_that_never_returns_can_be_left_and_is_cancelled() -> None:
    """D13, D15."""
    held = Held()
    async with opened(held) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(subscription.receive)
                await quiet()
                scope.cancel()
        subscription.unsubscribe()
        await quiet()
        assert held.cancelled == 1


async def test_nothing_can_be_appended_once_the_snapshot_function_has_returned() -> None:
    """D5, D18."""
    kept: list[Appender] = []

    async def handler(request: Request, snapshot: Appender) -> int:
        kept.append(snapshot)
        return await store.snapshot(request, snapshot)

    async with opened(handler) as (store, publisher):
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        with pytest.raises(ClosedResourceError):
            await kept[0].append([event(1, "web")])
        assert await settled(subscription) == []
        assert kinds(ready(publisher.subscribe(WEB))) == ["eos@0"]


async def test_an_empty_append_is_nothing_but_a_checkpoint() -> None:
    with anyio.CancelScope() as scope:

        async def handler(_: Request, snapshot: Appender) -> int:
            await snapshot.append(())
            await snapshot.append(iter([event(1, "web", "a"), event(1, "web", "b")]))
            return 1

        async with opened(handler) as (_, publisher):
            assert kinds(await until_live(publisher.subscribe(WEB))) == ["1:web=a+web=b", "eos@1"]
            scope.cancel()


async def test_a_snapshot_function_may_publish() -> None:
    """D3: before and after it has read its state."""

    async def handler(request: Request, snapshot: Appender) -> int:
        store.commit(("web", "before"))
        index = await store.snapshot(request, snapshot)
        store.commit(("web", "after"))
        return index

    async with opened(handler) as (store, publisher):
        subscription = publisher.subscribe(WEB)
        received = await until_live(subscription) + ready(subscription)
        assert kinds(received) == ["1:web=before", "eos@1", "2:web=after"]


async def test_a_snapshot_function_may_subscribe_and_wait_for_another_snapshot() -> None:
    """D15: there, a handler that subscribes deadlocks."""

    async def handler(request: Request, snapshot: Appender) -> int:
        if request.key:
            async with publisher.subscribe(ALL) as subscription:
                return (await until_live(subscription))[-1].index
        return await store.snapshot(request, snapshot)

    async with opened(handler) as (store, publisher):
        store.commit(("web", "1"))
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["eos@1"]


async def test_a_snapshot_function_may_end_the_subscriptions_that_wait_for_it() -> None:
    """D13: with the last of them it is cancelled itself."""
    subscriptions: list[Subscription[Health]] = []
    progress: list[str] = []

    async def handler(_: Request, snapshot: Appender) -> int:
        await anyio.lowlevel.checkpoint()
        subscriptions[0].unsubscribe()
        await snapshot.append([event(1, "web")])
        progress.append("one left")
        publisher.close_subscriptions(["t"])
        await snapshot.append([event(1, "web")])
        progress.append("nobody left")
        return 1

    async with opened(handler) as (_, publisher):
        request = SubscribeRequest(HEALTH, "web", token="t")
        subscriptions += [publisher.subscribe(WEB), publisher.subscribe(request)]
        with pytest.raises(SubscriptionForceClosed) as closed:
            await until_live(subscriptions[1])
        assert closed.value.reason is CloseReason.TOKEN
        await quiet()
        assert progress == ["one left"]
        assert publisher.statistics().topics["health"].snapshots == 0


@pytest.mark.parametrize(
    "refresh", [lambda p: p.refresh(HEALTH), lambda p: p.refresh()], ids=["topic", "all"]
)
async def test_a_snapshot_that_a_refresh_overtakes_is_given_to_nobody(
    refresh: Callable[[EventPublisher], None],
) -> None:
    """D6, D14: it shows the state of before."""
    held = Held()
    async with opened(held) as (_, publisher):
        before = publisher.subscribe(WEB)
        await quiet()
        refresh(publisher)
        after = publisher.subscribe(WEB)
        held.go.set()
        assert kinds(await until_live(after)) == ["eos@0"]
        assert (len(held.requests), held.cancelled) == (2, 1)
        with pytest.raises(SubscriptionForceClosed) as closed:
            await before.receive()
        assert closed.value.reason is CloseReason.REFRESH


async def test_a_slow_snapshot_delays_nobody_else() -> None:
    """D10, D15, Kubernetes #139526: not publish, not its own topic, not another, not an unsubscribe."""
    held = Held()

    async def handler(request: Request, snapshot: Appender) -> int:
        return await (held if request.key == "web" else store.snapshot)(request, snapshot)

    async with opened(handler) as (store, publisher):
        slow, leaving = publisher.subscribe(WEB), publisher.subscribe(WEB)
        await quiet()
        store.commit(("web", "1"))
        others = [publisher.subscribe(ALL), publisher.subscribe(SubscribeRequest(JOBS))]
        for other in others:
            await until_live(other)
        store.commit(("web", "2"))
        assert kinds([await others[0].receive()]) == ["2:web=2"]
        leaving.unsubscribe()
        held.go.set()
        assert kinds(await until_live(slow) + ready(slow)) == ["eos@0", "1:web=1", "2:web=2"]


class Endless:
    """A snapshot function with very much to say."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.appended = 0

    async def __call__(self, _: Request, snapshot: Appender) -> int:
        for i in range(1, self.size + 1):
            self.appended = i
            await snapshot.append([event(1, "web", str(i))])
        return 1


async def test_a_snapshot_function_that_runs_ahead_waits_for_its_fastest_reader() -> None:
    """D11: and goes on when that one has read, or another has come and overtaken it."""
    endless = Endless(5_000)
    async with opened(endless) as (_, publisher):
        stalled, reader = publisher.subscribe(WEB), publisher.subscribe(WEB)
        await quiet()
        ahead = endless.appended
        assert 0 < ahead < 2_500
        await quiet()
        assert endless.appended == ahead
        for _ in range(ahead):
            await reader.receive()
        await quiet()
        assert ahead < endless.appended <= 2 * ahead + 1
        reader.unsubscribe()
        late = publisher.subscribe(WEB)
        received = await until_live(late)
        assert [got.payload.value for got in received if isinstance(got.payload, Health)] == [
            str(i + 1) for i in range(5_000)
        ]
        assert len(await until_live(stalled)) == 5_001


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_what_goes_wrong_while_a_snapshot_is_given_up_is_not_its_failure(on_lag: Any) -> None:
    """D11, D16: the history has passed its readers, and that is what they are told."""
    runs = 0

    async def handler(request: Request, snapshot: Appender) -> int:
        nonlocal runs
        runs += 1
        try:
            return await Endless(5_000 if runs == 1 else 1)(request, snapshot) and publisher.index
        finally:
            if runs == 1:
                raise OSError("the connection was not closed properly")

    async with opened(handler, history=2, index=1) as (_, publisher):
        subscription = publisher.subscribe(WEB, on_lag=on_lag)
        assert kinds([await subscription.receive()]) == ["1:web=1"]
        await quiet()
        for index in range(2, 6):
            publisher.publish([event(index, "web")])
        await quiet()
        if on_lag == "close":
            with pytest.raises(SubscriptionLagged):
                await subscription.receive()
        else:
            assert kinds(await until_live(subscription)) == ["marker", "1:web=1", "eos@5"]


@pytest.mark.parametrize("style", ["receive", "async for", "receive_batch"])
async def test_a_stalled_reader_does_not_delay_a_healthy_one(style: str) -> None:
    """D10, D11."""
    async with opened(Endless(2_500)) as (_, publisher):
        stalled, healthy = publisher.subscribe(WEB), publisher.subscribe(WEB)
        assert kinds([await stalled.receive()]) == ["1:web=1"]
        received = 0
        while not healthy.index:
            match style:
                case "receive":
                    await healthy.receive()
                    received += 1
                case "receive_batch":
                    received += len(await healthy.receive_batch())
                case _:
                    async for got in healthy:
                        received += 1
                        if got.is_end_of_snapshot:
                            break
        assert received == 2_501
        assert len(await until_live(stalled)) == 2_500


async def test_a_reader_that_may_see_nothing_does_not_stop_the_snapshot() -> None:
    """C16, D11."""
    async with opened(Endless(2_500)) as (_, publisher):
        subscription = publisher.subscribe(WEB, authorizer=frozenset())
        assert kinds([await subscription.receive()]) == ["eos@1"]


@pytest.mark.parametrize("taken", [511, 512, 513, 1000, 1024])
async def test_a_snapshot_function_that_waits_goes_on_once_half_of_its_window_is_free(taken: int) -> None:
    """D15: however large the step is by which its reader has come closer."""
    appended = 0

    async def handler(_: Request, snapshot: Appender) -> int:
        nonlocal appended
        for appended in range(3000):
            await snapshot.append([event(1, f"key-{appended}")])
        return 1

    async with opened(handler) as (_, publisher):
        subscription = publisher.subscribe(ALL)
        await quiet()
        window = appended
        assert len(await subscription.receive_batch(taken)) == taken
        await quiet()
        assert appended == (window if taken < window // 2 else window + taken)


async def test_a_snapshot_function_that_had_to_wait_for_its_reader_may_then_be_slower_than_the_history() -> (
    None
):
    """D1: what counts is the index that it returns."""
    go = anyio.Event()

    async def handler(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        for number in range(1500):
            await snapshot.append([event(1, "web", f"{number}")])
        await go.wait()
        return publisher.index

    async with opened(handler, history=4, index=1) as (store, publisher):
        subscription = publisher.subscribe(WEB)
        await quiet()
        for _ in range(1500):
            await subscription.receive()
        for _ in range(6):
            store.commit(("web", "new"))
        go.set()
        assert kinds([await subscription.receive()]) == ["eos@7"]
