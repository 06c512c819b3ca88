"""D5: a subject that was finished and is reopened: who read it ends, who comes now goes on, and nothing is lost."""

import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from conflated import by_subject
from finishes import LIVE, Receive, receives, to_the_end
from logged import Logged, caught_up, logged
from marked import EPOCH, marked
from scenes import WEB, Heavy, Held, opened, quiet, settled
from stretches import stretches

from trio_stream import (
    ALL,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    InvalidCommitError,
    NoOpEventPublisher,
    SnapshotAppender,
    Source,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    SubscriptionState,
    UnknownTopicError,
    WouldBlock,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

DB = SubscribeRequest(HEALTH, "db")
PAIR = WEB | DB


@asynccontextmanager
async def reopened(
    request: SubscribeRequest[Health] = LIVE, **options: Any
) -> AsyncIterator[tuple[Catalogue, EventPublisher, Subscription[Health]]]:
    """`web` has events at 2 and 3, is finished by 3, reopened by 4, and has events at 4 and 6; a reader from before."""
    async with opened(index=1, epoch="e", **options) as (store, publisher):
        reader = publisher.subscribe(request)
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("web", None), reopen=["web"])
        store.commit(("db", "x"))
        store.commit(("web", "3"))
        yield store, publisher, reader


# Who read it before.


@receives
async def test_who_read_it_gets_all_up_to_the_finish_and_then_the_end(receive: Receive) -> None:
    """D5, D17: whatever was published meanwhile."""
    async with reopened() as (_, _, reader):
        assert await to_the_end(reader, receive) == (["2:web=1", "3:web=2"], 3)


@receives
async def test_who_has_read_half_of_it_ends_there_too(receive: Receive) -> None:
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(LIVE)
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        assert kinds([await reader.receive()]) == ["2:web=1"]
        store.commit(finish=["web"])
        store.commit(("web", "3"), reopen=["web"])
        assert await to_the_end(reader, receive) == (["3:web=2"], 4)


async def test_who_waits_while_the_finish_and_the_reopening_come_in_one_tick_is_told_of_the_end() -> None:
    """D17: each of very many."""
    ended: list[int] = []

    async def wait(reader: Subscription[Health]) -> None:
        with pytest.raises(EndOfSubject) as end:
            await reader.receive()
        ended.append(end.value.index)

    async with opened(index=1) as (store, publisher), anyio.create_task_group() as tasks:
        for _ in range(300):
            tasks.start_soon(wait, publisher.subscribe(LIVE))
        await quiet()
        store.commit(finish=["web"])
        store.commit(("web", "1"), reopen=["web"])
        await quiet()
        assert ended == [2] * 300


async def test_a_loop_stops_at_the_finish() -> None:
    async with reopened() as (_, _, reader):
        assert kinds([each async for each in reader]) == ["2:web=1", "3:web=2"]


async def test_who_reads_a_snapshot_from_before_ends_behind_it() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        reader = publisher.subscribe(WEB)
        await quiet()
        store.commit(("web", "2"), finish=["web"])
        store.commit(("web", "3"), reopen=["web"])
        assert await to_the_end(reader) == (["1:web=1", "eos@1", "2:web=2"], 2)


async def test_before_the_end_was_received_the_cursor_stands_where_nothing_is_lost() -> None:
    """D7: at the finish, and not at the newest index."""
    async with reopened() as (_, publisher, reader):
        await reader.receive_batch()
        assert (reader.horizon, reader.cursor, reader.state) == (3, Cursor(3, "e"), SubscriptionState.LIVE)
        again = publisher.subscribe(reader.resume_request())
        assert kinds(ready(again)) == ["4:web=None", "6:web=3"]
        assert await to_the_end(reader) == ([], 3)
        again = publisher.subscribe(reader.resume_request())
        assert kinds(ready(again)) == ["4:web=None", "6:web=3"]


async def test_a_token_and_a_refresh_overtake_the_end() -> None:
    """D9."""
    async with reopened() as (_, publisher, reader):
        publisher.publish([close_subscription_event(["t"])])
        with pytest.raises(SubscriptionForceClosed) as closed:
            await reader.receive()
        assert closed.value.reason is CloseReason.TOKEN
    async with reopened() as (_, publisher, reader):
        publisher.refresh(HEALTH)
        with pytest.raises(SubscriptionForceClosed) as closed:
            await reader.receive()
        assert closed.value.reason is CloseReason.REFRESH


@receives
async def test_after_the_stop_who_read_it_ends_and_who_came_since_is_stopped(receive: Receive) -> None:
    """D5."""
    async with reopened() as (_, publisher, reader):
        since = publisher.subscribe(LIVE.after(Cursor(4, "e")))
    assert await to_the_end(reader, receive) == (["2:web=1", "3:web=2"], 3)
    assert kinds([await since.receive()]) == ["6:web=3"]
    with pytest.raises(SubscriptionForceClosed) as stopped:
        await since.receive()
    assert stopped.value.reason is CloseReason.STOPPED
    assert publisher.statistics().subscriptions == 0


async def test_with_rights_and_conflated_it_ends_too() -> None:
    """D19, D21."""
    store = Catalogue(index=1, states={1: {}})
    source = Source(store.snapshot, row=by_subject)
    async with open_publisher({HEALTH: source}, index=1) as store.publisher:
        conflating, choosy, both = (
            store.publisher.subscribe(LIVE, where=where, on_lag=on_lag)  # type: ignore[arg-type]
            for where, on_lag in [
                (None, "conflate"),
                (lambda each: each.value != "2", "close"),
                (lambda each: each.value != "2", "conflate"),
            ]
        )
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("web", "3"), reopen=["web"])
        assert await to_the_end(conflating) == (["3:web=2"], 3)
        assert await to_the_end(choosy) == (["2:web=1"], 3)
        await to_the_end(both)
        assert both.index == 3
        again = store.publisher.subscribe(LIVE, on_lag="conflate")
        assert kinds(ready(again)) == ["4:web=3"]


