"""What a view shows while its state is replaced."""

from itertools import groupby

import anyio
import pytest
from catalogue import HEALTH, Health
from scenes import ALL, Held, opened, quiet
from view.wires import MARKER, Exchange, HealthView, indexes, put, values, viewed, viewing, whole

from trio_stream import CloseReason, SubscribeRequest, SubscriptionForceClosed
from trio_stream.view import Frozen, Status

pytestmark = pytest.mark.anyio

STALE, CURRENT = Status.STALE, Status.CURRENT


@pytest.mark.parametrize("how", ["token", "topic", "epoch"])
async def test_the_old_state_stays_until_the_new_snapshot_is_whole_and_is_then_replaced(how: str) -> None:
    """C20: never merged, never empty in between."""
    seen: list[Frozen[str, Health]] = []
    held = Held()
    held.go.set()
    async with opened(held, snapshot_cache_ttl=0) as (_, publisher):
        store = held.store
        store.publisher = publisher
        store.commit(("web", "a"), ("db", "a"))
        request = SubscribeRequest(HEALTH, token="t")
        async with viewing(publisher.subscribe, request) as view, anyio.create_task_group() as tasks:
            await view.wait_current()
            tasks.start_soon(indexes, view, seen)
            await quiet()
            held.go = anyio.Event()
            match how:
                case "token":
                    publisher.close_subscriptions(["t"])
                case "topic":
                    publisher.refresh(HEALTH)
                case _:
                    publisher.refresh(index=1)
            await quiet()
            assert view.status.status is STALE
            assert values(view) == {"web": "a", "db": "a"}
            store.commit(("db", None), ("api", "b"))
            await quiet()
            assert (values(view), view.index) == ({"web": "a", "db": "a"}, 1)
            held.go.set()
            await view.wait_for(lambda state: state.index == 2)
            assert values(view) == {"web": "a", "api": "b"}
            assert view.status.status is CURRENT
            tasks.cancel_scope.cancel()
    assert [keys for keys, _ in groupby(map(sorted, seen))] == [["db", "web"], ["api", "web"]]


@pytest.mark.parametrize("how", ["token", "topic", "epoch", "lag"])
async def test_what_happens_inside_a_new_snapshot_keeps_the_old_state_until_another_one_is_whole(
    how: str,
) -> None:
    """C20."""
    held = Held()
    held.go.set()
    async with opened(held, snapshot_cache_ttl=0, history=8) as (_, publisher):
        store = held.store
        store.publisher = publisher
        store.commit(("web", "a"))
        async with viewing(publisher.subscribe, SubscribeRequest(HEALTH, token="t")) as view:
            await view.wait_current()
            held.go = anyio.Event()
            publisher.close_subscriptions(["t"])
            await quiet()
            match how:
                case "token":
                    publisher.close_subscriptions(["t"])
                case "topic":
                    publisher.refresh(HEALTH)
                case "epoch":
                    publisher.refresh(index=1)
                case _:
                    for _ in range(50):
                        store.commit(("db", "x"))
            await quiet()
            store.commit(("web", "z"))
            await quiet()
            assert (values(view), view.status.status) == ({"web": "a"}, STALE)
            held.go.set()
            with anyio.fail_after(5):
                state = await view.wait_for(lambda state: state.index == store.index)
            assert (state["web"].value, view.status.status) == ("z", CURRENT)


async def test_a_reader_that_lags_is_reset_in_the_same_way() -> None:
    """The view is kept from running by one long stretch without a checkpoint."""
    async with viewed(history=8) as (store, _, view):
        for number in range(100):
            store.commit((f"{number % 10}", f"{number}"))
        assert view.index == 0
        assert values(await view.wait_index(100)) == {f"{n % 10}": f"{n}" for n in range(90, 100)}
        assert view.statistics().connections == view.statistics().snapshots == 2


async def test_parts_of_a_snapshot_are_never_shown() -> None:
    exchange = Exchange()
    seen: list[Frozen[str, Health]] = []
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        tasks.start_soon(indexes, view, seen)
        for index in range(1, 5):
            exchange.wire.give(put(index, f"{index}"))
            await quiet()
            assert (dict(view), view.index) == ({}, 0)
        exchange.wire.give(whole(4))
        await quiet()
        exchange.wire.give(MARKER)
        await quiet()
        assert view.status.status is STALE
        exchange.wire.give(put(2, "2"))
        await quiet()
        assert (len(view), view.index) == (4, 4)
        exchange.wire.give(put(6, "6"), whole(6), put(7, "7"))
        await quiet()
        assert (sorted(view), view.index, view.status.status) == (["2", "6", "7"], 7, CURRENT)
        tasks.cancel_scope.cancel()
    assert [(state.index, len(state)) for state in seen] == [(4, 4), (7, 3)]


