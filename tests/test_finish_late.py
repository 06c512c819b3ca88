"""D5, D7: who comes to a finished subject late gets its state and the end; a union ends when all of it is finished."""

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from finishes import LIVE, Receive, receives, to_the_end
from scenes import WEB, Held, opened, quiet
from unions import shown

from trio_stream import (
    Cursor,
    EndOfSubject,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

DB = SubscribeRequest(HEALTH, "db")
PAIR = WEB | DB
ACROSS = WEB | SubscribeRequest(JOBS, "a")


# Fresh readers.


@receives
async def test_a_fresh_reader_gets_the_state_and_then_the_end(receive: Receive) -> None:
    """D5, D8."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("db", "3"))
        subscription = publisher.subscribe(WEB)
        await quiet()
        assert await to_the_end(subscription, receive) == (["2:web=2", "eos@3"], 3)


@receives
async def test_a_cached_snapshot_is_followed_by_what_came_since_and_by_the_end(receive: Receive) -> None:
    """D8, D14."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        await until_live(publisher.subscribe(WEB))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("db", "3"))
        late = publisher.subscribe(WEB)
        assert await to_the_end(late, receive) == (["1:web=1", "eos@1", "2:web=2"], 2)
        assert store.runs == 1


async def test_a_read_until_current_of_a_cached_snapshot_has_all_before_the_end() -> None:
    """D8."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        await until_live(publisher.subscribe(WEB))
        store.commit(("web", "2"), finish=["web"])
        late = publisher.subscribe(WEB)
        assert kinds(await late.receive_until_current()) == ["1:web=1", "eos@1", "2:web=2"]
        with pytest.raises(EndOfSubject):
            await late.receive_until_current()


async def test_a_subject_that_nobody_knew_is_finished_without_an_event() -> None:
    async with opened() as (store, publisher):
        store.commit(("db", "1"))
        store.commit(finish=["ghost"])
        late = publisher.subscribe(SubscribeRequest(HEALTH, "ghost"))
        assert await to_the_end(late) == (["eos@2"], 2)
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(3, "ghost")])


async def test_wait_ready_returns_before_a_late_reader_is_told_of_the_end() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        late = publisher.subscribe(WEB)
        events = await until_live(late)
        assert kinds(events) == ["1:web=1", "eos@1"]
        with anyio.fail_after(30):
            try:
                await late.wait_ready()
            except EndOfSubject as end:  # there was nothing left but that
                assert end.index == 1
        assert await to_the_end(late) == ([], 1)


async def test_a_herd_of_late_readers_shares_one_snapshot_and_each_of_them_ends() -> None:
    """D14."""
    ends: list[tuple[list[str], int]] = []

    async def read(subscription: Subscription[Health]) -> None:
        ends.append(await to_the_end(subscription))

    async with opened() as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(read, publisher.subscribe(WEB))
        assert ends == [(["1:web=1", "eos@1"], 1)] * 50
        assert store.runs == 1


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_subject_that_is_finished_while_its_snapshot_is_made_ends_behind_that(on_lag: str) -> None:
    async with opened(held := Held()) as (store, publisher):
        held.store = store
        store.commit(("web", "1"))
        reader = publisher.subscribe(WEB, on_lag="reset" if on_lag == "reset" else "close")
        await quiet()
        store.commit(("web", "2"))
        store.commit(("web", "3"), finish=["web"])
        held.go.set()
        await quiet()
        assert await to_the_end(reader) == (["1:web=1", "eos@1", "2:web=2", "3:web=3"], 3)


@receives
async def test_a_snapshot_that_is_ahead_of_the_finish_drops_the_event_and_not_the_end(
    receive: Receive,
) -> None:
    """D2: the store has committed, the publish comes later."""
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}) as publisher:
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        reader = publisher.subscribe(WEB)
        assert kinds(await until_live(reader)) == ["2:web=2", "eos@2"]
        publisher.publish([event(1, "web", "1")])
        publisher.publish([event(2, "web", "2")], finish=[(HEALTH, "web")])
        publisher.publish([event(3, "db")])
        assert await to_the_end(reader, receive) == ([], 2)


@receives
async def test_late_events_that_have_left_the_history_do_not_hide_the_end(receive: Receive) -> None:
    """D2, D6."""
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}, history=2) as publisher:
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        reader = publisher.subscribe(WEB)
        assert kinds(await until_live(reader)) == ["2:web=2", "eos@2"]
        publisher.publish([event(1, "web", "1")])
        publisher.publish([event(2, "web", "2")], finish=[(HEALTH, "web")])
        for index in (3, 4, 5):
            publisher.publish([event(index, "db")])
        assert await to_the_end(reader, receive) == ([], 2)


async def test_a_snapshot_that_is_ahead_of_a_finish_is_followed_by_the_end_when_that_is_published() -> None:
    """D2: before that nobody knows whether it was reopened."""
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}) as publisher:
        for value in ("1", "2", "3"):
            store.commit(("web", value))
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        publisher.publish((), index=1, finish=[(HEALTH, "web")])
        publisher.publish([event(2, "db")])
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        assert (reader.state, reader.horizon) == (SubscriptionState.LIVE, 3)
        publisher.publish([event(3, "db")])
        assert await to_the_end(reader) == ([], 3)


async def test_a_reader_that_waits_behind_a_snapshot_that_is_ahead_is_woken_by_the_end() -> None:
    ended: list[tuple[list[str], int]] = []

    async def read() -> None:
        ended.append(await to_the_end(reader))

    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}) as publisher:
        for value in ("1", "2", "3"):
            store.commit(("web", value))
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await quiet()
            publisher.publish([event(2, "web", "2")], finish=[(HEALTH, "web")])
            await quiet()
            assert ended == []
            publisher.publish([event(3, "db")])
            await quiet()
            assert ended == [([], 3)]


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_stale_resume_gets_marker_snapshot_and_end(on_lag: str) -> None:
    """D5, D7."""
    async with opened(epoch="e") as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        stale = SubscribeRequest(HEALTH, "web", index=1, epoch="other")
        reader = publisher.subscribe(stale, on_lag="reset" if on_lag == "reset" else "close")
        await quiet()
        assert await to_the_end(reader) == (["marker", "1:web=1", "eos@1"], 1)


async def test_a_snapshot_that_was_passed_is_made_again_and_then_the_end_comes() -> None:
    """D11, D21: for a reader that resets."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        reader = publisher.subscribe(WEB, on_lag="reset")
        await quiet()
        for value in ("3", "4", "5"):
            store.commit(("web", value))
        store.commit(finish=["web"])
        await quiet()
        assert await to_the_end(reader) in (
            (["marker", "5:web=5", "eos@6"], 6),
            (["2:web=2", "eos@2", "marker", "5:web=5", "eos@6"], 6),
        )


# Resumes.


@receives
async def test_a_resume_before_the_finish_gets_what_is_between_and_the_end(receive: Receive) -> None:
    """D7."""
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("db", "3"))
        assert await to_the_end(publisher.subscribe(LIVE), receive) == (["2:web=1", "3:web=2"], 3)
        assert await to_the_end(publisher.subscribe(LIVE.after(Cursor(2, publisher.epoch))), receive) == (
            ["3:web=2"],
            3,
        )


