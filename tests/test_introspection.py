"""What a publisher shows of those who read, and of what it has done since its start; it never shows a token."""

import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from finishes import LIVE
from scenes import WEB, Held, opened, quiet
from typing_extensions import override

from trio_stream import (
    ALL,
    ClosedResourceError,
    CloseReason,
    EndOfSubject,
    Event,
    EventPublisher,
    PublisherStatistics,
    SnapshotAppender,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionInfo,
    SubscriptionState,
    open_publisher,
)

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


def by_label(publisher: EventPublisher) -> dict[str, SubscriptionInfo]:
    return {each.label: each for each in publisher.subscriptions()}


# One subscription.


async def test_a_subscription_is_shown_with_its_label_and_what_it_asked_for() -> None:
    async with opened(index=1) as (_, publisher):
        asked = {
            "a key": WEB,
            "every key": SubscribeRequest(HEALTH),
            "a prefix": SubscribeRequest(HEALTH, "w", prefix=True),
            "a union": WEB | SubscribeRequest(JOBS, "a"),
        }
        for label, request in asked.items():
            assert publisher.subscribe(request, label=label).label == label
        shown = by_label(publisher)
        assert {label: each.interests for label, each in shown.items()} == {
            label: request.interests for label, request in asked.items()
        }


async def test_who_gives_no_label_has_a_blank_one() -> None:
    async with opened(index=1) as (_, publisher):
        assert publisher.subscribe(LIVE).label == ""
        assert [each.label for each in publisher.subscriptions()] == [""]


@pytest.mark.parametrize("label", [None, 7, b"x", ["x"]])
async def test_a_label_is_a_string(label: Any) -> None:
    """D18: and nothing is left of the subscription that was refused."""
    async with opened(index=1) as (_, publisher):
        with pytest.raises(TypeError):
            publisher.subscribe(LIVE, label=label)
        assert publisher.statistics().subscriptions == 0
        assert list(publisher.subscriptions()) == []


async def test_several_subscriptions_may_have_one_label() -> None:
    async with opened(index=1) as (_, publisher):
        for _ in range(3):
            publisher.subscribe(LIVE, label="worker")
        assert [each.label for each in publisher.subscriptions()] == ["worker"] * 3