async def test_a_broken_connection_inside_a_snapshot_starts_again_and_merges_nothing() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "old"))
        await quiet()
        exchange.wire.end(OSError("gone"))
        await quiet()
        exchange.wire.give(put(2, "new"), whole(2))
        assert values(await view.wait_current()) == {"new": "ok"}


async def again(view: HealthView, exchange: Exchange) -> None:
    """A view at 10 whose connection was force-closed, so that a snapshot follows."""
    exchange.wire.give(put(10, "web", "10"), whole(10))
    await view.wait_current()
    exchange.wire.end(SubscriptionForceClosed(CloseReason.TOKEN, 10, "one"))
    await quiet()
    assert len(exchange.wires) == 2


async def test_an_older_snapshot_is_shown_only_when_it_has_caught_up() -> None:
    """C20: the index does not go back within an epoch."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        await again(view, exchange)
        exchange.wire.give(put(7, "web", "7"), whole(7))
        await quiet()
        assert (values(view), view.index, view.status.status) == ({"web": "10"}, 10, STALE)
        exchange.wire.give(put(9, "db", "9"))
        await quiet()
        assert (values(view), view.index, view.status.status) == ({"web": "10"}, 10, STALE)
        exchange.wire.give(put(11, "api", "11"))
        await quiet()
        assert values(view) == {"web": "7", "db": "9", "api": "11"}
        assert (view.index, view.status.status) == (11, CURRENT)


async def test_an_older_snapshot_has_caught_up_also_when_no_event_comes_any_more() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        await again(view, exchange)
        exchange.wire.give(put(7, "web", "7"), whole(7))
        await quiet()
        exchange.wire.publish(9)
        await quiet()
        assert (values(view), view.status.status) == ({"web": "10"}, STALE)
        exchange.wire.publish(12)
        await quiet()
        assert (values(view), view.index, view.status.status) == ({"web": "7"}, 10, CURRENT)


async def test_who_waits_gets_exactly_the_state_of_its_index_when_an_older_snapshot_catches_up() -> None:
    exchange = Exchange()
    states: dict[int, Frozen[str, Health]] = {}
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        await again(view, exchange)

        async def wait(index: int) -> None:
            states[index] = await view.wait_index(index)

        for index in (11, 12, 13):
            tasks.start_soon(wait, index)
        await quiet()
        exchange.wire.give(put(7, "web", "7"), whole(7), put(9, "a"), put(12, "b"), put(14, "c"))
    found = {index: (state.index, sorted(state)) for index, state in states.items()}
    assert found == {11: (10, ["a", "web"]), 12: (12, ["a", "b", "web"]), 13: (12, ["a", "b", "web"])}


async def test_in_another_epoch_the_index_may_be_lower() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        await again(view, exchange)
        exchange.epoch = "two"
        exchange.wire.end(OSError("gone"), resume=10)
        await quiet()
        assert (view.epoch, view.status.status) == ("one", STALE)
        exchange.wire.give(MARKER, put(2, "web", "2"), whole(3))
        await quiet()
        assert (view.epoch, view.index, values(view)) == ("two", 3, {"web": "2"})


async def test_a_snapshot_ahead_of_what_was_published_is_shown_at_its_index() -> None:
    """D2."""
    async with opened() as (store, publisher):
        store.publisher = None
        for number in range(1, 6):
            store.commit(("web", f"{number}"))
        async with viewing(publisher.subscribe, ALL) as view:
            state = await view.wait_current()
            assert (state.index, values(state)) == (5, {"web": "5"})
            for number in range(1, 6):
                publisher.publish([put(number, "web", f"{number}")])
                await quiet()
                assert (view.index, values(view)) == (5, {"web": "5"})
            publisher.publish([put(6, "web", "6")])
            assert (await view.wait_index(6)).index == 6


async def test_a_state_that_was_shown_is_known_when_an_older_snapshot_has_caught_up_past_it() -> None:
    """What it caught up with in one go is not told apart, but nothing of that is between the two states shown."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        await again(view, exchange)
        exchange.wire.give(put(7, "web", "10"), whole(7))
        await quiet()
        exchange.wire.give(put(8, "db", "8"), put(10, "web", "10"), put(12, "api", "12"))
        await quiet()
        before = view.state_at(10)
        assert before is not None
        assert (before.index, values(before)) == (10, {"web": "10"})
        assert [view.state_at(index) is None for index in (9, 11, 12)] == [True, True, False]