@pytest.mark.parametrize("index", [3, 4, 5])
@receives
async def test_a_resume_at_the_finish_or_after_it_ends_at_once(receive: Receive, index: int) -> None:
    """D7: whatever was committed since."""
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        store.commit(("db", "3"))
        store.commit(("db", "4"))
        reader = publisher.subscribe(LIVE.after(Cursor(index, publisher.epoch)))
        assert await to_the_end(reader, receive) == ([], index)


async def test_a_resume_from_ahead_ends_when_the_publisher_has_come_there() -> None:
    """D7: a client of another replica, which was ahead; older events are never sent."""
    async with opened(index=1, epoch="e") as (store, publisher):
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=4, epoch="e"))
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        store.commit(("db", "3"))
        assert await to_the_end(reader) == ([], 4)


async def test_a_resume_with_the_mark_of_the_finish_ends_at_once_and_with_another_it_is_stale() -> None:
    """D7."""
    store = Catalogue()
    async with open_publisher({HEALTH: store.snapshot}, epoch="e", index=1, mark="m1") as publisher:
        store.index = 1
        store.states[1] = {}
        publisher.publish([event(2, "web")], mark="m2", finish=[(HEALTH, "web")])
        store.index = 2
        store.states[2] = {}
        right = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2, epoch="e", mark="m2"))
        assert await to_the_end(right) == ([], 2)
        wrong = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2, epoch="e", mark="x"))
        assert kinds([await wrong.receive()]) == ["marker"]


