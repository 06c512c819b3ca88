"""A view of what is finished: its state stays, nobody connects again, and those who wait get it or are told."""

import logging
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, Catalogue
from scenes import WEB, opened, quiet
from view.wires import MARKER, Exchange, HealthView, is_gone, put, values, viewed, viewing, whole

from trio_stream import Cursor, EndOfSubject, EventPublisher, SubscribeRequest, running
from trio_stream.view import (
    Change,
    Frozen,
    Status,
    ViewEnded,
    ViewPool,
    consistent,
    open_view,
)

pytestmark = pytest.mark.anyio

DB = SubscribeRequest(HEALTH, "db")


def status_of(view: HealthView) -> Status:
    return view.status.status


def end(index: int) -> EndOfSubject:
    return EndOfSubject(index, "one")


async def test_a_finished_subject_finishes_its_view_and_the_block_goes_on() -> None:
    async with viewed(WEB) as (store, publisher, view):
        store.commit(("web", "1"))
        store.commit(("web", "2"), finish=["web"])
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert isinstance(view.status.reason, EndOfSubject)
        assert (values(view), view.index) == ({"web": "2"}, 2)
        store.commit(("db", "3"))
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert view.statistics().connections == 1
        assert publisher.statistics().subscriptions == 0
        assert "finished at 2" in repr(view)
    assert status_of(view) is Status.FINISHED
    assert values(view) == {"web": "2"}


async def test_a_view_that_comes_late_shows_the_state_and_is_finished() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "1"), finish=["web"])
        async with viewing(publisher.subscribe, WEB) as view:
            state = await view.wait_current()
            assert (values(state), state.index) == ({"web": "1"}, 1)
            await quiet()
            assert status_of(view) is Status.FINISHED
            assert await view.wait_current() is state


async def test_a_view_of_several_keys_is_finished_with_the_last_of_them() -> None:
    async with viewed(WEB | DB) as (store, _, view):
        store.commit(("web", "1"), finish=["web"])
        await quiet()
        assert status_of(view) is Status.CURRENT
        store.commit(("db", "2"), finish=["db"])
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert values(view) == {"web": "1", "db": "2"}


async def test_a_view_of_more_than_single_keys_goes_on() -> None:
    async with viewed() as (store, _, view):
        store.commit(("web", "1"), finish=["web"])
        assert (await view.wait_index(1))["web"].value == "1"
        store.commit(("db", "2"))
        await view.wait_index(2)
        assert status_of(view) is Status.CURRENT


async def test_nothing_is_logged_and_nothing_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.wire.end(end(1))
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert not exchange.wire.is_open
    assert len(exchange.wires) == 1
    assert [record for record in caplog.records if record.name.startswith("trio_stream")] == []


# Those who wait.


async def test_who_waits_for_what_is_so_gets_it_and_who_waits_for_what_never_will_be_is_told() -> None:
    told: dict[str, object] = {}

    async def wait(value: str) -> None:
        try:
            told[value] = (await view.wait_for(lambda state: state["web"].value == value)).index
        except ViewEnded as error:
            told[value] = error.__cause__
            assert "finished" in str(error)

    async with viewed(WEB) as (store, _, view), anyio.create_task_group() as tasks:
        store.commit(("web", "1"))
        await view.wait_index(1)
        tasks.start_soon(wait, "2")
        tasks.start_soon(wait, "3")
        await quiet()
        store.commit(("web", "2"), finish=["web"])
        await quiet()
        assert told["2"] == 2
        assert isinstance(told["3"], EndOfSubject)
        with pytest.raises(ViewEnded):
            await view.wait_for(lambda state: False)
        assert (await view.wait_for(lambda state: True)).index == 2


