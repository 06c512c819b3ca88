"""A reader is ready when it has had its snapshot, or when the cursor that it came with is known to be right."""

from collections.abc import Callable
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, Health, event, kinds, ready, until_live
from interruptions import drives, soon, ways
from marked import EPOCH, marked
from scenes import WEB, Held, opened, quiet
from unions import BOTH

from trio_stream import (
    CloseReason,
    Cursor,
    EventPublisher,
    SnapshotFailed,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
)

pytestmark = pytest.mark.anyio

AHEAD = WEB.after(Cursor(7, EPOCH, "a7"))
OnLag = Literal["close", "reset"]


class Waiting:
    """Tasks that wait until a subscription is ready, and what came of it."""

    def __init__(
        self, tasks: anyio.abc.TaskGroup, subscription: Subscription[Health], count: int = 1
    ) -> None:
        self.outcomes: list[Exception | None] = []
        for _ in range(count):
            tasks.start_soon(self._wait, subscription)

    async def _wait(self, subscription: Subscription[Health]) -> None:
        try:
            await subscription.wait_ready()
        except Exception as error:  # noqa: BLE001 - it is looked at
            self.outcomes.append(error)
        else:
            self.outcomes.append(None)


def doing(subscription: Subscription[Health]) -> SubscriptionState:
    return subscription.state


async def test_a_fresh_reader_is_ready_when_it_has_received_the_end_of_its_snapshot() -> None:
    """D5: it is not enough that the snapshot is whole."""
    async with opened() as (store, publisher), anyio.create_task_group() as tasks:
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        waiting = Waiting(tasks, subscription, 3)
        await quiet()
        assert kinds([await subscription.receive()]) == ["1:web=1"]
        await quiet()
        assert waiting.outcomes == []
        assert doing(subscription) is SubscriptionState.SNAPSHOT
        assert kinds([await subscription.receive()]) == ["eos@1"]
        await quiet()
        assert waiting.outcomes == [None] * 3
        assert doing(subscription) is SubscriptionState.LIVE
        await subscription.wait_ready()


@pytest.mark.parametrize("receive", ["receive", "nowait", "batch", "until current", "for"])
async def test_whichever_way_the_snapshot_is_received(receive: str) -> None:
    """D5."""
    async with opened() as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(WEB)
        waiting = Waiting(tasks, subscription)
        await quiet()
        match receive:
            case "receive":
                await subscription.receive()
            case "nowait":
                subscription.receive_nowait()
            case "batch":
                await subscription.receive_batch()
            case "until current":
                await subscription.receive_until_current()
            case _:
                async for each in subscription:
                    assert each.is_end_of_snapshot
                    break
        await quiet()
        assert waiting.outcomes == [None]


@pytest.mark.parametrize(
    "request_", [WEB, SubscribeRequest(HEALTH, "w", prefix=True), BOTH], ids=["key", "prefix", "union"]
)
async def test_who_resumes_is_ready_at_once(request_: SubscribeRequest[Health]) -> None:
    """D7: with nothing received, and something ready or not."""
    async with marked() as (store, publisher):
        for value in "123":
            store.commit(("web", value))
        for index in (1, 3):
            subscription = publisher.subscribe(request_.after(store.cursor(index)))
            await subscription.wait_ready()
            assert subscription.index == index
            assert len(await subscription.receive_until_current()) == 3 - index


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_who_is_stale_is_ready_when_it_has_received_the_new_snapshot(on_lag: OnLag) -> None:
    """D5, D7."""
    async with marked() as (store, publisher), anyio.create_task_group() as tasks:
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB.after(Cursor(1, EPOCH, "b1")), on_lag=on_lag)
        waiting = Waiting(tasks, subscription)
        await quiet()
        assert waiting.outcomes == []
        assert kinds(await until_live(subscription)) == ["marker", "1:web=1", "eos@1"]
        await quiet()
        assert waiting.outcomes == [None]