async def test_a_cursor_with_a_mark_that_is_judged_by_the_finish_ends_or_is_stale() -> None:
    """D7: the finish has no event, and is all that tells."""
    store = Catalogue(index=2, states={2: {}})
    async with open_publisher({HEALTH: store.snapshot}, epoch="e", index=1, mark="m1") as publisher:
        right, wrong = (
            publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2, epoch="e", mark=mark))
            for mark in ("m2", "x")
        )
        assert right.state is wrong.state is SubscriptionState.RESUMING
        publisher.publish((), index=2, mark="m2", finish=[(HEALTH, "web")])
        assert await to_the_end(right) == ([], 2)
        assert await to_the_end(wrong) == (["marker", "eos@2"], 2)


async def test_who_has_ended_keeps_the_mark_of_a_finish_that_everybody_else_has_forgotten() -> None:
    """D7: it had no event, so the reader was handed nothing that has the mark."""
    async with open_publisher(
        {HEALTH: Catalogue().snapshot}, epoch="e", index=1, mark="m1", history=2
    ) as publisher:
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1, epoch="e", mark="m1"))
        publisher.publish((), index=2, mark="m2", finish=[(HEALTH, "web")])
        assert await to_the_end(reader) == ([], 2)
        for index in range(3, 9):
            publisher.publish([event(index, "db")], mark=f"m{index}")
        assert reader.cursor == Cursor(2, "e", "m2")


# What the history remembers.


async def test_a_finish_is_forgotten_with_its_commit_if_nobody_reads_the_subject() -> None:
    """D11: what is remembered is bounded; the application says again what is still so."""
    async with opened(history=2) as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        store.commit(("db", "2"))
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(3, "web")])
        store.commit(("db", "3"))
        late = publisher.subscribe(WEB)
        assert kinds(await until_live(late)) == ["1:web=1", "eos@3"]
        store.commit(("web", "4"))
        assert kinds(ready(late)) == ["4:web=4"]


async def test_a_finish_without_events_is_forgotten_with_its_commit() -> None:
    """D11."""
    async with opened(history=2) as (store, publisher):
        store.commit(finish=["web"])
        store.commit(("db", "2"))
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(3, "web")])
        store.commit(("db", "3"))
        store.commit(("db", "4"))
        store.commit(("web", "5"))
        assert publisher.index == 5


async def test_a_finish_is_remembered_as_long_as_somebody_reads_the_subject() -> None:
    """D3: also who has had its last event, and comes back after hours."""
    async with opened(history=2, index=1) as (store, publisher):
        reader = publisher.subscribe(LIVE)
        store.commit(("web", "1"), finish=["web"])
        await reader.receive()
        for _ in range(4):
            store.commit(("db", "x"))
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(7, "web")])
        late = publisher.subscribe(WEB)
        await quiet()
        assert await to_the_end(late) == (["2:web=1", "eos@6"], 6)
        assert await to_the_end(reader) == ([], 2)
        store.commit(("web", "7"))
        assert publisher.index == 7


async def test_a_finish_is_forgotten_when_the_history_is_full_of_events() -> None:
    """D11."""
    async with opened(history=100, history_events=4) as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        store.commit(*((f"db{number}", "x") for number in range(4)))
        store.commit(*((f"db{number}", "x") for number in range(4)))
        store.commit(("web", "2"))
        assert publisher.index == 4


async def test_a_subject_that_is_finished_anew_ends_again() -> None:
    async with opened(history=1) as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        store.commit(("db", "1"))
        store.commit(("db", "1"))
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        store.commit(("web", "2"), finish=["web"])
        assert await to_the_end(reader) == (["4:web=2"], 4)


# Unions of keys.


@pytest.mark.parametrize("order", [["web", "db"], ["db", "web"]])
async def test_a_union_of_keys_ends_when_the_last_of_them_is_finished(order: list[str]) -> None:
    """D5, D22."""
    first, second = order
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(PAIR)
        await until_live(reader)
        store.commit((first, "1"), finish=[first])
        store.commit((second, "2"))
        assert kinds(ready(reader)) == [f"2:{first}=1", f"3:{second}=2"]
        assert reader.state is SubscriptionState.LIVE
        store.commit((second, "3"), finish=[second])
        store.commit(("other", "4"))
        assert await to_the_end(reader) == ([f"4:{second}=3"], 4)