# Who comes now.


async def test_a_fresh_reader_goes_on_behind_its_snapshot() -> None:
    async with reopened() as (store, publisher, _):
        fresh = publisher.subscribe(WEB)
        assert await settled(fresh) == ["6:web=3", "eos@6"]
        store.commit(("web", "4"))
        assert kinds(ready(fresh)) == ["7:web=4"]


@receives
@pytest.mark.parametrize("index", range(1, 7))
async def test_a_resume_gets_every_later_commit_once(receive: Receive, index: int) -> None:
    """D3, D7: from before the finish, at it, behind it, and behind the reopening."""
    async with reopened() as (store, publisher, _):
        resumed = publisher.subscribe(LIVE.after(Cursor(index, "e")))
        store.commit(("web", "last"), finish=["web"])
        events = {2: "web=1", 3: "web=2", 4: "web=None", 6: "web=3", 7: "web=last"}
        expected = [f"{at}:{value}" for at, value in events.items() if at > index]
        assert await to_the_end(resumed, receive) == (expected, 7)


async def test_without_events_a_reopening_is_one_too() -> None:
    async with opened(index=1) as (store, publisher):
        store.commit(finish=["web"])
        assert store.commit(reopen=["web"]) == 3
        fresh, resumed = publisher.subscribe(WEB), publisher.subscribe(LIVE)
        store.commit(("web", "1"))
        assert await settled(fresh) == ["4:web=1", "eos@4"]
        assert kinds(ready(resumed)) == ["4:web=1"]


async def test_it_can_be_finished_and_reopened_again_and_again() -> None:
    """Each reader ends where it was finished next."""
    async with opened(index=1, epoch="e") as (store, publisher):
        readers: list[Subscription[Health]] = []
        for _ in range(4):
            readers.append(publisher.subscribe(LIVE.after(Cursor(store.index, "e"))))
            store.commit(("web", "a"))
            store.commit(("web", "b"), finish=["web"])
            store.commit(("web", None), reopen=["web"])
        live = publisher.subscribe(LIVE.after(Cursor(store.index, "e")))
        for number, reader in enumerate(readers):
            at = 2 + 3 * number
            assert await to_the_end(reader) == ([f"{at}:web=a", f"{at + 1}:web=b"], at + 1)
        resumed = publisher.subscribe(LIVE)
        assert [each.index for each in ready(resumed)] == list(range(2, 14))
        store.commit(("web", "c"))
        assert kinds(ready(live)) == ["14:web=c"]


async def test_one_commit_can_reopen_change_and_finish() -> None:
    """D4: in this order."""
    async with opened(index=1, epoch="e") as (store, publisher):
        first = publisher.subscribe(LIVE)
        store.commit(("web", "1"), finish=["web"])
        at_finish = publisher.subscribe(LIVE.after(Cursor(2, "e")))
        store.commit(("web", None), ("web", "2"), reopen=["web"], finish=["web"])
        again = publisher.subscribe(LIVE.after(Cursor(2, "e")))
        assert await to_the_end(first) == (["2:web=1"], 2)
        assert await to_the_end(at_finish) == ([], 2)
        assert await to_the_end(again) == (["3:web=None+web=2"], 3)
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(4, "web")])


async def test_what_is_not_finished_just_goes_on() -> None:
    async with opened(index=1) as (store, publisher):
        reader, fresh = publisher.subscribe(LIVE), publisher.subscribe(WEB)
        await until_live(fresh)
        store.commit(("web", "1"), reopen=["web", "ghost"])
        store.commit(reopen=["web"])
        store.commit(("web", "2"))
        assert kinds(ready(reader)) == kinds(ready(fresh)) == ["2:web=1", "4:web=2"]


async def test_by_its_subject_and_from_a_thread_and_of_other_topics() -> None:
    async with opened(index=1) as (_, publisher):
        other = publisher.subscribe(SubscribeRequest(JOBS, "web", index=1))
        elsewhere = publisher.subscribe(SubscribeRequest(HEALTH, "web", namespace="prod", index=1))
        prod = Subject("web", "prod")
        publisher.publish((), index=2, finish=[(HEALTH, "web"), (JOBS, "web"), (HEALTH, prod)])
        await anyio.to_thread.run_sync(
            lambda: publisher.publish_from_thread((), index=3, reopen=iter([(HEALTH, prod), (HEALTH, prod)]))
        )
        publisher.publish([event(4, "web", namespace="prod")])
        for key, topic in [("web", HEALTH), ("web", JOBS)]:
            with pytest.raises(InvalidCommitError):
                publisher.publish([event(5, key, topic=topic)])
        assert await to_the_end(elsewhere) == ([], 2)
        assert await to_the_end(other) == ([], 2)


# Snapshots.


