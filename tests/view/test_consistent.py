"""Several views of one store at one index."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health
from scenes import ALL, WEB, opened, quiet
from view.wires import Exchange, is_gone, put, truth, values, viewing, whole

from trio_stream import Event, SubscribeRequest
from trio_stream.view import (
    EpochChanged,
    Frozen,
    KeyedReducer,
    StateLostError,
    ViewEnded,
    consistent,
    open_view,
)

pytestmark = pytest.mark.anyio

DB = SubscribeRequest(HEALTH, "db")
OTHER = SubscribeRequest(JOBS)


async def test_all_states_are_of_the_same_index_in_the_order_of_the_views() -> None:
    async with opened() as (store, publisher):
        async with (
            viewing(publisher.subscribe, WEB) as web,
            viewing(publisher.subscribe, DB) as db,
            viewing(publisher.subscribe, OTHER) as jobs,
        ):
            for number in range(1, 20):
                topic, key = [(HEALTH, "web"), (HEALTH, "db"), (JOBS, "j")][number % 3]
                index = store.commit((key, f"{number}"), topic=topic)
                if number % 2:
                    index = store.commit(("web", "x"), ("db", "x"))
                cut = await consistent(web, db, jobs, at=index)
                for state, view in zip(cut, (web, db, jobs), strict=True):
                    assert values(state) == truth(store, index, view.request)
                    assert state.index <= index


async def test_each_view_is_taken_as_it_passes_the_index() -> None:
    """The commits come all at once, and the other view is slow."""
    slow = Exchange()
    async with opened(epoch="one") as (store, publisher):
        async with (
            viewing(publisher.subscribe) as fast,
            viewing(slow) as other,
            anyio.create_task_group() as tasks,
        ):
            slow.wire.give(whole(0))
            await fast.wait_current()
            cut: list[Frozen[str, Health]] = []

            async def take() -> None:
                cut.extend(await consistent(other, fast, at=50))

            tasks.start_soon(take)
            await quiet()
            for number in range(1, 3000):
                store.commit(("web", f"{number}"))
            await quiet()
            assert cut == []
            slow.wire.give(put(49, "a"), put(51, "b"))
            await quiet()
            assert [(state.index, values(state)) for state in cut] == [(49, {"a": "ok"}), (50, {"web": "50"})]
            assert (fast.index, other.index) == (2999, 51)


async def test_a_view_that_has_moved_on_still_knows() -> None:
    async with opened() as (store, publisher), viewing(publisher.subscribe) as view:
        await view.wait_current()
        for number in range(1, 500):
            store.commit(("web", f"{number}"))
            await view.wait_index(number)
        for at in (300, 498, 499):
            (state,) = await consistent(view, at=at)
            assert (state.index, values(state)) == (at, {"web": f"{at}"})


async def test_a_view_that_has_moved_on_too_far_says_so() -> None:
    """So it is when the index lies in the middle of commits that came all at once."""
    async with opened() as (store, publisher), viewing(publisher.subscribe) as view:
        await view.wait_current()
        for _ in range(3):
            for number in range(500):
                store.commit(("web", f"{number}"), (f"{number}", "x"))
            await view.wait_index(store.index)
        for at in (0, 1, 499, 1499):
            with pytest.raises(StateLostError, match=f"at {at} "):
                await consistent(view, at=at)
        assert (await consistent(view, at=1500))[0] is view.frozen()


async def test_states_of_an_epoch_that_is_over_are_not_mistaken() -> None:
    async with opened() as (store, publisher), viewing(publisher.subscribe) as view:
        store.commit(("web", "old"))
        await view.wait_index(1)
        publisher.refresh(index=1)
        await view.wait_for(lambda state: state.epoch == publisher.epoch)
        store.commit(("web", "new"))
        assert values((await consistent(view, at=2))[0]) == {"web": "new"}
        assert view.state_at(0) is None
        assert view.state_at(3) is None


async def test_views_of_different_epochs_have_no_index_in_common() -> None:
    async with opened() as (_, one), opened() as (_, two):
        async with viewing(one.subscribe) as first, viewing(two.subscribe) as second:
            await first.wait_current()
            with pytest.raises(EpochChanged) as caught:
                await consistent(first, second, at=0)
            assert {caught.value.old, caught.value.new} == {one.epoch, two.epoch}


@pytest.mark.parametrize("how", ["end", "epoch"])
async def test_when_one_view_cannot_come_to_the_index_nobody_waits_for_the_others(how: str) -> None:
    good, bad = Exchange(), Exchange()
    async with (
        viewing(good) as first,
        viewing(bad, raise_on_end=False) as second,
        anyio.create_task_group() as tasks,
    ):
        good.wire.give(whole(1))
        bad.wire.give(whole(1))
        await quiet()
        error: type[Exception] = ViewEnded if how == "end" else EpochChanged

        async def take() -> None:
            with pytest.raises(error):
                await consistent(first, second, at=5)

        tasks.start_soon(take)
        await quiet()
        if how == "end":
            bad.wire.end(PermissionError("no"))
        else:
            bad.epoch = "two"
            bad.wire.end(OSError("gone"))
        await quiet()
        assert first.statistics().waiting == second.statistics().waiting == 0


async def test_a_fold_of_another_kind_is_cut_as_exactly() -> None:
    exchange = Exchange()

    class Copying(KeyedReducer[Health, str]):
        def apply(self, events: Sequence[Event[Health]], /) -> Mapping[str, Health]:
            return dict(super().apply(events))

    async with open_view(exchange, ALL, reducer=Copying(is_delete=is_gone)) as view:
        exchange.wire.give(*(put(1, f"{n}") for n in range(5000)), whole(1))
        await view.wait_current()
        async with anyio.create_task_group() as tasks:

            async def take() -> None:
                (state,) = await consistent(view, at=7)
                assert (state.index, state["0"].value) == (7, "7")

            tasks.start_soon(take)
            await quiet()
            exchange.wire.give(*(put(index, "0", f"{index}") for index in range(2, 30)))


async def test_no_views_have_no_state() -> None:
    assert await consistent(at=5) == ()


@pytest.mark.parametrize("views", [(1,), ("web", "db"), (None,)])
async def test_what_is_no_view_is_refused_at_the_call(views: Any) -> None:
    """U22: it was an exception group."""
    with pytest.raises(TypeError, match="is not a view"):
        await consistent(*views, at=0)


@pytest.mark.parametrize("at", [None, "1", 1.5, True])
async def test_what_is_no_index_is_refused_at_the_call(at: Any) -> None:
    """U22."""
    async with opened() as (_, publisher), viewing(publisher.subscribe) as view:
        for views in ([view, view], []):
            with pytest.raises(TypeError, match="an index is an integer"):
                await consistent(*views, at=at)


async def test_it_can_be_cancelled() -> None:
    """D12, D13."""
    async with opened() as (_, publisher), viewing(publisher.subscribe) as view:
        await view.wait_current()
        with anyio.move_on_after(0.001):
            await consistent(view, at=9)
        assert view.statistics().waiting == 0


async def test_a_state_is_known_until_more_than_1024_keys_have_changed_since() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "first"), whole(1))
        await view.wait_current()
        for index in range(2, 1026):
            exchange.wire.give(put(index, "web", f"{index}"))
            await view.wait_index(index)
        known = view.state_at(1)
        assert known is not None
        assert values(known) == {"web": "first"}
        exchange.wire.give(put(1026, "web"))
        await view.wait_index(1026)
        assert view.state_at(1) is None
        assert view.state_at(2) is not None


async def test_a_state_that_was_reached_counts_however_much_changes_before_it_is_taken() -> None:
    async with (
        opened() as (store, publisher),
        viewing(publisher.subscribe) as view,
        anyio.create_task_group() as tasks,
    ):
        await view.wait_index(store.commit(("web", "old")))
        cut: list[Frozen[str, Health]] = []

        async def take() -> None:
            cut.extend(await consistent(view, at=3))

        tasks.start_soon(take)
        await quiet()
        store.commit(("web", "new"))
        store.commit(("j", "x"), topic=JOBS)
        store.commit(*((f"{number}", "x") for number in range(2000)))
        await quiet()
        assert [(state.index, values(state)) for state in cut] == [(2, {"web": "new"})]
        assert view.state_at(3) is None