async def test_the_token_is_not_shown() -> None:
    """It is a secret: not in what is listed, nor in how that is written."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", token=SECRET, index=1), label="x")
        (info,) = publisher.subscriptions()
        assert SECRET not in repr(info)
        assert SECRET not in repr(info.interests)
        assert SECRET not in repr(publisher.statistics())
        assert SECRET not in repr(subscription)
        assert not any(SECRET in str(getattr(info, name)) for name in dir(info) if not name.startswith("__"))


async def test_what_is_shown_cannot_be_changed() -> None:
    async with opened(index=1) as (_, publisher):
        publisher.subscribe(LIVE, label="x")
        (info,) = publisher.subscriptions()
        with pytest.raises((FrozenInstanceError, AttributeError)):
            info.label = "y"  # type: ignore[misc]
        with pytest.raises((FrozenInstanceError, AttributeError)):
            publisher.statistics().commits = 7  # type: ignore[misc]


async def test_what_is_shown_is_what_the_subscription_itself_says() -> None:
    async with opened(index=1) as (store, publisher):
        subscription = publisher.subscribe(LIVE, label="x")
        for value in ("1", "2", "3"):
            store.commit(("web", value))
        await subscription.receive()
        (info,) = publisher.subscriptions()
        statistics = subscription.statistics()
        assert (info.state, info.lag, info.index, info.delivered, info.waiting) == (
            SubscriptionState.LIVE,
            2,
            2,
            1,
            False,
        )
        assert (statistics.lag, statistics.delivered, subscription.index) == (2, 1, 2)


async def test_looking_does_not_change_what_is_looked_at() -> None:
    """Nor does it pass what is hidden, as asking for the horizon does."""
    async with opened(index=1) as (store, publisher):
        subscription = publisher.subscribe(LIVE, authorizer=frozenset(), label="x")
        store.commit(("web", "1"))
        before = [*publisher.subscriptions()]
        assert [*publisher.subscriptions()] == before
        assert (before[0].lag, before[0].index) == (1, 1)
        assert subscription.index == 1


async def test_each_state_is_shown() -> None:
    async with opened(held := Held(), epoch="e", mark="m", index=1) as (store, publisher):
        held.store = store
        publisher.subscribe(WEB, label="in its snapshot")
        publisher.subscribe(SubscribeRequest(HEALTH, "web", index=9, epoch="e", mark="x"), label="ahead")
        publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch="e", mark="m"), label="live")
        assert {label: each.state for label, each in by_label(publisher).items()} == {
            "in its snapshot": SubscriptionState.SNAPSHOT,
            "ahead": SubscriptionState.RESUMING,
            "live": SubscriptionState.LIVE,
        }
        held.go.set()


async def test_who_waits_is_shown_as_waiting_while_it_does() -> None:
    async with opened(index=1) as (store, publisher):
        waiting, idle = publisher.subscribe(LIVE, label="waits"), publisher.subscribe(LIVE, label="idle")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(waiting.receive)
            await quiet()
            shown = by_label(publisher)
            assert {label: each.waiting for label, each in shown.items()} == {"waits": True, "idle": False}
            assert publisher.statistics().waiting == 1
            store.commit(("web", "1"))
        assert not any(each.waiting for each in publisher.subscriptions())
        assert idle.statistics().lag == 1


async def test_who_waits_for_a_snapshot_is_shown_as_waiting() -> None:
    async with opened(held := Held(), index=1) as (store, publisher):
        held.store = store
        subscription = publisher.subscribe(WEB)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.receive)
            await quiet()
            assert [each.waiting for each in publisher.subscriptions()] == [True]
            held.go.set()


@pytest.mark.parametrize("how", ["by its owner", "by token", "by refresh", "by lag", "by finish"])
async def test_who_has_ended_is_not_shown(how: str) -> None:
    """D13."""
    async with opened(index=1, history=2) as (store, publisher):
        subscription = publisher.subscribe(LIVE, label="x")
        other = publisher.subscribe(SubscribeRequest(JOBS, "a", index=1), label="other")
        match how:
            case "by its owner":
                subscription.unsubscribe()
            case "by token":
                publisher.close_subscriptions(["t"])
            case "by refresh":
                publisher.refresh(HEALTH)
            case "by lag":
                for _ in range(4):
                    store.commit(("web", "1"))
            case _:
                store.commit(finish=["web"])
        with pytest.raises((SubscriptionForceClosed, ClosedResourceError, EndOfSubject)):
            await subscription.receive()
        assert [each.label for each in publisher.subscriptions()] == ["other"]
        assert other.state is SubscriptionState.LIVE


async def test_after_the_stop_those_are_shown_who_still_read() -> None:
    """D5."""
    async with opened(index=1) as (store, publisher):
        reader, idle = publisher.subscribe(LIVE, label="reads"), publisher.subscribe(LIVE, label="idle")
        store.commit(("web", "1"))
        await idle.receive()
    await quiet()
    assert [(each.label, each.lag) for each in publisher.subscriptions()] == [("reads", 1)]
    assert kinds([await reader.receive()]) == ["2:web=1"]
    with pytest.raises(SubscriptionForceClosed):
        await reader.receive()
    assert list(publisher.subscriptions()) == []


async def test_each_is_made_when_it_is_asked_for() -> None:
    """D15: whoever looks at very many of them may let the loop go on between two; those who have left are left out."""
    async with opened(index=1) as (store, publisher):
        readers = {str(number): publisher.subscribe(LIVE, label=str(number)) for number in range(100)}
        shown: list[str] = []
        for info in publisher.subscriptions():
            shown.append(info.label)
            if len(shown) == 1:
                for label, each in readers.items():
                    if label != info.label:
                        each.unsubscribe()
                publisher.subscribe(LIVE, label="new")
                store.commit(("web", "1"))
            await anyio.lowlevel.checkpoint()
        assert len(shown) == len(set(shown))
        assert set(shown[1:]) <= {"new"}


async def test_an_iterator_that_is_not_read_keeps_no_subscription_open() -> None:
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        some = publisher.subscriptions()
        subscription.unsubscribe()
        assert list(some) == []
        assert publisher.statistics().subscriptions == 0


async def test_any_thread_may_look_while_the_loop_goes_on() -> None:
    """A monitor's thread: it sees what was there at some time, and nothing breaks."""
    seen: Counter[str] = Counter()
    failures: list[BaseException] = []
    done = threading.Event()

    def look() -> None:
        try:
            while not done.is_set():
                for info in publisher.subscriptions():
                    seen[info.label] += 1
                    assert info.lag >= 0
                    assert info.delivered >= 0
                totals = publisher.statistics()
                assert totals.commits >= 0
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    async with opened(index=1, history=8) as (store, publisher):
        publisher.subscribe(SubscribeRequest(HEALTH, index=1), label="stays", on_lag="reset")
        thread = threading.Thread(target=look)
        thread.start()
        try:
            for turn in range(300):
                readers = [
                    publisher.subscribe(LIVE.after(publisher.cursor), label="passes") for _ in range(10)
                ]
                store.commit(("web", f"{turn}"))
                for each in readers:
                    await each.receive()
                    each.unsubscribe()
        finally:
            done.set()
            await anyio.to_thread.run_sync(thread.join)
    assert not failures
    assert seen["stays"]