class Archive(Catalogue):
    """Its snapshot function says which keys are finished. `gate` holds it behind what it has read."""

    def __init__(self) -> None:
        super().__init__(index=1, states={1: {}})
        self.finished: set[str] = set()
        self.gate: anyio.Event | None = None

    async def archived(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        is_finished, gate = request.key in self.finished, self.gate
        index = await self.snapshot(request, snapshot)
        if gate is not None:
            await gate.wait()
        if is_finished:
            snapshot.finish()
        return index


@asynccontextmanager
async def archived(**options: Any) -> AsyncIterator[tuple[Archive, EventPublisher]]:
    store = Archive()
    source = Source(store.archived, finishes=True)
    async with open_publisher({HEALTH: source, JOBS: source}, index=1, epoch="e", **options) as publisher:
        store.publisher = publisher
        yield store, publisher


async def test_a_cached_snapshot_that_says_finished_is_not_served_any_more() -> None:
    """D8, D14: nobody reads it, and no publish has said that it is finished."""
    async with archived() as (store, publisher):
        store.finished.add("web")
        for _ in range(2):
            assert await to_the_end(publisher.subscribe(WEB)) == (["eos@1"], 1)
        assert store.runs == 1
        store.finished.clear()
        store.commit(("web", "1"), reopen=["web"])
        fresh = publisher.subscribe(WEB)
        assert await settled(fresh) == ["2:web=1", "eos@2"]
        store.commit(("web", "2"))
        assert kinds(ready(fresh)) == ["3:web=2"]
        assert store.runs == 2


async def test_a_cached_snapshot_that_does_not_say_so_is_served_and_leads_on() -> None:
    """D8, D14."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        await until_live(publisher.subscribe(WEB))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("web", None), reopen=["web"])
        store.commit(("web", "3"))
        late = publisher.subscribe(WEB)
        assert kinds(ready(late)) == ["1:web=1", "eos@1", "2:web=2", "3:web=None", "4:web=3"]
        assert store.runs == 1


async def test_a_cached_snapshot_from_ahead_that_says_finished_knows_better() -> None:
    """D2: it was reopened, and finished again, before that."""
    async with archived() as (store, publisher):
        store.publisher = None
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        store.finished.add("web")
        assert await to_the_end(publisher.subscribe(WEB)) == (["3:web=2", "eos@3"], 3)
        publisher.publish([event(2, "web", "1")], reopen=[(HEALTH, "web")])
        assert await to_the_end(publisher.subscribe(WEB)) == (["3:web=2", "eos@3"], 3)
        assert store.runs == 1


@pytest.mark.parametrize("published", [False, True])
async def test_who_reads_a_snapshot_that_says_finished_ends_and_nobody_else(published: bool) -> None:
    """D17: it does not depend on how fast it is read."""
    async with archived() as (store, publisher):
        store.commit(("web", "1"), finish=["web"] if published else [])
        store.finished.add("web")
        slow = publisher.subscribe(WEB)
        await quiet()
        store.finished.clear()
        store.commit(("web", None), reopen=["web"])
        resumed = publisher.subscribe(LIVE.after(Cursor(2, "e")))
        fresh = publisher.subscribe(WEB)
        assert await to_the_end(slow) == (["2:web=1", "eos@2"], 2)
        assert kinds(ready(resumed)) == ["3:web=None"]
        assert await settled(fresh) == ["eos@3"]
        store.commit(("web", "2"))
        assert kinds(ready(resumed)) == kinds(ready(fresh)) == ["4:web=2"]


@pytest.mark.parametrize("published", [False, True])
async def test_a_snapshot_that_is_being_made_is_for_those_who_have_asked_for_it(published: bool) -> None:
    """D14: who comes now gets another, and goes on."""
    async with archived() as (store, publisher):
        store.commit(("web", "1"), finish=["web"] if published else [])
        store.finished.add("web")
        store.gate = gate = anyio.Event()
        slow = publisher.subscribe(WEB)
        await quiet()
        store.finished.clear()
        store.gate = None
        store.commit(("web", None), reopen=["web"])
        fresh = publisher.subscribe(WEB)
        assert await settled(fresh) == ["eos@3"]
        gate.set()
        assert await to_the_end(slow) == (["2:web=1", "eos@2"], 2)
        third = publisher.subscribe(WEB)
        assert kinds(ready(third)) == ["eos@3"]
        assert store.runs == 2
        store.commit(("web", "2"))
        assert kinds(ready(fresh)) == kinds(ready(third)) == ["4:web=2"]


@receives
@pytest.mark.parametrize("conflates", [False, True])
@pytest.mark.parametrize("history", [100, 3])
async def test_who_is_handed_a_snapshot_from_after_the_reopening_goes_on(
    receive: Receive, conflates: bool, history: int
) -> None:
    """D1: it came before, and its snapshot is newer; what comes next is for it."""
    store, go = Catalogue(index=1, states={1: {}}), anyio.Event()

    async def late(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await go.wait()
        return await store.snapshot(request, snapshot)

    source = Source(late, row=by_subject)
    async with open_publisher({HEALTH: source}, index=1, history=history) as store.publisher:
        store.commit(("web", "1"), finish=["web"])
        reader = store.publisher.subscribe(WEB, on_lag="conflate" if conflates else "close")
        await quiet()
        store.commit(("web", "2"), reopen=["web"])
        go.set()
        await quiet()
        store.commit(("web", "3"))
        store.commit(("web", "4"), finish=["web"])
        got, index = await to_the_end(reader, receive)
        if conflates and "5:web=4" not in got:
            assert got[-1] == "5:web=3+web=4"
        elif conflates:
            assert got in (["3:web=2", "eos@3", "5:web=4"], ["3:web=2", "eos@3", "4:web=3", "5:web=4"])
        else:
            assert got == ["3:web=2", "eos@3", "4:web=3", "5:web=4"]
        assert index == 5


async def test_what_is_read_until_now_is_all_of_it_also_behind_the_reopening() -> None:
    async with opened(held := Held(), index=1) as (store, publisher):
        store.commit(finish=["web"])
        reader = publisher.subscribe(WEB)
        store.commit(("web", "2"), reopen=["web"])
        held.store = store
        held.go.set()
        await quiet()
        store.commit(("web", "3"))
        assert kinds(await reader.receive_until_current()) == ["3:web=2", "eos@3", "4:web=3"]
        store.commit(("web", "4"))
        assert kinds(await reader.receive_until_current()) == ["5:web=4"]
        assert reader.horizon == 5


async def test_a_reader_behind_the_reopening_stands_where_its_snapshot_was_until_it_reads_on() -> None:
    """D7: its horizon is not past what it has not had."""
    async with opened(held := Held(), index=1) as (store, publisher):
        store.commit(finish=["web"])
        reader = publisher.subscribe(WEB)
        store.commit(("web", "2"), reopen=["web"])
        held.store = store
        held.go.set()
        assert kinds(await until_live(reader)) == ["3:web=2", "eos@3"]
        store.commit(("web", "3"))
        assert (reader.horizon, reader.cursor.index) == (3, 3)
        assert kinds(ready(publisher.subscribe(reader.resume_request()))) == ["4:web=3"]
        assert kinds([await reader.receive()]) == ["4:web=3"]
        assert reader.horizon == 4


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_who_is_behind_the_reopening_and_is_passed_by_the_history_has_fallen_off(on_lag: Any) -> None:
    """D6, D21."""
    async with opened(held := Held(), index=1, history=2) as (store, publisher):
        store.commit(finish=["web"])
        reader = publisher.subscribe(WEB, on_lag=on_lag)
        store.commit(("web", "2"), reopen=["web"])
        held.store = store
        held.go.set()
        await quiet()
        for value in "3456":
            store.commit(("web", value))
        held.store = store
        if on_lag == "close":
            with pytest.raises(SubscriptionLagged):
                while True:
                    await reader.receive()
            return
        got: list[str] = []
        while "eos@7" not in got:
            got += kinds(await reader.receive_batch())
        assert got[-3:] == ["marker", "7:web=6", "eos@7"]
        store.commit(("web", "7"))
        assert kinds(ready(reader)) == ["8:web=7"]


async def test_who_is_behind_a_reopening_of_which_the_history_has_nothing_has_fallen_off() -> None:
    """D6."""
    async with opened(held := Held(), index=1, history=2) as (store, publisher):
        store.commit(finish=["web"])
        reader = publisher.subscribe(WEB)
        store.commit(("web", "2"), reopen=["web"])
        held.store = store
        held.go.set()
        assert kinds(await until_live(reader)) == ["3:web=2", "eos@3"]
        store.commit(("web", "3"))
        for value in "4567":
            store.commit(("db", value))
        with pytest.raises(SubscriptionLagged):
            await reader.receive()


async def test_after_the_stop_who_is_behind_the_reopening_is_told_no_more_than_it_has_had() -> None:
    """D5, D6: its cursor stands at its snapshot."""
    async with opened(held := Held(), index=1, epoch="e") as (store, publisher):
        store.commit(finish=["web"])
        reader = publisher.subscribe(WEB)
        store.commit(("web", "2"), reopen=["web"])
        held.store = store
        held.go.set()
        await quiet()
        store.commit(("web", "3"))
    assert kinds(await until_live(reader)) == ["3:web=2", "eos@3"]
    with pytest.raises(SubscriptionForceClosed) as stopped:
        await reader.receive()
    assert (stopped.value.reason, reader.cursor.index) == (CloseReason.STOPPED, 3)


@pytest.mark.parametrize("again", [False, True])
async def test_a_snapshot_from_after_the_reopening_may_say_that_it_is_finished_again(again: bool) -> None:
    """D2, D5: ahead of what is published, or not."""
    async with archived() as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        store.gate = gate = anyio.Event()
        reader = publisher.subscribe(WEB)
        if again:
            store.commit(("web", "2"), reopen=["web"], finish=["web"])
        else:
            publisher.publish((), index=3, reopen=[(HEALTH, "web")])
            store.index = 3
            store.states[3] = store.states[2]
        store.finished.add("web")
        await quiet()
        gate.set()
        assert (await to_the_end(reader))[1] == 3


# Unions, and whoever reads more.


async def test_a_union_follows_a_key_again() -> None:
    """D22: it is finished when all of its keys are, whenever they were reopened."""
    async with opened(index=1, epoch="e") as (store, publisher):
        reader = publisher.subscribe(PAIR.after(Cursor(1, "e")))
        store.commit(("web", "1"), finish=["web"])
        store.commit(("web", "2"), reopen=["web"])
        store.commit(("db", "3"), finish=["db"])
        store.commit(("web", "4"))
        assert kinds(ready(reader)) == ["2:web=1", "3:web=2", "4:db=3", "5:web=4"]
        assert reader.state is SubscriptionState.LIVE
        store.commit(finish=["web"])
        assert await to_the_end(reader) == ([], 6)


@receives
async def test_a_union_that_was_finished_ends_and_another_goes_on(receive: Receive) -> None:
    """D5, D17, D22."""
    async with opened(index=1, epoch="e") as (store, publisher):
        first = publisher.subscribe(PAIR.after(Cursor(1, "e")))
        store.commit(("web", "1"), finish=["web"])
        store.commit(("db", "2"), finish=["db"])
        store.commit(("web", "3"), reopen=["web", "db"])
        store.commit(("db", "4"))
        fresh = publisher.subscribe(PAIR)
        resumed = [publisher.subscribe(PAIR.after(Cursor(index, "e"))) for index in range(1, 6)]
        assert await to_the_end(first, receive) == (["2:web=1", "3:db=2"], 3)
        every = ["2:web=1", "3:db=2", "4:web=3", "5:db=4"]
        for index, each in enumerate(resumed, 1):
            assert await settled(each) == every[index - 1 :]
        assert sorted(await settled(fresh)) == ["4:web=3", "5:db=4", "eos@5"]
        store.commit(finish=["web"])
        store.commit(finish=["db"])
        for each in (*resumed, fresh):
            assert await to_the_end(each, receive) == ([], 7)
        assert publisher.statistics().subscriptions == 0


async def test_a_union_that_came_when_a_key_was_finished_follows_it_again() -> None:
    async with opened(index=1, epoch="e") as (store, publisher):
        store.commit(finish=["web"])
        reader = publisher.subscribe(PAIR.after(Cursor(2, "e")))
        store.commit(("web", "1"), reopen=["web"])
        store.commit(finish=["db"])
        assert await settled(reader) == ["3:web=1"]
        assert reader.state is SubscriptionState.LIVE
        store.commit(finish=["web"])
        assert await to_the_end(reader) == ([], 5)


async def test_a_union_across_topics_follows_again() -> None:
    async with opened(index=1, epoch="e") as (_, publisher):
        across = WEB | SubscribeRequest(JOBS, "a")
        reader = publisher.subscribe(across.after(Cursor(1, "e")))
        publisher.publish((), index=2, finish=[(HEALTH, "web"), (JOBS, "a")])
        publisher.publish([event(3, "a", topic=JOBS)], reopen=[(JOBS, "a")])
        again = publisher.subscribe(across.after(Cursor(2, "e")))
        assert await to_the_end(reader) == ([], 2)
        assert await settled(again) == ["3:a=ok"]
        publisher.publish((), index=4, finish=[(JOBS, "a")])
        assert await to_the_end(again) == ([], 4)


@pytest.mark.parametrize(
    "request_",
    [
        SubscribeRequest(HEALTH),
        SubscribeRequest(HEALTH, "we", prefix=True),
        SubscribeRequest(HEALTH, "web", namespace=ALL),
        WEB | SubscribeRequest(HEALTH, "d", prefix=True),
    ],
    ids=["every key", "a prefix", "every namespace", "a key and a prefix"],
)
async def test_broader_readers_just_go_on(request_: SubscribeRequest[Health]) -> None:
    store = Catalogue(index=1, states={1: {}})
    source = Source(store.snapshot, wide=True)
    async with open_publisher({HEALTH: source}, index=1) as store.publisher:
        reader = store.publisher.subscribe(request_)
        await until_live(reader)
        store.commit(("web", "1"), finish=["web"])
        store.commit(("web", "2"), reopen=["web"])
        store.commit(("web", "3"), finish=["web"])
        assert kinds(ready(reader)) == ["2:web=1", "3:web=2", "4:web=3"]
        assert reader.state is SubscriptionState.LIVE


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("reads", ["web", "db"])
async def test_a_snapshot_of_a_union_that_is_made_meanwhile_is_right(whole: bool, reads: str) -> None:
    """D1, D22: a part that was finished goes on if it is reopened before the others are there."""
    store, go = Catalogue(index=1, states={1: {}}), anyio.Event()

    async def held(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        if request.key == reads:
            await go.wait()
        return await store.snapshot(request, snapshot)

    async with open_publisher({HEALTH: held}, index=1) as store.publisher:
        publisher = store.publisher
        store.commit(("web", "1"), ("db", "1"), finish=["web", "db"] if whole else ["web"])
        early = publisher.subscribe(PAIR)
        await quiet()
        store.commit(("web", None), reopen=["web"])
        store.commit(("web", "2"))
        late = publisher.subscribe(PAIR)
        await quiet()
        go.set()
        await quiet()
        store.commit(("web", "3"), reopen=["db"])
        for reader in (early, late):
            state: dict[str, str | None] = {}
            for received in ready(reader):
                for each in received.events:
                    assert isinstance(each.payload, Health)
                    state[each.payload.key] = each.payload.value
            assert state == {"web": "3", "db": "1"}
            assert (reader.state, reader.index) == (SubscriptionState.LIVE, 5)
        store.commit(("db", "4"))
        assert kinds(ready(early)) == kinds(ready(late)) == ["6:db=4"]
        store.commit(finish=["web", "db"])
        assert await to_the_end(early) == await to_the_end(late) == ([], 7)


async def test_a_part_of_a_union_that_reads_an_old_snapshot_that_says_finished_goes_on() -> None:
    """D1, D22: what it is a part of is newer than the reopening."""
    for published in (False, True):
        async with archived() as (store, publisher):
            store.commit(("web", "1"), finish=["web"] if published else [])
            store.finished.add("web")
            store.gate = gate = anyio.Event()
            early = publisher.subscribe(PAIR)
            await quiet()
            store.finished.clear()
            store.commit(("web", "2"), reopen=["web"])
            store.commit(("web", "3"))
            gate.set()
            await quiet()
            store.commit(("web", "4"))
            got = kinds(await early.receive_until_current())
            assert (got[-1], early.index, early.state) == ("5:web=4", 5, SubscriptionState.LIVE)
            assert "4:web=3" in got


async def test_who_reads_a_union_whose_snapshot_says_finished_ends_and_nobody_else() -> None:
    """D22, D17."""
    async with archived() as (store, publisher):
        store.finished |= {"web", "db"}
        slow = publisher.subscribe(PAIR)
        await quiet()
        store.finished.clear()
        store.commit(("web", "1"), reopen=["web"])
        other = publisher.subscribe(PAIR.after(Cursor(1, "e")))
        assert await to_the_end(slow) == (["eos@1"], 1)
        assert kinds(ready(other)) == ["2:web=1"]
        store.commit(("db", "2"), reopen=["db"])
        assert kinds(ready(other)) == ["3:db=2"]


# What is kept of it.


async def test_who_still_reads_it_falls_off_with_the_history() -> None:
    """D6, D11: one key, and a union."""
    async with opened(index=1, history=4, epoch="e") as (store, publisher):
        slow, union = publisher.subscribe(LIVE), publisher.subscribe(PAIR.after(Cursor(1, "e")))
        early = publisher.subscribe(LIVE)
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web", "db"])
        store.commit(reopen=["web"])
        assert [each.index for each in await early.receive_batch()] == [2, 3]
        for _ in range(3):
            store.commit(("web", "x"))
        for each in (slow, union):
            with pytest.raises(SubscriptionLagged) as lagged:
                await each.receive()
            assert lagged.value.missed == 1
        for _ in range(10):
            store.commit(("web", "x"))
        assert await to_the_end(early) == ([], 3)


@pytest.mark.parametrize("who", [LIVE, PAIR.after(Cursor(1, "e"))])
async def test_nothing_of_it_is_kept_for_who_does_not_read(who: SubscribeRequest[Health]) -> None:
    """D11: what the history has dropped is gone, also for a reader that stalls."""
    async with opened(index=1, history=2, epoch="e") as (_, publisher):
        stalled = publisher.subscribe(who)
        payload = Heavy()
        reference = weakref.ref(payload)
        publisher.publish([Event(HEALTH, 2, payload)], finish=[(HEALTH, "web"), (HEALTH, "db")])
        del payload
        publisher.publish((), index=3, reopen=[(HEALTH, "web")])
        for index in range(4, 7):
            publisher.publish([event(index, "web")])
        gc.collect()
        assert reference() is None
        stalled.unsubscribe()


@pytest.mark.parametrize("who", [LIVE, PAIR.after(Cursor(1, "e"))])
async def test_nothing_is_left_of_it_when_its_last_reader_leaves(who: SubscribeRequest[Health]) -> None:
    """D13."""
    async with opened(index=1, history=1000, epoch="e", snapshot_cache_ttl=0) as (_, publisher):
        reader = publisher.subscribe(who)
        publisher.publish((), index=2, finish=[(HEALTH, "web"), (HEALTH, "db")])
        publisher.publish((), index=3, reopen=[(HEALTH, "web"), (HEALTH, "db")])
        feed = weakref.ref(reader)
        assert publisher.statistics().topics["health"].feeds == 0
        reader.unsubscribe()
        del reader
        gc.collect()
        assert feed() is None
        publisher.publish((), index=4, finish=[(HEALTH, "web")])
        publisher.publish((), index=5, reopen=[(HEALTH, "web")])
        assert publisher.statistics().topics["health"].feeds == 0


async def test_a_resume_at_a_finish_that_was_reopened_is_not_too_old() -> None:
    """D7: the history has dropped the finish, and need not know of it any more."""
    async with opened(index=1, history=4, epoch="e") as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        store.commit(("db", "1"), finish=["db"])
        store.commit(("web", "2"), reopen=["web"])
        for _ in range(2):
            store.commit(("x", "1"))
        resumed = publisher.subscribe(LIVE.after(Cursor(2, "e")))
        assert kinds(ready(resumed)) == ["4:web=2"]
        store.commit(("x", "1"))
        assert kinds(ready(publisher.subscribe(LIVE.after(Cursor(3, "e"))))) == ["marker"]
        resumed = publisher.subscribe(LIVE.after(Cursor(4, "e")))
        assert ready(resumed) == []


async def test_what_is_dropped_of_a_reopened_subject_is_dropped_once() -> None:
    """D11: its history is right in all of its length."""
    async with opened(index=1, history=6, epoch="e") as (store, publisher):
        for _ in range(20):
            store.commit(("web", "1"), ("db", "1"))
            store.commit(("web", "2"), finish=["web"])
            store.commit(("web", None), ("db", "2"), reopen=["web"])
            for index in range(max(1, store.index - 4), store.index + 1):
                resumed = publisher.subscribe(LIVE.after(Cursor(index, "e")))
                assert [each.index for each in ready(resumed)] == list(range(index + 1, store.index + 1))
                resumed.unsubscribe()
        assert publisher.statistics().topics["health"].commits == 6


async def test_a_bound_in_events_counts_no_finish_that_was_reopened() -> None:
    """D11."""
    async with opened(index=1, history_events=12) as (store, publisher):
        for _ in range(30):
            store.commit(("web", "1"), finish=["web"])
            store.commit(("web", "2"), reopen=["web"])
        for _ in range(20):
            store.commit(("db", "1"))
        assert publisher.statistics().topics["health"].commits == 12


async def test_a_bound_in_events_counts_no_finish_without_events_that_was_reopened() -> None:
    """D11."""
    keys = ["a", "b", "c", "d", "e", "f"]
    async with opened(index=1, history_events=12) as (store, publisher):
        store.commit(finish=keys)
        store.commit(reopen=keys)
        for _ in range(8):
            store.commit(("db", "1"))
        assert publisher.statistics().topics["health"].commits == 9


async def test_nothing_piles_up_of_readers_who_came_and_went() -> None:
    """D13: while the history keeps all of it."""

    async def come_and_go(times: int) -> int:
        for _ in range(times):
            readers = [publisher.subscribe(each.after(publisher.cursor)) for each in (WEB, PAIR)]
            publisher.publish((), index=publisher.next_index, finish=[(HEALTH, "web"), (HEALTH, "db")])
            publisher.publish((), index=publisher.next_index, reopen=[(HEALTH, "web"), (HEALTH, "db")])
            for reader in readers:
                reader.unsubscribe()
        await quiet()
        gc.collect()
        return len(gc.get_objects())

    async with opened(index=1, history=2) as (_, publisher):
        before = await come_and_go(50)
        assert await come_and_go(50) < before + 50


async def test_nothing_piles_up_of_a_key_that_a_union_reads() -> None:
    """D11, D22: however often it is finished and reopened while the union goes on."""

    async def finish_and_reopen(times: int) -> int:
        for _ in range(times):
            publisher.publish((), index=publisher.next_index, finish=[(HEALTH, "web")])
            publisher.publish((), index=publisher.next_index, reopen=[(HEALTH, "web")])
        gc.collect()
        return len(gc.get_objects())

    async with opened(index=1, history=2, epoch="e") as (_, publisher):
        reader = publisher.subscribe(PAIR.after(Cursor(1, "e")))
        before = await finish_and_reopen(50)
        assert await finish_and_reopen(50) < before + 50
        assert reader.state is SubscriptionState.LIVE


async def test_a_conflating_reader_that_has_had_all_ends_however_far_the_history_has_come() -> None:
    """D5, D21."""
    store = Catalogue(index=1, states={1: {}})
    source = Source(store.snapshot, row=by_subject)
    async with open_publisher({HEALTH: source}, index=1, history=2) as store.publisher:
        reader = store.publisher.subscribe(LIVE, on_lag="conflate")
        choosy = store.publisher.subscribe(LIVE, on_lag="conflate", where=lambda each: True)
        store.commit(("web", "1"), finish=["web"])
        for each in (reader, choosy):
            assert kinds([await each.receive()]) == ["2:web=1"]
        store.commit(("web", "2"), reopen=["web"])
        for _ in range(5):
            store.commit(("web", "3"))
        for each in (reader, choosy):
            assert await to_the_end(each) == ([], 2)


async def test_a_part_of_a_union_that_is_reopened_keeps_up_while_the_others_are_made() -> None:
    """D6, D22: the history need not keep all that comes meanwhile."""
    store, go = Catalogue(index=1, states={1: {}}), anyio.Event()

    async def held(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        if request.key == "db":
            await go.wait()
        return await store.snapshot(request, snapshot)

    async with open_publisher({HEALTH: held}, index=1, history=3) as store.publisher:
        store.commit(("web", "1"), finish=["web"])
        reader = store.publisher.subscribe(PAIR)
        await quiet()
        store.commit(("web", "2"), reopen=["web"])
        for value in "3456789":
            await quiet()
            store.commit(("web", value))
        go.set()
        await quiet()
        got = kinds(await reader.receive_until_current())
        assert (got[-2:], reader.index) == (["10:web=9", "eos@10"], 10)


# Cursors from elsewhere.


@pytest.mark.parametrize("cursor", [3, 4, 5, 6])
async def test_a_cursor_from_ahead_is_behind_the_reopening_or_not(cursor: int) -> None:
    """D7: a client of another process, which was ahead, comes to one that believes it finished."""
    for has_marks in (False, True):
        async with marked() if has_marks else opened(epoch=EPOCH) as (store, publisher):
            store.commit(("web", "1"))
            store.commit(("web", "2"), finish=["web"])
            mark = f"a{cursor}" if has_marks else ""
            reader = publisher.subscribe(SubscribeRequest(HEALTH, "web").after(Cursor(cursor, EPOCH, mark)))
            with pytest.raises(WouldBlock):
                reader.receive_nowait()
            store.commit(("db", "3"))
            store.commit(("web", "4"), reopen=["web"])
            for value in ("5", "6", "7"):
                store.commit(("web", value))
            if cursor < 4:
                assert await to_the_end(reader) == ([], cursor)
            else:
                assert kinds(ready(reader)) == [f"{at}:web={at}" for at in range(cursor + 1, 8)]


# Replays.


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("during", [False, True])
async def test_a_slow_reader_that_is_replayed_what_it_has_missed_ends_where_it_was_finished(
    size: int, during: bool
) -> None:
    """D17, D21: as if it had been fast."""
    store = Logged(size=size)
    store.commit(("db", "1"))
    async with logged(store, history=2) as (_, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        union = publisher.subscribe(PAIR.after(Cursor(1, EPOCH)))
        for value in "2345":
            store.commit(("web", value))
        store.commit(("web", "6"), finish=["web", "db"])
        held = store.hold() if during else None
        if during:
            for reader in (slow, union):
                with pytest.raises(WouldBlock):
                    reader.receive_nowait()
            await quiet()
        store.commit(("web", "7"), reopen=["web"])
        store.fill(5)
        store.commit(("web", "13"))
        if held is not None:
            held.set()
            store.gates.clear()
        for reader in (slow, union):
            assert await to_the_end(reader) == ([f"{at}:web={at}" for at in range(2, 7)], 6)
        fresh = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch=EPOCH))
        assert [each.index for each in await caught_up(fresh, store.index)] == [*range(2, 8), 13]


async def test_a_replay_without_events_behind_the_finish_ends_there_too() -> None:
    """D17: what it passes over is not for its reader."""
    store = Logged(size=100)
    store.commit(("db", "1"))
    async with logged(store, history=2) as (_, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        for value in "23":
            store.commit(("web", value))
        store.commit(("web", "4"), finish=["web"])
        publisher.publish((), index=5, reopen=[(HEALTH, "web")])
        store.index = 5
        store.states[5] = store.states[4]
        store.fill(5)
        assert await to_the_end(slow) == (["2:web=2", "3:web=3", "4:web=4"], 4)


async def test_who_comes_now_does_not_read_the_pages_of_who_ends() -> None:
    store = Logged(size=100)
    store.commit(("db", "1"))
    async with logged(store, history=2) as (_, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        for value in "2345":
            store.commit(("web", value))
        store.commit(("web", "6"), finish=["web"])
        held = store.hold()
        with pytest.raises(WouldBlock):
            slow.receive_nowait()
        await quiet()
        store.commit(("web", "7"), reopen=["web"])
        store.fill(3)
        again = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch=EPOCH))
        third = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2, epoch=EPOCH))
        await quiet()
        held.set()
        store.gates.clear()
        assert await to_the_end(slow) == ([f"{at}:web={at}" for at in range(2, 7)], 6)
        assert [each.index for each in await caught_up(again, store.index)] == list(range(2, 8))
        assert [each.index for each in await caught_up(third, store.index)] == list(range(3, 8))


async def test_who_ends_and_who_goes_on_are_replayed_from_the_same_place_each_its_own() -> None:
    """D3, D17."""
    store = Logged(size=100)
    store.commit(("db", "1"))
    async with logged(store, history=2) as (_, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        for value in "2345":
            store.commit(("web", value))
        store.commit(("web", "6"), finish=["web"])
        store.commit(("web", "7"), reopen=["web"])
        store.fill(5)
        held = store.hold()
        with pytest.raises(WouldBlock):
            slow.receive_nowait()
        again = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch=EPOCH))
        await quiet()
        held.set()
        store.gates.clear()
        assert [each.index for each in await caught_up(again, store.index)] == list(range(2, 8))
        assert await to_the_end(slow) == ([f"{at}:web={at}" for at in range(2, 7)], 6)


async def test_who_ends_does_not_read_on_in_the_pages_of_who_goes_on() -> None:
    """D3, D17: they have been read by the function already, to their end."""
    store = Logged(size=100)
    store.commit(("db", "1"))
    async with logged(store, history=2) as (_, publisher):
        slow = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1))
        for value in "2345":
            store.commit(("web", value))
        store.commit(("web", "6"), finish=["web"])
        store.commit(("web", "7"), reopen=["web"])
        store.fill(5)
        again = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch=EPOCH))
        await quiet()
        assert await to_the_end(slow) == ([f"{at}:web={at}" for at in range(2, 7)], 6)
        assert [each.index for each in await caught_up(again, store.index)] == list(range(2, 8))


# What it costs.


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_to_reopen_thousands_at_once_takes_in_proportion() -> None:
    """D15: one look at the history for all of them."""
    keys = [f"k{number}" for number in range(2_000)]
    subjects = [(HEALTH, key) for key in keys]
    async with opened(index=1, history=4_000) as (_, publisher):
        publisher.publish([event(2, key) for key in keys], finish=subjects)
        for index in range(3, 2_000):
            publisher.publish([event(index, "x")])
        with stretches() as seen:
            publisher.publish((), index=2_000, reopen=subjects)
        assert seen.calls < 40 * len(keys)
        publisher.publish([event(2_001, key) for key in keys])


# What is refused.


WRONG: dict[str, tuple[object, type[Exception]]] = {
    "nothing iterable": (7, TypeError),
    "a string": ("web", TypeError),
    "a pair that is not in a list": ((HEALTH, "web"), TypeError),
    "None": (None, TypeError),
    "no topic": ([(None, "web")], TypeError),
    "no key": ([(HEALTH, None)], TypeError),
    "a blank key": ([(HEALTH, "web"), (HEALTH, "")], ValueError),
    "a blank subject": ([(HEALTH, Subject())], ValueError),
    "a topic without a handler": ([(HEALTH, "web"), (JOBS, "a")], UnknownTopicError),
}


@pytest.mark.parametrize(("given", "error"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("in_thread", [False, True])
async def test_what_is_no_subject_cannot_be_reopened(
    given: Any, error: type[Exception], in_thread: bool
) -> None:
    """D18: and nothing has changed."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        reader = publisher.subscribe(LIVE)
        publisher.publish([event(2, "web")], finish=[(HEALTH, "web")])
        before = publisher.statistics()
        publish: Callable[..., None] = publisher.publish_from_thread if in_thread else publisher.publish
        for events, index in [([event(3, "web")], None), ([close_subscription_event(["t"])], 3)]:
            with pytest.raises(error):
                publish(events, index=index, reopen=given)
        assert publisher.statistics() == before
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(3, "web")])
        assert await to_the_end(reader) == (["2:web=ok"], 2)