@pytest.mark.parametrize("receiving", [True, False])
@pytest.mark.parametrize("is_right", [True, False], ids=["right", "wrong"])
async def test_who_is_ahead_is_ready_when_its_commit_is_known_to_be_the_same(
    is_right: bool, receiving: bool
) -> None:
    """D7: nobody needs to receive for that; one that is wrong has to receive a snapshot first."""
    async with marked() as (store, publisher), anyio.create_task_group() as tasks:
        store.copy = "a" if is_right else "b"
        received: list[Any] = []

        async def receive() -> None:
            async for each in subscription:
                received.append(each)

        subscription = publisher.subscribe(AHEAD)
        assert subscription.state is SubscriptionState.RESUMING
        waiting = Waiting(tasks, subscription, 3)
        if receiving:
            tasks.start_soon(receive)
        for index in range(1, 7):
            store.commit(("web", str(index)))
            await quiet()
            assert waiting.outcomes == []
            assert subscription.state is SubscriptionState.RESUMING
        store.commit(("web", "7"))
        await quiet()
        assert waiting.outcomes == [None] * 3 * (is_right or receiving)
        store.commit(("web", "8"))
        await quiet()
        received += ready(subscription) if not receiving else []
        rest = [] if is_right else ["marker", "7:web=7", "eos@7"]
        assert kinds(received) == [*rest, "8:web=8"]
        await quiet()
        assert waiting.outcomes == [None] * 3
        tasks.cancel_scope.cancel()


ENDS: dict[str, tuple[Callable[[EventPublisher, Subscription[Health]], object], CloseReason | None]] = {
    "own": (lambda _, subscription: subscription.unsubscribe(), None),
    "token": (lambda publisher, _: publisher.close_subscriptions([""]), CloseReason.TOKEN),
    "refresh": (lambda publisher, _: publisher.refresh(), CloseReason.REFRESH),
}


@pytest.mark.parametrize("request_", [WEB, AHEAD], ids=["inside a snapshot", "resuming"])
@pytest.mark.parametrize(("end", "reason"), ENDS.values(), ids=ENDS)
async def test_an_end_is_raised_to_who_waits(
    end: Callable[[EventPublisher, Subscription[Health]], object],
    reason: CloseReason | None,
    request_: SubscribeRequest[Health],
) -> None:
    """D16: and to who comes later, again and again."""
    held = Held()
    async with opened(held, epoch=EPOCH) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(request_)
        waiting = Waiting(tasks, subscription, 20)
        await quiet()
        end(publisher, subscription)
        await quiet()
        late = Waiting(tasks, subscription, 2)
        await quiet()
        assert len(waiting.outcomes) == 20
        for outcome in waiting.outcomes + late.outcomes:
            if reason is None:
                assert isinstance(outcome, anyio.ClosedResourceError)
            else:
                assert isinstance(outcome, SubscriptionForceClosed)
                assert outcome.reason is reason


@pytest.mark.parametrize("request_", [WEB, AHEAD, BOTH], ids=["inside a snapshot", "resuming", "union"])
async def test_stop_is_raised_to_who_waits(request_: SubscribeRequest[Health]) -> None:
    """D5, D16: what is not ready by then never will be."""
    held = Held()
    async with anyio.create_task_group() as tasks:
        async with opened(held, epoch=EPOCH) as (_, publisher):
            subscription = publisher.subscribe(request_)
            waiting = Waiting(tasks, subscription, 3)
            await quiet()
        await quiet()
        late = Waiting(tasks, subscription)
        await quiet()
        for outcome in waiting.outcomes + late.outcomes:
            assert isinstance(outcome, SubscriptionForceClosed)
            assert outcome.reason is CloseReason.STOPPED
        assert len(waiting.outcomes + late.outcomes) == 4


async def test_a_whole_snapshot_can_be_received_after_stop_and_then_the_reader_is_ready() -> None:
    """D5: but who waits is told of the stop, because nothing says that anybody will."""
    async with anyio.create_task_group() as tasks:
        async with opened() as (store, publisher):
            store.commit(("web", "1"))
            subscription = publisher.subscribe(WEB)
            waiting = Waiting(tasks, subscription, 3)
            await quiet()
            store.commit(("web", "2"))
        await quiet()
        assert [type(each) for each in waiting.outcomes] == [SubscriptionForceClosed] * 3
    with pytest.raises(SubscriptionForceClosed):
        await subscription.wait_ready()
    assert kinds(await until_live(subscription)) == ["1:web=1", "eos@1"]
    await subscription.wait_ready()
    assert kinds([await subscription.receive()]) == ["2:web=2"]