# The totals.


def opened_as(totals: PublisherStatistics) -> tuple[int, int, int, int]:
    """Subscriptions, by how they began: fresh, resumed, replayed, stale."""
    assert set(totals.opened) == {"fresh", "resumed", "replayed", "stale"}
    fresh, resumed, replayed, stale = map(
        totals.opened.__getitem__, ["fresh", "resumed", "replayed", "stale"]
    )
    return fresh, resumed, replayed, stale


def snapshots_of(totals: PublisherStatistics) -> tuple[int, int, int, int]:
    """Snapshots: run, shared, failed, cancelled."""
    assert set(totals.snapshots) == {"run", "shared", "failed", "cancelled"}
    run, shared, failed, cancelled = map(
        totals.snapshots.__getitem__, ["run", "shared", "failed", "cancelled"]
    )
    return run, shared, failed, cancelled


def ends_of(totals: PublisherStatistics) -> dict[str, int]:
    """Of those reasons for which there was an end."""
    assert set(totals.ends) == {"closed", "finished", *(reason.value for reason in CloseReason)}
    return {name: count for name, count in totals.ends.items() if count}


async def test_at_the_start_nothing_has_been_done() -> None:
    async with opened(index=5) as (_, publisher):
        totals = publisher.statistics()
        assert (totals.commits, totals.events, totals.deliveries) == (0, 0, 0)
        assert (totals.conflated, totals.withdrawn, totals.hidden) == (0, 0, 0)
        assert opened_as(totals) == snapshots_of(totals) == (0, 0, 0, 0)
        assert ends_of(totals) == {}


async def test_commits_and_events_are_counted_whoever_reads() -> None:
    """One with three events over two topics is one commit of three events; one of none is one of none."""
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "1"))
        publisher.publish([event(3, "web"), event(3, "db"), event(3, "a", topic=JOBS)])
        publisher.publish((), index=4)
        publisher.publish((), index=5, finish=[(HEALTH, "web")])
        publisher.publish(())
        publisher.close_subscriptions(["t"])
        with pytest.raises(ValueError, match="5"):
            publisher.publish([event(5, "db")])
        totals = publisher.statistics()
        assert (totals.commits, totals.events) == (4, 4)


async def test_deliveries_are_those_of_who_has_ended_and_of_who_is_there() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        readers = [publisher.subscribe(WEB) for _ in range(4)]
        for each in readers:
            await until_live(each)
        store.commit(("web", "2"), ("web", "3"))
        for each in readers[1:]:
            await each.receive_batch()
        readers[1].unsubscribe()
        publisher.close_subscriptions([""])
        late = publisher.subscribe(WEB)
        await late.receive()
        delivered = [each.statistics().delivered for each in [*readers, late]]
        assert delivered == [2, 3, 3, 3, 1]
        assert publisher.statistics().deliveries == sum(delivered)


async def test_framing_and_markers_are_deliveries_and_hidden_events_are_not() -> None:
    async with opened(epoch="e") as (store, publisher):
        store.commit(("web", "1"))
        stale = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch="x"))
        blind = publisher.subscribe(WEB, authorizer=frozenset())
        await quiet()
        store.commit(("web", "2"), ("web", "3"))
        assert kinds(ready(stale)) == ["marker", "1:web=1", "eos@1", "2:web=2+web=3"]
        assert kinds(ready(blind)) == ["eos@1"]
        totals = publisher.statistics()
        assert (totals.deliveries, totals.hidden, totals.withdrawn) == (5, 3, 0)
        blind.unsubscribe()
        assert publisher.statistics().hidden == 3


@pytest.mark.parametrize("how", ["by receive", "by batch", "by loop", "until current"])
async def test_however_it_is_read_as_much_was_delivered(how: str) -> None:
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(LIVE)
        for _ in range(150):
            store.commit(("web", "1"))
        match how:
            case "by receive":
                for _ in range(150):
                    await reader.receive()
            case "by batch":
                await reader.receive_batch()
            case "by loop":
                async for each in reader:
                    if each.index == 151:
                        break
            case _:
                await reader.receive_until_current()
        assert publisher.statistics().deliveries == 150
        reader.unsubscribe()
        assert publisher.statistics().deliveries == 150