@pytest.mark.parametrize(
    "events", [[], [close_subscription_event(["t"])]], ids=["no events", "a close event"]
)
async def test_a_reopening_needs_an_index_and_a_commit_that_is_right(events: list[Event[Any]]) -> None:
    """D18."""
    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(LIVE)
        publisher.publish((), index=2, finish=[(HEALTH, "web")])
        for index in (None, 1, 2):
            with pytest.raises(InvalidCommitError):
                publisher.publish(events, index=index, reopen=[(HEALTH, "web")])
        with pytest.raises(InvalidCommitError):  # another one is still finished
            publisher.publish([], index=3, finish=[(HEALTH, "db")])
            publisher.publish([event(4, "web"), event(4, "db")], reopen=[(HEALTH, "web")])
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(4, "web")])
        assert await to_the_end(reader) == ([], 2)


async def test_after_the_stop_nothing_is_reopened() -> None:
    """D18."""
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(LIVE)
        store.commit(("web", "1"), finish=["web"])
    for events in ([], [close_subscription_event(["t"])]):
        with pytest.raises(Exception, match="stopped"):
            publisher.publish(events, index=3, reopen=[(HEALTH, "web")])
    assert await to_the_end(reader) == (["2:web=1"], 2)


async def test_an_empty_reopening_is_none_and_a_publisher_that_does_nothing_takes_any() -> None:
    async with opened(index=1) as (_, publisher):
        publisher.publish([], reopen=[])
        publisher.publish([event(2, "web")], finish=[], reopen=iter(()))
    NoOpEventPublisher().publish((), index=2, reopen=[(HEALTH, "web")])