async def test_a_failed_snapshot_is_raised_to_who_waits_when_it_was_received() -> None:
    """D16: who receives finds out."""

    async def failing(*_: Any) -> int:
        await anyio.lowlevel.checkpoint()
        raise LookupError("not ready")

    async with opened(failing) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(WEB)
        waiting = Waiting(tasks, subscription)
        await quiet()
        with pytest.raises(SnapshotFailed):
            await subscription.receive()
        await quiet()
        (outcome,) = waiting.outcomes
        assert isinstance(outcome, SnapshotFailed)
        assert isinstance(outcome.__cause__, LookupError)


async def test_waiting_is_not_receiving() -> None:
    """D18: it may be done while another task receives, and leaves everything where it is."""
    async with opened() as (store, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        store.commit(("web", "1"))
        await subscription.wait_ready()
        assert kinds(ready(subscription)) == ["1:web=1"]
        tasks.start_soon(subscription.receive)
        await quiet()
        await subscription.wait_ready()
        assert publisher.statistics().waiting == 1
        store.commit(("web", "2"))


@pytest.mark.parametrize("request_", [WEB, AHEAD], ids=["inside a snapshot", "resuming"])
async def test_waiting_can_be_cancelled_anywhere(request_: SubscribeRequest[Health]) -> None:
    """D12, D13: by a scope and natively; the others are woken all the same."""
    held = Held()
    async with opened(held, epoch=EPOCH) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(request_)
        waiting = Waiting(tasks, subscription)
        for interrupt in ways():
            for at in range(2):
                assert await interrupt(subscription.wait_ready, at, lambda _: None)
        await quiet()
        assert waiting.outcomes == []
        held.go.set()
        if request_ == AHEAD:
            publisher.publish([event(7, "web")], mark="a7")
        else:
            await until_live(subscription)
        await quiet()
        assert waiting.outcomes == [None]


@pytest.mark.parametrize("first", ["wake", "cancel"])
async def test_a_wake_and_a_cancel_in_one_turn_lose_nobody(first: str) -> None:
    """D12: the one that is cancelled is, or is not; the other is ready."""
    async with marked() as (_, publisher), anyio.create_task_group() as tasks:
        for number, drive in enumerate(drives(), 1):
            subscription = publisher.subscribe(WEB.after(Cursor(number, EPOCH, f"a{number}")))
            waiting = Waiting(tasks, subscription)
            await quiet()

            def step(at: int, cancel: Callable[[], object], index: int = number) -> None:
                def both_at_once() -> None:
                    if first == "cancel":
                        cancel()
                    publisher.publish([event(index, "web")], mark=f"a{index}")
                    cancel()

                if at == 1:
                    soon(both_at_once)

            await drive(subscription.wait_ready, step)
            await quiet()
            assert waiting.outcomes == [None]
            assert publisher.statistics().waiting == 0


async def test_an_index_that_very_many_wait_for_wakes_all_of_them() -> None:
    """D15: also those who only wait for that, and no more is known of them afterwards."""
    async with marked() as (_, publisher), anyio.create_task_group() as tasks:
        subscriptions = [publisher.subscribe(AHEAD) for _ in range(1000)]
        waiting = [Waiting(tasks, subscription) for subscription in subscriptions]
        await quiet()
        publisher.publish((), index=7, mark="a7")
        await quiet()
        assert [each.outcomes for each in waiting] == [[None]] * 1000
        assert {each.state for each in subscriptions} == {SubscriptionState.LIVE}


async def test_it_belongs_to_the_event_loop_of_the_publisher() -> None:
    """D18."""
    async with opened() as (_, publisher):
        subscription = publisher.subscribe(WEB)

        def elsewhere() -> None:
            with pytest.raises(RuntimeError):
                anyio.run(subscription.wait_ready)

        await anyio.to_thread.run_sync(elsewhere)
        assert kinds(await until_live(subscription)) == ["eos@0"]