async def test_subscriptions_are_counted_by_how_they_began() -> None:
    async with opened(epoch="e", history=2) as (store, publisher):
        for value in ("1", "2", "3", "4"):
            store.commit(("web", value))
        readers = [
            publisher.subscribe(WEB),
            publisher.subscribe(WEB),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=3)),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=4, epoch="e")),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=6, epoch="e")),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1)),
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=4, epoch="x")),
        ]
        await quiet()
        assert opened_as(publisher.statistics()) == (2, 3, 0, 2)
        for each in readers:
            each.unsubscribe()
        assert opened_as(publisher.statistics()) == (2, 3, 0, 2)


async def test_a_resume_is_counted_when_it_is_judged() -> None:
    """D7: until then nobody knows what it is."""
    async with opened(epoch="e", mark="m", index=1) as (_, publisher):
        right, wrong = (
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2, epoch="e", mark=mark))
            for mark in ("n", "x")
        )
        assert opened_as(publisher.statistics()) == (0, 0, 0, 0)
        publisher.publish([event(2, "web")], mark="n")
        await right.wait_ready()
        await wrong.receive()
        assert opened_as(publisher.statistics()) == (0, 1, 0, 1)


async def test_who_is_refused_has_not_begun() -> None:
    async with opened(index=1) as (_, publisher):
        with pytest.raises(ValueError, match="x"):
            publisher.subscribe(LIVE, on_lag="x")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="ALL"):
            publisher.subscribe(SubscribeRequest(HEALTH, namespace=ALL))
        assert opened_as(publisher.statistics()) == (0, 0, 0, 0)


async def test_snapshots_are_counted_that_were_run_and_that_were_shared() -> None:
    """D14: one run for the first, and four who share it; then one from the cache."""
    async with opened(index=1) as (_, publisher):
        readers = [publisher.subscribe(WEB) for _ in range(5)]
        for each in readers:
            await until_live(each)
        await until_live(publisher.subscribe(WEB))
        await until_live(publisher.subscribe(SubscribeRequest(HEALTH, "db")))
        assert snapshots_of(publisher.statistics()) == (2, 5, 0, 0)


async def test_snapshots_are_counted_that_failed_and_that_were_cancelled() -> None:
    async def failing(_: SubscribeRequest[Health], __: SnapshotAppender[Health]) -> int:
        raise OSError("disk")

    held = Held()
    async with open_publisher({HEALTH: failing, JOBS: held}, index=1) as publisher:
        failed = publisher.subscribe(WEB)
        with pytest.raises(SubscriptionForceClosed):
            await failed.receive()
        left = publisher.subscribe(SubscribeRequest(JOBS, "a"))
        await quiet()
        left.unsubscribe()
        await quiet()
        assert held.cancelled == 1
        assert snapshots_of(publisher.statistics()) == (2, 0, 1, 1)


async def test_ends_are_counted_by_their_reason() -> None:
    """D16: each is counted once, whatever is called after it."""

    async def failing(_: SubscribeRequest[Health], __: SnapshotAppender[Health]) -> int:
        raise OSError("disk")

    store = Catalogue(index=1, states={1: {}})
    async with open_publisher({HEALTH: store.snapshot, JOBS: failing}, index=1, history=2) as publisher:
        store.publisher = publisher

        def reader(key: str = "web", token: str = "") -> Subscription[Health]:
            return publisher.subscribe(
                SubscribeRequest(HEALTH, key, token=token, index=publisher.index, epoch=publisher.epoch)
            )

        async def ended(subscription: Subscription[Health]) -> None:
            for _ in range(2):
                with pytest.raises((SubscriptionForceClosed, ClosedResourceError, EndOfSubject)):
                    while True:
                        await subscription.receive()
            subscription.unsubscribe()

        for _ in range(2):
            own = reader()
            own.unsubscribe()
            await ended(own)
        revoked = [reader(token="t") for _ in range(3)]
        publisher.close_subscriptions(["t"])
        for each in revoked:
            await ended(each)
        await ended(publisher.subscribe(SubscribeRequest(JOBS, "a")))
        slow = reader()
        for _ in range(4):
            store.commit(("web", "1"))
        await ended(slow)
        finished = [reader("job") for _ in range(2)]
        store.commit(("job", "done"), finish=["job"])
        for each in finished:
            await ended(each)
        refreshed = reader()
        publisher.refresh(HEALTH)
        await ended(refreshed)
        last = reader("db")
    await quiet()
    await ended(last)
    assert ends_of(publisher.statistics()) == {
        "closed": 2,
        "token": 3,
        "snapshot-failed": 1,
        "lagged": 1,
        "finished": 2,
        "refresh": 1,
        "stopped": 1,
    }


