"""What a view shows while all goes well, and how it is opened and left."""

from dataclasses import FrozenInstanceError
from typing import Any, cast

import anyio
import pytest
from catalogue import HEALTH, Health, event
from scenes import ALL, WEB, held_by, opened, quiet
from view.wires import Exchange, indexes, is_gone, put, truth, values, viewed, viewing, whole

from trio_stream import (
    NoOpEventPublisher,
    PublisherDisabledError,
    SubscribeRequest,
    open_publisher,
)
from trio_stream.stores import Put, Record, open_store, open_store_publisher, topic
from trio_stream.view import Frozen, Status, View, ViewEnded, ViewStatus, open_view

pytestmark = pytest.mark.anyio


async def test_a_view_is_empty_until_the_snapshot_is_whole_and_then_follows() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "a"), ("db", "b"))
        async with viewing(publisher.subscribe) as view:
            assert (dict(view), view.index, view.epoch) == ({}, 0, "")
            assert view.status == ViewStatus(Status.CONNECTING)
            state = await view.wait_current()
            assert values(state) == values(view) == {"web": "a", "db": "b"}
            assert (view.index, view.epoch) == (1, publisher.epoch)
            store.commit(("web", None), ("api", "c"))
            await quiet()
            assert values(view) == {"db": "b", "api": "c"}
            assert (view.index, len(view), "web" in view, view["api"].value) == (2, 2, False, "c")
            assert view.status == ViewStatus(Status.CURRENT)
            assert view.request is ALL
            assert "current at 2" in repr(view)
        assert view.status == ViewStatus(Status.CLOSED)
        assert values(view) == {"db": "b", "api": "c"}


async def test_a_store_with_no_commit_yet_gives_a_view_that_is_current_and_empty() -> None:
    async with viewed() as (store, publisher, view):
        assert (dict(view), view.index, view.epoch) == ({}, 0, publisher.epoch)
        store.commit(("web", "a"))
        assert values(await view.wait_index(1)) == {"web": "a"}


async def test_a_view_is_current_with_all_that_was_committed_before_it_was_opened() -> None:
    """D8: also when its snapshot is a cached one that lacks it."""
    async with viewed() as (store, publisher, _):
        for number in range(1, 100):
            store.commit((f"{number}", "a"))
        async with viewing(publisher.subscribe) as view:
            assert (await view.wait_current()).index == 99
        assert store.runs == 1


async def test_a_view_shows_only_what_it_asked_for() -> None:
    async with viewed(WEB) as (store, _, view):
        store.commit(("web", "a"), ("db", "b"))
        await quiet()
        assert values(view) == truth(store, 1, WEB) == {"web": "a"}


async def test_records_of_a_store_need_no_functions(tmp_path: Any) -> None:
    jobs = topic("jobs")
    async with open_store(f"sqlite:{tmp_path / 'jobs.db'}") as store:
        async with open_store_publisher(store, ["jobs"]) as publisher:
            view: View[str, Record]
            async with open_view(publisher.subscribe, SubscribeRequest(jobs)) as view:
                index = await store.commit([Put("jobs", "a", 1), Put("jobs", "b", 2)])
                with anyio.fail_after(10):
                    state = await view.wait_index(index)
                assert {key: record.value for key, record in state.items()} == {"a": 1, "b": 2}


async def test_what_was_frozen_stays_as_it_was_and_cannot_be_changed() -> None:
    async with viewed() as (store, publisher, view):
        store.commit(("web", "a"), ("db", "b"))
        await quiet()
        frozen = view.frozen()
        for _ in range(20):
            store.commit(("web", "c"), ("db", None))
            store.commit(("db", "d"))
        await quiet()
        assert (values(frozen), len(frozen), frozen.index, frozen.epoch) == (
            {"web": "a", "db": "b"},
            2,
            1,
            publisher.epoch,
        )
        assert view.frozen() is view.frozen() is not frozen
        for name in Frozen.__slots__:
            with pytest.raises(FrozenInstanceError):
                setattr(frozen, name, 5)
            with pytest.raises(FrozenInstanceError):
                delattr(frozen, name)
        with pytest.raises(TypeError):
            cast(Any, frozen)["web"] = None
        assert "index=1" in repr(frozen)
        assert frozen == {"web": Health("web", "a"), "db": Health("db", "b")}


async def test_reading_in_steps_does_not_break_when_the_view_goes_on() -> None:
    async with viewed() as (store, _, view):
        store.commit(("web", "a"), ("db", "b"), ("api", "c"))
        await quiet()
        keys = []
        for number, key in enumerate(view):
            keys.append(key)
            store.commit((f"new{number}", "x"), ("web", None))
            await quiet()
        assert sorted(keys) == ["api", "db", "web"]
        assert len(view) == 5