async def test_who_waits_for_an_index_has_everything_up_to_it() -> None:
    """There will be nothing more, so the state is that of every later index; also one that comes after hours."""
    got: list[Frozen[str, Any]] = []

    async def wait(index: int) -> None:
        got.append(await view.wait_index(index))

    async with viewed(WEB) as (store, _, view), anyio.create_task_group() as tasks:
        store.commit(("web", "1"))
        for index in (2, 7, 1000):
            tasks.start_soon(wait, index)
        await quiet()
        assert got == []
        store.commit(("web", "2"), finish=["web"])
        await quiet()
        assert [(state.index, values(state)) for state in got] == [(2, {"web": "2"})] * 3
        assert await view.wait_index(1001) is got[0]
        assert view.state_at(1002) is got[0]
        known = view.state_at(1)
        assert known is not None
        assert values(known) == {"web": "1"}


async def test_very_many_who_wait_are_all_told() -> None:
    told = 0

    async def wait(index: int) -> None:
        nonlocal told
        await view.wait_index(index)
        told += 1
        with pytest.raises(ViewEnded):
            await view.wait_for(lambda state: state.index > 1)
        told += 1

    async with viewed(WEB) as (store, _, view), anyio.create_task_group() as tasks:
        for index in range(1000):
            tasks.start_soon(wait, index + 2)
        await quiet()
        store.commit(("web", "1"), finish=["web"])
        await quiet()
        assert told == 2000


async def test_a_loop_over_changes_is_told_everything_and_stops() -> None:
    changes: list[Change[str, Any]] = []

    async def loop(view: HealthView) -> None:
        async with view.changes() as reader:
            changes.extend([change async for change in reader])
            with pytest.raises(StopAsyncIteration):
                await anext(reader)

    async with viewed(WEB) as (store, _, view):
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(loop, view)
                await quiet()
                store.commit(("web", "1"))
                await quiet()
                store.commit(("web", "2"), finish=["web"])
            await loop(view)
        assert [(change.old and change.old.value, change.new.value) for change in changes if change.new] == [
            (None, "1"),
            ("1", "2"),
        ]


async def test_several_views_are_at_one_index_although_one_is_finished() -> None:
    async with viewed(WEB) as (store, publisher, job):
        store.commit(("web", "1"), finish=["web"])
        async with viewing(publisher.subscribe, DB) as other:
            index = store.commit(("db", "2"))
            with anyio.fail_after(30):
                cut = await consistent(job, other, at=index)
        assert [values(state) for state in cut] == [{"web": "1"}, {"db": "2"}]


# What may go wrong on the way.


async def test_an_end_inside_a_snapshot_is_a_lost_connection() -> None:
    """What was received of it is no state: another connection may bring a whole one."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"))
        exchange.wire.end(end(1))
        await quiet()
        assert status_of(view) is Status.CONNECTING
        assert len(exchange.wires) == 2
        exchange.wire.give(put(1, "web"), whole(1))
        exchange.wire.end(end(1))
        await quiet()
        assert status_of(view) is Status.FINISHED


async def test_a_state_that_was_older_than_what_is_shown_is_shown_when_it_is_the_last() -> None:
    """A snapshot of a cache: nothing comes any more, so what was committed in between has not touched it."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(5, "web", "a"), whole(5))
        await view.wait_current()
        exchange.wire.end(OSError("down"))
        await quiet()
        exchange.wire.give(put(3, "web", "b"), whole(3))
        await quiet()
        assert (values(view), view.status.status) == ({"web": "a"}, Status.STALE)
        exchange.wire.end(end(3))
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert (values(view), view.index) == ({"web": "b"}, 5)


async def test_a_view_that_goes_on_after_a_break_is_finished_by_what_it_missed() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.horizon = 1
        exchange.wire.end(OSError("down"), resume=1)
        await quiet()
        exchange.wire.give(put(2, "web", "b"))
        exchange.wire.end(end(2))
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert (values(view), view.index) == ({"web": "b"}, 2)


async def test_a_marker_before_the_end_is_followed() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.wire.give(MARKER, put(4, "db", "b"), whole(4))
        exchange.wire.end(end(4))
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert values(view) == {"db": "b"}