async def test_a_union_whose_keys_are_finished_in_one_commit_gets_all_its_events_and_ends() -> None:
    """D4, D22: over two topics."""
    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(ACROSS)
        await until_live(reader)
        publisher.publish([event(2, "a", topic=JOBS), event(2, "web")], finish=[(HEALTH, "web"), (JOBS, "a")])
        got = [await reader.receive()]
        assert shown(got) == ["2:jobs/a=ok+health/web=ok"]
        assert await to_the_end(reader) == ([], 2)


async def test_a_union_of_keys_of_another_namespace_ends_when_these_are_finished() -> None:
    """And not when keys of the same names are."""
    one, other = (SubscribeRequest(HEALTH, key, namespace="n") for key in ("web", "db"))
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(one | other)
        await until_live(reader)
        store.commit(("web", "1"), ("db", "1"), finish=["web", "db"])
        store.commit(("web", "2"), namespace="n", finish=["web"])
        assert kinds(ready(reader)) == ["3:web=2"]
        assert reader.state is SubscriptionState.LIVE
        store.commit(("db", "3"), namespace="n", finish=["db"])
        assert await to_the_end(reader) == (["4:db=3"], 4)


async def test_a_union_of_keys_that_are_finished_without_events_ends_at_the_last_index() -> None:
    """D22."""
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(PAIR)
        await until_live(reader)
        store.commit(finish=["db"])
        store.commit(finish=["db"])
        assert reader.horizon == 3
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        store.commit(finish=["web"])
        assert await to_the_end(reader) == ([], 4)