@asynccontextmanager
async def much() -> AsyncIterator[tuple[EventPublisher, list[Subscription[Health]]]]:
    """A publisher over which very much has been done, by all kinds of readers, and these."""
    store = Catalogue()
    source = Source(store.snapshot, wide=True)
    async with open_publisher({HEALTH: source, JOBS: source}, history=4) as publisher:
        store.publisher = publisher
        requests = [WEB, SubscribeRequest(HEALTH), WEB | SubscribeRequest(JOBS, "a")]
        readers: list[Subscription[Health]] = []
        for turn in range(60):
            store.commit((["web", "db", "a"][turn % 3], f"{turn}"), topic=[HEALTH, JOBS][turn % 2])
            reader = publisher.subscribe(
                requests[turn % 3], on_lag="reset" if turn % 2 else "close", label=f"{turn}"
            )
            readers.append(reader)
            if turn % 5:
                await reader.receive_until_current()
            if turn % 4 == 0:
                reader.unsubscribe()
        yield publisher, readers


async def test_the_totals_add_up_with_what_is_shown() -> None:
    """As many ended as began, but for those who are there; and each of these has its deliveries in the total."""
    async with much() as (publisher, readers):
        totals = publisher.statistics()
        shown = list(publisher.subscriptions())
        assert sum(opened_as(totals)) == 60 == len(shown) + sum(ends_of(totals).values())
        assert publisher.statistics().subscriptions == len(shown)
        before = totals.deliveries
        there = sum(each.delivered for each in shown)
        assert 0 < there < before
    await quiet()
    after = publisher.statistics()
    still = list(publisher.subscriptions())
    assert sum(ends_of(after).values()) + len(still) == 60
    assert after.deliveries == before == sum(each.statistics().delivered for each in readers)


async def test_totals_only_grow() -> None:
    async with opened(index=1, history=2) as (store, publisher):
        before = publisher.statistics()
        for turn in range(20):
            reader = publisher.subscribe(WEB, on_lag="reset")
            store.commit(("web", f"{turn}"))
            if turn % 2:
                await reader.receive_until_current()
            if turn % 3:
                reader.unsubscribe()
            after = publisher.statistics()
            assert (after.commits, after.events) == (before.commits + 1, before.events + 1)
            assert after.deliveries >= before.deliveries
            assert sum(opened_as(after)) == sum(opened_as(before)) + 1
            before = after


async def test_a_refresh_forgets_no_totals() -> None:
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "1"))
        await until_live(publisher.subscribe(WEB))
        publisher.refresh(epoch="other")
        totals = publisher.statistics()
        assert (totals.commits, totals.deliveries, opened_as(totals)[0]) == (1, 2, 1)


async def test_what_was_conflated_is_counted_of_all_who_have_ended() -> None:
    source = Source(Catalogue().snapshot, row=lambda payload: payload.key)
    async with open_publisher({HEALTH: source}, index=1) as publisher:
        readers = [publisher.subscribe(LIVE, on_lag="conflate") for _ in range(3)]
        publisher.publish([event(2, "web", "1")])
        publisher.publish([event(3, "web", "2")])
        for reader in readers:
            (conflated,) = ready(reader)
            assert conflated.is_conflated
            reader.unsubscribe()
        assert publisher.statistics().conflated == 3


async def test_withdrawals_are_deliveries_and_counted_as_such() -> None:
    """D19."""
    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(LIVE, where=lambda each: each.value == "1")
        publisher.publish([Event(HEALTH, 2, Row("web", "1"))])
        publisher.publish([Event(HEALTH, 3, Row("web", "2"), previous=Row("web", "1"))])
        publisher.publish([Event(HEALTH, 4, Row("web", "3"), previous=Row("web", "2"))])
        assert kinds(ready(reader)) == ["2:web=1", "3:web=None"]
        totals, own = publisher.statistics(), reader.statistics()
        assert (totals.deliveries, totals.withdrawn, totals.hidden) == (2, 1, 1)
        assert (own.delivered, own.withdrawn, own.hidden) == (2, 1, 1)
        reader.unsubscribe()
        totals = publisher.statistics()
        assert (totals.deliveries, totals.withdrawn, totals.hidden) == (2, 1, 1)


class Row(Health):
    """One that says what it is when it is withdrawn."""

    @override
    def withdrawn(self) -> "Row":
        return Row(self.key, None)