async def test_an_end_in_a_group_is_one() -> None:
    """A connection may have tasks of its own."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        exchange.wire.end(ExceptionGroup("tasks", [ExceptionGroup("more", [end(1)])]))
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert view.status.reason is not None
        assert isinstance(view.status.reason, EndOfSubject)


async def test_an_end_beside_another_error_is_a_lost_connection() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        exchange.wire.end(ExceptionGroup("tasks", [end(1), OSError("down")]))
        await quiet()
        assert status_of(view) is Status.STALE
        assert len(exchange.wires) == 2


@pytest.mark.parametrize("error", [OSError("down"), PermissionError("no")], ids=["temporary", "for good"])
async def test_leaving_the_last_connection_may_fail(error: Exception) -> None:
    """One that is temporary concerns nobody any more; a mistake of the program is told, as ever."""
    exchange = Exchange()
    async with open_view(exchange, WEB, is_delete=is_gone, raise_on_end=False) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.wire.leaving = error
        exchange.wire.end(end(1))
        await quiet()
        expected = Status.CLOSED if isinstance(error, PermissionError) else Status.FINISHED
        assert view.status.status is expected
        assert values(view) == {"web": "ok"}


async def test_a_reducer_that_fails_on_the_last_event_ends_the_view() -> None:
    exchange = Exchange()
    with pytest.raises(ViewEnded):
        async with viewing(exchange) as view:
            exchange.wire.give(put(1, "web"), whole(1))
            await view.wait_current()
            exchange.wire.give(MARKER.__class__(HEALTH, 2, "no health"))
            exchange.wire.end(end(2))
            await anyio.sleep_forever()


async def test_a_publisher_that_stops_after_the_finish_does_not_end_the_view() -> None:
    store = Catalogue()
    store.publisher = publisher = EventPublisher({HEALTH: store.snapshot})
    async with viewing(publisher.subscribe, WEB) as view:
        async with running(publisher.run):
            await view.wait_current()
            store.commit(("web", "1"), finish=["web"])
        await quiet()
        assert status_of(view) is Status.FINISHED
        assert values(view) == {"web": "1"}


# Shared views.


async def test_a_finished_view_stays_with_its_users_and_the_next_one_gets_a_new_one() -> None:
    """Nobody would tell the old one that the rights of its token were taken away."""
    async with opened() as (store, publisher), ViewPool(publisher.subscribe, is_delete=is_gone) as pool:
        async with pool.view(WEB) as first:
            await first.wait_current()
            store.commit(("web", "1"), finish=["web"])
            await quiet()
            assert first.status.status is Status.FINISHED
            async with pool.view(WEB) as second:
                assert second is not first
                assert values(await second.wait_current()) == values(first) == {"web": "1"}
        await quiet()
        assert len(pool) == 0


async def test_a_query_of_what_is_finished_is_answered_or_told_that_there_will_be_nothing_new() -> None:
    async with opened(epoch="e", index=1) as (store, publisher):
        async with ViewPool(publisher.subscribe, is_delete=is_gone) as pool:
            store.commit(("web", "1"))
            store.commit(("web", "2"), finish=["web"])
            store.commit(("db", "3"))
            with anyio.fail_after(30):
                answers = [await pool.get(WEB, known, epoch="e" if known else "") for known in (0, 1, 2)]
                assert list(map(values, answers)) == [{"web": "2"}] * 3
                with pytest.raises(ViewEnded):
                    await pool.get(WEB, Cursor(3, "e"))
                with pytest.raises(ViewEnded):
                    await pool.get(WEB, answers[0].cursor or 0)


async def test_a_query_that_waits_is_told_of_the_finish() -> None:
    told: list[object] = []

    async def ask() -> None:
        try:
            told.append(values(await pool.get(WEB, 1, epoch="e")))
        except ViewEnded as error:
            told.append(type(error.__cause__))

    for change, expected in [([("web", "2")], {"web": "2"}), ([], EndOfSubject)]:
        async with opened(epoch="e") as (store, publisher):
            store.commit(("web", "1"))
            async with ViewPool(publisher.subscribe, is_delete=is_gone) as pool:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask)
                    await quiet()
                    assert told == []
                    store.commit(*change, finish=["web"])
                    await quiet()
                    assert told == [expected]
                told.clear()