async def test_statistics_count() -> None:
    async with viewed() as (store, _, view):
        store.commit(("web", "a"), ("db", "b"))
        store.commit(("web", "c"))
        async with view.changes(), anyio.create_task_group() as tasks:
            tasks.start_soon(view.wait_index, 100)
            tasks.start_soon(view.wait_index, 100)
            await quiet()
            figures = view.statistics()
            assert (figures.keys, figures.events, figures.snapshots, figures.connections) == (2, 2, 1, 1)
            assert (figures.waiting, figures.changes) == (2, 1)
            tasks.cancel_scope.cancel()
        assert (view.statistics().waiting, view.statistics().changes) == (0, 0)


@pytest.mark.parametrize("error", [LookupError("mine"), KeyboardInterrupt(), SystemExit(3)])
async def test_an_exception_of_the_block_leaves_it_as_it_is(error: BaseException) -> None:
    async with opened() as (_, publisher):
        with pytest.raises(type(error)) as caught:
            async with viewing(publisher.subscribe):
                raise error
        assert caught.value is error
        assert publisher.statistics().subscriptions == 0


async def test_a_view_that_was_left_leaves_nothing_at_the_publisher() -> None:
    """D13."""
    async with opened(snapshot_cache_ttl=0) as (_, publisher):
        before = held_by(publisher)
        for _ in range(3):
            async with viewing(publisher.subscribe, SubscribeRequest(HEALTH, token="t")) as view:
                await view.wait_current()
                assert publisher.statistics().tokens == 1
        assert held_by(publisher) == before


async def test_a_view_of_a_disabled_publisher_ends_and_says_why() -> None:
    async with viewing(NoOpEventPublisher().subscribe, raise_on_end=False) as view:
        with pytest.raises(ViewEnded) as caught:
            await view.wait_current()
        assert isinstance(caught.value.__cause__, PublisherDisabledError)
        assert view.status == ViewStatus(Status.CLOSED, caught.value.__cause__)


async def test_misuse_is_refused_at_the_call() -> None:
    """D18."""
    async with open_publisher() as publisher:
        for connect, request, error in [
            (publisher, ALL, TypeError),
            (publisher.subscribe, HEALTH, TypeError),
            (publisher.subscribe, SubscribeRequest(HEALTH, index=3), ValueError),
        ]:
            with pytest.raises(error):
                async with open_view(cast(Any, connect), cast(Any, request)):
                    raise AssertionError
    async with viewed() as (_, _, view):
        for index in (None, "1", 1.0, True):
            with pytest.raises(TypeError, match="an index is an integer"):
                await view.wait_index(cast(Any, index))
        with pytest.raises(RuntimeError, match="already"):
            await view.run()
        assert view.status.status is Status.CURRENT


async def test_an_empty_view_is_true_and_an_empty_state_is_not() -> None:
    """U22: `if view` asks whether there is one; a state is a mapping like others."""
    async with viewing(Exchange()) as view:
        assert view
        assert not view.frozen()


async def test_a_mistyped_attribute_is_refused() -> None:
    """U22."""
    async with viewed() as (_, _, view):
        with pytest.raises(AttributeError):
            view.inedx = 5  # type: ignore[attr-defined]


async def test_a_connection_of_another_kind_does_as_well() -> None:
    exchange = Exchange()
    async with open_view(exchange, ALL, is_delete=is_gone) as view:
        exchange.wire.give(put(3, "web"), put(5, "db"), whole(7))
        assert values(await view.wait_current()) == {"web": "ok", "db": "ok"}
        assert (view.index, view.epoch) == (7, "one")
        exchange.wire.give(put(8, "web", None))
        assert values(await view.wait_index(8)) == {"db": "ok"}
    assert not exchange.wire.is_open


async def test_a_commit_is_shown_at_once_or_not_at_all() -> None:
    """D4."""
    seen: list[Frozen[str, Health]] = []
    async with viewed() as (store, _, view), anyio.create_task_group() as tasks:
        tasks.start_soon(indexes, view, seen)
        await quiet()
        store.commit_events(event(1, f"{i}") for i in range(50))
        await quiet()
        assert [(state.index, len(state)) for state in seen] == [(0, 0), (1, 50)]
        tasks.cancel_scope.cancel()


async def test_a_view_tells_what_is_in_it() -> None:
    async with viewed() as (store, _, view):
        await view.wait_index(store.commit(("web", "a"), ("db", "b")))
        assert "web" in view
        assert "api" not in view
        await view.wait_index(store.commit(("web", None)))
        assert "web" not in view
