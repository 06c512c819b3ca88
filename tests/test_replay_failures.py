"""D6, D7, D21, R2: what is wrong with a replay is no end of its reader; what is there is read first."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, Health, State, apply, kinds, ready, until_live
from conflated import EVERY
from logged import EPOCH, Logged, after, filled, indexes, logged, until
from scenes import quiet, settled
from unions import BOTH

from trio_stream import (
    Cursor,
    Event,
    ReplayFunc,
    SnapshotAppender,
    Source,
    StaleCursorError,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    SubscriptionState,
    open_publisher,
)

pytestmark = pytest.mark.anyio

Appender = SnapshotAppender[Health]
Answer = Callable[[Logged, Cursor, Appender], Awaitable[Any]]


async def raises(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    raise LookupError("no log")


async def raises_a_group(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    raise ExceptionGroup("both", [LookupError("no log"), OSError("no disk")])


async def goes_backwards(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    return cursor.index - 1


async def stands_still(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    return cursor.index


async def stands_still_as_a_cursor(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    return cursor


async def returns_less_than_it_appended(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    for commit in store.log[cursor.index :][:3]:
        await appender.append(commit)
    return cursor.index + 1


async def returns_nothing(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    return None


async def returns_another_epoch(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    return Cursor(cursor.index + 3, "another")


async def appends_out_of_order(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    for commit in (0, 1, 0):
        await appender.append(store.log[cursor.index + commit])
    return cursor.index + 2


async def appends_one_commit_in_two_calls(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    for _ in range(2):
        await appender.append(store.log[cursor.index])
    return cursor.index + 1


async def appends_what_is_no_event(store: Logged, cursor: Cursor, appender: Appender) -> Any:
    await appender.append([1])  # type: ignore[list-item]
    return cursor.index + 1


ANSWERS: list[Answer] = [
    raises,
    raises_a_group,
    goes_backwards,
    stands_still,
    stands_still_as_a_cursor,
    returns_nothing,
    returns_another_epoch,
    appends_what_is_no_event,
]
AFTER_EVENTS: list[Answer] = [
    returns_less_than_it_appended,
    appends_out_of_order,
    appends_one_commit_in_two_calls,
]
wrong = pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
wrong_at_last = pytest.mark.parametrize("answer", AFTER_EVENTS, ids=lambda answer: answer.__name__)
wrong_in_any_way = pytest.mark.parametrize(
    "answer", [*ANSWERS, *AFTER_EVENTS], ids=lambda answer: answer.__name__
)


class Failing:
    """The replay function of a store, that gives this answer from this page on, counted from 0."""

    def __init__(self, store: Logged, answer: Answer, after_pages: int = 0) -> None:
        self.store = store
        self.answer = answer
        self.good = after_pages
        self.asked: list[int] = []

    async def __call__(self, request: SubscribeRequest[Health], cursor: Cursor, appender: Appender) -> Any:
        self.asked.append(cursor.index)
        if len(self.asked) <= self.good:
            return await self.store.replay(request, cursor, appender)
        return await self.answer(self.store, cursor, appender)


def whole(got: list[Event[Health]]) -> State:
    """What the events after the last marker, of which there is one, fold to."""
    markers = [each.is_new_snapshot_to_follow for each in got]
    assert markers.count(True) == 1
    state: State = {}
    for received in got[markers.index(True) :]:
        apply(state, received)
    return state


@wrong
@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_resume_that_is_not_accepted_is_stale(answer: Answer, on_lag: Any) -> None:
    """R2: marker and snapshot, with both."""
    store = filled(20)
    function = Failing(store, answer)
    async with logged(store, replay=function) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3), on_lag=on_lag)
        got: list[Event[Health]] = []
        while not (got and got[-1].is_end_of_snapshot):
            got.append(await subscription.receive())
        assert whole(got) == store.state_at(20, EVERY)
        store.commit(("a", "21"))
        assert kinds(ready(subscription)) == ["21:a=21"]
        assert subscription.state is SubscriptionState.LIVE
        assert kinds(got)[0] == "marker"


@wrong_at_last
async def test_a_resume_that_has_brought_events_is_accepted(answer: Answer) -> None:
    """R2, D7: what goes wrong then is the affair of `on_lag`."""
    store = filled(20)
    async with logged(store, replay=Failing(store, answer)) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        got: list[Event[Health]] = []
        with pytest.raises(SubscriptionLagged) as raised:
            while True:
                got.append(await subscription.receive())
        assert got
        assert indexes(got) == [*range(4, 4 + len(got))]
        assert raised.value.__cause__ is not None
        assert subscription.resume_request().index == got[-1].index


@wrong_in_any_way
async def test_a_live_reader_with_close_gets_lagged_and_why(answer: Answer) -> None:
    """R2, D16: it stands where it stood, and what was wrong is the cause."""
    store = Logged()
    function = Failing(store, answer)
    async with logged(store, replay=function) as (_, publisher):
        store.commit(("a", "1"))
        subscription = publisher.subscribe(EVERY)
        await until_live(subscription)
        store.fill(20)
        got: list[Event[Health]] = []
        with pytest.raises(SubscriptionLagged) as raised:
            while True:
                got.append(await subscription.receive())
        assert indexes(got) == [*range(2, 2 + len(got))]
        assert raised.value.index == subscription.index == 1 + len(got)
        assert raised.value.__cause__ is not None
        if answer is raises:
            assert str(raised.value.__cause__) == "no log"
        with pytest.raises(SubscriptionLagged):
            await subscription.receive()
        assert subscription.resume_request().index == subscription.index


@wrong_in_any_way
async def test_a_live_reader_with_reset_gets_marker_and_snapshot(answer: Answer) -> None:
    """R2, D21."""
    store = Logged()
    async with logged(store, replay=Failing(store, answer)) as (_, publisher):
        store.commit(("a", "1"))
        subscription = publisher.subscribe(EVERY, on_lag="reset")
        await until_live(subscription)
        store.fill(20)
        got: list[Event[Health]] = []
        while not (got and got[-1].is_end_of_snapshot):
            got.append(await subscription.receive())
        assert whole(got) == store.state_at(21, EVERY)
        store.commit(("a", "22"))
        assert kinds(ready(subscription)) == ["22:a=22"]


@pytest.mark.parametrize("answer", [raises, stands_still], ids=lambda answer: answer.__name__)
async def test_what_was_read_before_it_failed_is_received_first(answer: Answer) -> None:
    """R2: two pages are good; then the reader is live, and `on_lag` says what it gets."""
    store = filled(20, copy="a")
    for on_lag in ("close", "reset"):
        async with logged(store, replay=Failing(store, answer, after_pages=2)) as (_, publisher):
            subscription = publisher.subscribe(after(store, 3), on_lag=on_lag)
            assert indexes(await until(subscription, 9)) == [*range(4, 10)]
            if on_lag == "close":
                with pytest.raises(SubscriptionLagged) as raised:
                    await subscription.receive()
                assert raised.value.index == 9
                assert subscription.resume_request() == after(store, 9)
            else:
                got = [await subscription.receive(), *await until_live(subscription)]
                assert kinds(got)[0] == "marker"
                assert whole(got) == store.state_at(20, EVERY)


async def test_what_a_page_had_when_it_failed_is_received_first() -> None:
    """R2: in the midst of it."""

    async def in_the_midst(store: Logged, cursor: Cursor, appender: Appender) -> Any:
        for commit in store.log[cursor.index :][:2]:
            await appender.append(commit)
        await quiet()
        raise LookupError("no log")

    store = filled(20)
    async with logged(store, replay=Failing(store, in_the_midst)) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await quiet()
        assert kinds([await subscription.receive(), await subscription.receive()]) == ["4:b=4", "5:c=5"]
        with pytest.raises(SubscriptionLagged) as raised:
            await subscription.receive()
        assert isinstance(raised.value.__cause__, LookupError)
        assert raised.value.index == 5


async def test_a_cursor_that_the_log_does_not_reach_is_stale() -> None:
    """D6, D7: that is no failure, and nothing is logged."""
    async with logged(filled(20, floor=5)) as (store, publisher):
        for on_lag in ("close", "reset"):
            subscription = publisher.subscribe(after(store, 3), on_lag=on_lag)
            got = [await subscription.receive(), *await until_live(subscription)]
            assert kinds(got)[0] == "marker"
            assert whole(got) == store.state_at(20, EVERY)
        assert indexes(await until(publisher.subscribe(after(store, 5)), 20)) == [*range(6, 21)]


async def test_a_log_that_forgets_while_it_is_read_is_told() -> None:
    """D6: compacted between two pages."""
    for on_lag in ("close", "reset"):
        store = filled(20)
        async with logged(store) as (_, publisher):
            subscription = publisher.subscribe(after(store, 3), on_lag=on_lag)
            got = [await subscription.receive()]
            store.floor = 19
            try:
                while not got[-1].is_end_of_snapshot:
                    got.append(await subscription.receive())
                marker = kinds(got).index("marker")
                assert whole(got) == store.state_at(20, EVERY)
            except SubscriptionLagged as lagged:
                assert on_lag == "close"
                assert isinstance(lagged.__cause__, StaleCursorError)
                marker = len(got)
            assert indexes(got[:marker]) == [*range(4, 4 + marker)]


async def test_a_failure_concerns_those_only_who_waited_for_it() -> None:
    """D10: not the publisher, not who is live, not who comes next."""
    store = filled(20)
    fails = True

    async def sometimes(request: SubscribeRequest[Health], cursor: Cursor, appender: Appender) -> Any:
        if fails:
            raise LookupError("no log")
        return await store.replay(request, cursor, appender)

    async with logged(store, replay=sometimes) as (_, publisher):
        beside = publisher.subscribe(after(store, 20))
        first = publisher.subscribe(after(store, 3))
        assert await settled(first) == ["marker"]
        fails = False
        second = publisher.subscribe(after(store, 3))
        assert indexes(await until(second, 20)) == [*range(4, 21)]
        store.commit(("a", "21"))
        assert kinds(ready(beside)) == ["21:a=21"]


async def test_all_who_share_a_page_that_fails_are_told() -> None:
    store = filled(20)
    async with logged(store, replay=Failing(store, raises)) as (_, publisher):
        readers = [publisher.subscribe(after(store, 3)) for _ in range(3)]
        for each in readers:
            assert (await each.receive()).is_new_snapshot_to_follow
            await until_live(each)
        assert store.runs == 1


async def test_after_a_failure_a_slow_reader_is_replayed_again() -> None:
    """R2: the next time it falls off."""
    store = Logged()
    fails = True

    async def sometimes(request: SubscribeRequest[Health], cursor: Cursor, appender: Appender) -> Any:
        if fails:
            raise LookupError("no log")
        return await store.replay(request, cursor, appender)

    async with logged(store, replay=sometimes) as (_, publisher):
        store.commit(("a", "1"))
        subscription = publisher.subscribe(EVERY, on_lag="reset")
        await until_live(subscription)
        store.fill(20)
        assert (await subscription.receive()).is_new_snapshot_to_follow
        await until_live(subscription)
        fails = False
        store.fill(20)
        assert indexes(await until(subscription, 41)) == [*range(22, 42)]


async def test_a_function_that_is_not_async_has_failed() -> None:
    """D18: as a snapshot function that is not."""

    def no_function(request: Any, cursor: Any, appender: Any) -> Any:
        return 20

    async with logged(filled(20), replay=no_function) as (store, publisher):
        assert (await publisher.subscribe(after(store, 3)).receive()).is_new_snapshot_to_follow


async def test_what_is_no_function_is_no_replay() -> None:
    """D18: refused where it is given."""
    for given in ("text", 1, True):
        with pytest.raises(TypeError, match="async function"):
            async with open_publisher({HEALTH: Source(Logged().snapshot, replay=given)}):  # type: ignore[arg-type]
                raise AssertionError("it was taken")


async def test_an_error_of_a_function_that_is_cancelled_is_dropped() -> None:
    """D13: nobody waits for it."""

    async def stubborn(store: Logged, cursor: Cursor, appender: Appender) -> Any:
        try:
            await anyio.sleep_forever()
        finally:
            raise LookupError("in the way")

    store = filled(20)
    async with logged(store, replay=Failing(store, stubborn)) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await quiet()
        subscription.close()
        await quiet()
        store.commit(("a", "21"))
        assert publisher.index == 21


async def test_what_a_function_appends_when_it_has_returned_is_refused() -> None:
    appenders: list[Appender] = []

    async def keeps(store: Logged, cursor: Cursor, appender: Appender) -> Any:
        appenders.append(appender)
        return 20

    store = filled(20)
    async with logged(store, replay=Failing(store, keeps)) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await subscription.wait_ready()
        with pytest.raises(anyio.ClosedResourceError):
            await appenders[0].append(store.log[5])
        assert ready(subscription) == []


async def test_append_says_that_nobody_reads_any_more() -> None:
    """D13: for a function that does not notice that it is cancelled."""
    answers: list[bool] = []

    async def shielded(store: Logged, cursor: Cursor, appender: Appender) -> Any:
        with anyio.CancelScope(shield=True):
            answers.append(await appender.append(store.log[cursor.index]))
            await store.gates[0].wait()
            answers.append(await appender.append(store.log[cursor.index + 1]))
        return cursor.index + 2

    store = filled(20)
    gate = store.hold()
    async with logged(store, replay=Failing(store, shielded)) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3))
        await quiet()
        subscription.close()
        gate.set()
        await quiet()
        assert answers == [True, False]


async def test_what_goes_wrong_is_logged_but_not_each_time(caplog: pytest.LogCaptureFixture) -> None:
    """A warning of `trio_stream.replay`, without what a payload says; not one for each reader."""
    store = filled(20)
    with caplog.at_level(logging.DEBUG, "trio_stream.replay"):
        async with logged(store, replay=Failing(store, raises)) as (_, publisher):
            for index in range(1, 19):
                subscription = publisher.subscribe(after(store, index))
                await subscription.receive()
                subscription.close()
    records = [each for each in caplog.records if each.name == "trio_stream.replay"]
    assert 1 <= len(records) < 18
    assert {each.levelno for each in records} == {logging.WARNING}
    assert {each.getMessage() for each in records} == {"a replay of topic health has failed: LookupError"}


async def test_a_cursor_that_is_stale_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "trio_stream.replay"):
        async with logged(filled(20, floor=5)) as (store, publisher):
            await publisher.subscribe(after(store, 3)).receive()
    assert [each for each in caplog.records if each.name == "trio_stream.replay"] == []


async def test_a_union_whose_replay_fails_is_stale_for_all_of_it() -> None:
    """D22, R2."""
    store = filled(20)
    async with logged(store, replay=Failing(store, raises)) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3, BOTH))
        got = [await subscription.receive(), *await until_live(subscription)]
        assert kinds(got)[0] == "marker"
        assert whole(got) == store.state_at(20, EVERY)


async def test_a_failing_replay_and_a_failing_snapshot_are_the_end() -> None:
    """D16: SNAPSHOT_FAILED, with its own cause."""

    async def failing(request: SubscribeRequest[Health], snapshot: Appender) -> int:
        raise OSError("no disk")

    store = filled(20)
    sources = {HEALTH: Source(failing, replay=_as_func(Failing(store, raises)))}
    async with open_publisher(sources, index=20, history=4, epoch=EPOCH) as publisher:
        subscription: Subscription[Health] = publisher.subscribe(after(store, 3))
        assert (await subscription.receive()).is_new_snapshot_to_follow
        with pytest.raises(anyio.BrokenResourceError) as raised:
            await subscription.receive()
        assert isinstance(raised.value.__cause__, OSError)


def _as_func(failing: Failing) -> ReplayFunc[Health]:
    return failing


@pytest.mark.parametrize("is_of_one_topic", [False, True])
async def test_a_replay_that_a_refresh_overtakes_is_not_logged_as_one_that_has_failed(
    caplog: pytest.LogCaptureFixture, is_of_one_topic: bool
) -> None:
    """Its readers have been ended, although there are so many that not all of them have let go of it yet."""
    store = filled(20)

    async def refreshed(store: Logged, cursor: Cursor, appender: Appender) -> Any:
        await store.gates[0].wait()
        if is_of_one_topic:
            publisher.refresh(HEALTH)
        else:
            publisher.refresh(index=20, epoch="another")
        return cursor

    gate = store.hold()
    with caplog.at_level(logging.DEBUG, "trio_stream.replay"):
        async with logged(store, replay=Failing(store, refreshed)) as (_, publisher):
            readers = [publisher.subscribe(after(store, 3)) for _ in range(1000)]
            await quiet()
            gate.set()
            await quiet()
            assert {each.statistics().state for each in readers} == {SubscriptionState.FORCE_CLOSED}
    assert [each.getMessage() for each in caplog.records if each.name == "trio_stream.replay"] == []