@pytest.mark.parametrize("keys", [["web"], ["web", "db"]], ids=["one is finished", "both are finished"])
@receives
async def test_a_fresh_union_of_finished_keys_has_the_state_of_all_and_ends_when_it_should(
    receive: Receive, keys: list[str]
) -> None:
    """D8, D22."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("db", "2"))
        store.commit(finish=keys)
        reader = publisher.subscribe(PAIR)
        await quiet()
        if keys == ["web"]:
            assert kinds(sorted(ready(reader), key=lambda each: each.index))[-1] == "eos@3"
            store.commit(("db", "4"), finish=["db"])
            assert await to_the_end(reader, receive) == (["4:db=4"], 4)
        else:
            got, index = await to_the_end(reader, receive)
            assert (sorted(got), index) == (["1:web=1", "2:db=2", "eos@3"], 3)


@receives
async def test_a_resume_of_a_union_of_finished_keys_gets_what_is_between_and_the_end(
    receive: Receive,
) -> None:
    """D7, D22."""
    async with opened(index=1) as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        store.commit(("db", "2"))
        store.commit(("db", "3"), finish=["db"])
        store.commit(("other", "4"))
        for index, expected in [
            (1, ["2:web=1", "3:db=2", "4:db=3"]),
            (2, ["3:db=2", "4:db=3"]),
            (4, []),
            (5, []),
        ]:
            reader = publisher.subscribe(PAIR.after(Cursor(index, publisher.epoch)))
            assert await to_the_end(reader, receive) == (expected, max(4, index))


async def test_a_union_remembers_a_key_that_was_finished_when_the_history_does_not_any_more() -> None:
    """D22: as long as it is read."""
    async with opened(history=2, index=1) as (store, publisher):
        reader = publisher.subscribe(PAIR)
        await until_live(reader)
        store.commit(("web", "1"), finish=["web"])
        assert kinds(ready(reader)) == ["2:web=1"]
        for _ in range(4):
            store.commit(("other", "x"))
        store.commit(("db", "7"), finish=["db"])
        assert await to_the_end(reader) == (["7:db=7"], 7)


async def test_who_leaves_a_union_forgets_nothing_of_the_others() -> None:
    """D22: another reader of the same, and one of a key of it."""
    async with opened(index=1) as (store, publisher):
        readers = [publisher.subscribe(PAIR), publisher.subscribe(PAIR), publisher.subscribe(WEB)]
        for each in readers:
            await until_live(each)
        store.commit(("web", "1"), finish=["web"])
        readers[0].unsubscribe()
        assert await to_the_end(readers[2]) == (["2:web=1"], 2)
        store.commit(("db", "2"), finish=["db"])
        assert await to_the_end(readers[1]) == (["2:web=1", "3:db=2"], 3)
        assert publisher.statistics().subscriptions == 0


@pytest.mark.parametrize("with_its_commit", [True, False])
async def test_a_union_that_came_later_remembers_a_finished_key_too(with_its_commit: bool) -> None:
    """D22: one whose finish the history still had when the union came."""
    async with opened(history=2, index=1) as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        reader = publisher.subscribe(PAIR.after(Cursor(1 if with_its_commit else 2, publisher.epoch)))
        assert kinds(ready(reader)) == ["2:web=1"] * with_its_commit
        for _ in range(4):
            store.commit(("other", "x"))
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(7, "web")])
        store.commit(("db", "7"), finish=["db"])
        assert await to_the_end(reader) == (["7:db=7"], 7)
        store.commit(("web", "8"))
        assert publisher.index == 8


async def test_an_event_of_a_finished_key_is_refused_as_long_as_a_union_reads_it() -> None:
    """D18, D22: it was told that nothing comes after it."""
    async with opened(history=2, index=1) as (store, publisher):
        reader = publisher.subscribe(PAIR)
        await until_live(reader)
        store.commit(("web", "1"), finish=["web"])
        ready(reader)
        for _ in range(4):
            store.commit(("other", "x"))
        with pytest.raises(InvalidCommitError):
            publisher.publish([event(7, "web")])
        assert publisher.index == 6
        reader.unsubscribe()
        store.commit(("web", "7"))
        assert publisher.index == 7


async def test_a_stop_ends_a_union_that_is_finished_in_part_as_stopped() -> None:
    """D5, D22."""
    async with opened(index=1) as (store, publisher):
        part = publisher.subscribe(PAIR)
        await until_live(part)
        store.commit(finish=["web"])
    with pytest.raises(SubscriptionForceClosed, match="stopped"):
        await part.receive()

    async with opened(index=1) as (store, publisher):
        whole = publisher.subscribe(PAIR)
        await until_live(whole)
        store.commit(finish=["web"])
        store.commit(("db", "1"), finish=["db"])
    assert await to_the_end(whole) == (["3:db=1"], 3)


async def test_the_same_key_under_two_forms_of_a_request_ends_alike() -> None:
    """D22: a union of one key with itself is that key."""
    async with opened(index=1) as (store, publisher):
        reader = publisher.subscribe(WEB | WEB)
        await until_live(reader)
        store.commit(("web", "1"), finish=["web"])
        assert await to_the_end(reader) == (["2:web=1"], 2)


async def test_before_the_publisher_runs_a_subject_can_be_finished() -> None:
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1)
    reader = publisher.subscribe(LIVE)
    publisher.publish([event(2, "web")], finish=[(HEALTH, "web")])
    assert await to_the_end(reader) == (["2:web=ok"], 2)


async def test_a_snapshot_function_is_not_asked_less_because_its_subject_is_finished() -> None:
    """D1: the state of what is finished is a state as any other."""
    requests: list[SubscribeRequest[Health]] = []

    async def snapshot(request: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        requests.append(request)
        await appender.append([event(1, "web")])
        return 1

    async with open_publisher({HEALTH: snapshot}, snapshot_cache_ttl=0) as publisher:
        publisher.publish([event(1, "web")], finish=[(HEALTH, "web")])
        for _ in range(2):
            assert await to_the_end(publisher.subscribe(WEB)) == (["1:web=ok", "eos@1"], 1)
        assert requests == [WEB, WEB]


async def test_a_resume_at_an_end_that_the_history_has_just_forgotten_is_stale() -> None:
    """D6, D7: nobody knows any more that there is nothing to wait for, so the snapshot has to say it."""
    async with opened(history=1, index=1, epoch="e") as (store, publisher):
        reader = publisher.subscribe(LIVE)
        store.commit(("web", "1"), finish=["web"])
        await to_the_end(reader)
        request = reader.resume_request()
        reader.close()
        assert await to_the_end(publisher.subscribe(request)) == ([], 2)
        store.commit(("db", "1"))
        assert kinds(await until_live(publisher.subscribe(request))) == ["marker", "2:web=1", "eos@3"]
        assert publisher.statistics().topics["health"].floor == 3
