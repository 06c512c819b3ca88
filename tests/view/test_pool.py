"""Views that are shared: who gets which, how long they are kept, and how many there may be."""

import math
from dataclasses import replace
from typing import Any, cast

import anyio
import pytest
from backends import in_virtual_time
from catalogue import HEALTH, Health
from scenes import ALL, WEB, held_by, opened, quiet
from view.wires import Exchange, is_gone, put, truth, values, whole

from trio_stream import ClosedResourceError, EventPublisher, SubscribeRequest
from trio_stream.view import KeyedReducer, Status, View, ViewEnded, ViewLimitError, ViewPool

pytestmark = pytest.mark.anyio


def pool_of(publisher: EventPublisher, **options: Any) -> ViewPool[str, Health]:
    return ViewPool(publisher.subscribe, is_delete=is_gone, **options)


async def test_all_users_of_a_request_share_one_view() -> None:
    async with opened() as (store, publisher), pool_of(publisher) as pool:
        store.commit(("web", "a"))
        async with pool.view(WEB) as one, pool.view(SubscribeRequest(HEALTH, "web")) as two:
            assert one is two
            assert values(await one.wait_current()) == {"web": "a"}
        async with pool.view(WEB) as three:
            assert three is one
            assert three.status.status is Status.CURRENT
        assert (len(pool), publisher.statistics().subscriptions, store.runs) == (1, 1, 1)
    assert publisher.statistics().subscriptions == 0


async def test_a_view_is_kept_as_long_as_anyone_uses_it() -> None:
    """C9: whoever leaves first does not take it with him."""
    async with opened() as (store, publisher), pool_of(publisher, idle_ttl=0) as pool:
        async with pool.view(WEB) as view:
            async with pool.view(WEB):
                pass
            await quiet()
            assert len(pool) == 1
            index = store.commit(("web", "a"))
            assert values(await view.wait_index(index)) == {"web": "a"}


async def test_another_token_is_another_view() -> None:
    async with opened() as (_, publisher), pool_of(publisher) as pool:
        async with pool.view(WEB) as one, pool.view(SubscribeRequest(HEALTH, "web", token="t")) as two:
            assert one is not two
            await quiet()
            assert (len(pool), publisher.statistics().tokens) == (2, 2)


@in_virtual_time
async def test_a_view_without_users_is_kept_for_its_time_and_then_closed(anyio_backend: object) -> None:
    """C19, D13: idle expiry stops the reader."""
    async with opened(snapshot_cache_ttl=0) as (_, publisher), pool_of(publisher) as pool:
        before = held_by(publisher)
        async with pool.view(WEB) as view:
            await anyio.sleep(5000)
            assert view.status.status is Status.CURRENT
        await anyio.sleep(20 * 60 - 1)
        assert view.status.status is Status.CURRENT
        async with pool.view(WEB) as again:
            assert again is view
        await anyio.sleep(20 * 60 - 1)
        assert len(pool) == 1
        await anyio.sleep(2)
        assert (len(pool), view.status.status) == (0, Status.CLOSED)
        assert held_by(publisher) == before
        async with pool.view(WEB) as new:
            assert new is not view


@in_virtual_time
async def test_views_expire_one_by_one_in_the_order_in_which_they_were_left(anyio_backend: object) -> None:
    async with opened() as (_, publisher), pool_of(publisher, idle_ttl=10) as pool:
        for number in range(3):
            async with pool.view(SubscribeRequest(HEALTH, f"{number}")):
                await anyio.sleep(1)
        async with pool.view(SubscribeRequest(HEALTH, "0")):
            pass
        lengths = []
        for _ in range(12):
            lengths.append(len(pool))
            await anyio.sleep(1.001)
        assert lengths == [3] * 9 + [2, 0, 0]


async def test_a_time_of_0_closes_at_once_and_an_infinite_one_never() -> None:
    async with opened() as (_, publisher):
        for ttl, left in [(0, 0), (math.inf, 1)]:
            async with pool_of(publisher, idle_ttl=ttl) as pool:
                async with pool.view(WEB):
                    pass
                await quiet()
                assert len(pool) == left


async def test_at_its_limit_the_pool_closes_the_view_that_has_been_idle_longest() -> None:
    async with opened() as (_, publisher), pool_of(publisher, limit=3) as pool:
        views = []
        for key in "abc":
            async with pool.view(SubscribeRequest(HEALTH, key)) as view:
                await view.wait_current()
                views.append(view)
        async with pool.view(SubscribeRequest(HEALTH, "a")):
            pass
        async with pool.view(SubscribeRequest(HEALTH, "d")):
            await quiet()
            assert [view.status.status for view in views] == [Status.CURRENT, Status.CLOSED, Status.CURRENT]
            assert len(pool) == 3


async def test_a_pool_whose_views_all_have_users_refuses_another_and_nothing_changes() -> None:
    async with opened() as (_, publisher), pool_of(publisher, limit=1) as pool:
        async with pool.view(WEB) as view:
            for _ in range(2):
                with pytest.raises(ViewLimitError, match="all of 1 views"):
                    await pool.get(ALL)
            assert await pool.get(WEB) is view.frozen()
        assert (await pool.get(ALL)).epoch == publisher.epoch


async def test_a_request_that_is_refused_costs_nobody_its_place() -> None:
    async with opened() as (_, publisher), pool_of(publisher, limit=1) as pool:
        async with pool.view(WEB) as view:
            await view.wait_current()
        with pytest.raises(ValueError, match="begins with a snapshot"):
            await pool.get(SubscribeRequest(HEALTH, index=3))
        await quiet()
        assert (len(pool), view.status.status) == (1, Status.CURRENT)


async def test_a_view_that_has_ended_is_replaced_for_the_next_user() -> None:
    exchange = Exchange(PermissionError("no"))
    pool: ViewPool[str, Health] = ViewPool(exchange, is_delete=is_gone, limit=1)
    async with pool, pool.view(WEB, raise_on_end=False) as old:
        await quiet()
        assert old.status.status is Status.CLOSED
        async with pool.view(WEB) as new:
            assert new is not old
            await quiet()
            exchange.wire.give(put(1, "web"), whole(1))
            assert values(await new.wait_current()) == {"web": "ok"}
        assert len(pool) == 1
        async with pool.view(WEB) as same:
            assert same is new


async def test_a_view_that_has_ended_takes_no_place_and_stays_readable_for_who_has_it() -> None:
    exchange = Exchange()
    pool: ViewPool[str, Health] = ViewPool(exchange, is_delete=is_gone, limit=1)
    async with pool, pool.view(WEB, raise_on_end=False) as old:
        await quiet()
        exchange.wire.give(put(1, "web"), whole(1))
        await old.wait_current()
        exchange.wire.end(PermissionError("no"))
        await quiet()
        assert len(pool) == 0
        async with pool.view(ALL):
            assert values(old) == {"web": "ok"}
        assert len(pool) == 1


async def test_get_returns_at_once_what_is_current() -> None:
    """C19."""
    async with opened() as (store, publisher), pool_of(publisher) as pool:
        store.commit(("web", "a"))
        for _ in range(3):
            assert values(await pool.get(WEB)) == {"web": "a"}
        assert (await pool.get(WEB, 0)).index == 1
        store.commit(("web", "b"))
        await quiet()
        assert (await pool.get(WEB, 1)).index == 2  # below the present one: at once
        assert store.runs == 1


async def test_get_waits_until_the_index_has_passed_for_each_who_waits() -> None:
    """C19: two waiters, and one with a time-out, who asks again for what is current."""
    got: list[tuple[int, int]] = []

    async def ask(index: int) -> None:
        got.append((index, (await pool.get(WEB, index)).index))

    async with opened() as (store, publisher), pool_of(publisher) as pool:
        store.commit(("web", "a"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, 1)
            tasks.start_soon(ask, 2)
            await quiet()
            with anyio.move_on_after(0.001) as scope:
                await pool.get(WEB, 1)
            assert scope.cancelled_caught
            assert (await pool.get(WEB)).index == 1
            assert got == []
            store.commit(("web", "b"))
            await quiet()
            assert got == [(1, 2)]
            store.commit(("web", "c"))
        assert got == [(1, 2), (2, 3)]


async def test_get_answers_when_the_epoch_changes() -> None:
    async with opened() as (store, publisher), pool_of(publisher) as pool:
        store.commit(("web", "a"))
        last = await pool.get(WEB)
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                assert (await pool.get(WEB, last.index)).epoch == publisher.epoch != last.epoch

            tasks.start_soon(ask)
            await quiet()
            store.index = 0
            store.states = {0: {}}
            publisher.refresh()
        store.commit(("web", "x"))


async def test_get_knows_an_answer_of_another_epoch_also_with_a_new_view() -> None:
    async with opened() as (_, publisher):
        async with pool_of(publisher) as pool:
            last = await pool.get(WEB)
            with anyio.move_on_after(0.001) as scope:
                await pool.get(WEB, 100, epoch=last.epoch)
            assert scope.cancelled_caught
        publisher.refresh()
        async with pool_of(publisher) as pool:
            assert (await pool.get(WEB, 100, epoch=last.epoch)).epoch == publisher.epoch


@pytest.mark.parametrize("gives_epoch", [False, True])
async def test_get_blocks_until_there_is_something_new_also_with_a_view_of_its_own(
    gives_epoch: bool,
) -> None:
    """U16: the snapshot of each new view had the index of what others had committed meanwhile."""
    answers: list[int] = []

    async def ask(after: int) -> None:
        answer = await pool.get(WEB, after, **options)
        answers.append(answer.index)
        assert values(answer) == truth(store, answer.index, WEB)

    async with opened(snapshot_cache_ttl=0) as (store, publisher):
        options = {"epoch": publisher.epoch} if gives_epoch else {}
        async with pool_of(publisher, idle_ttl=0) as pool:
            store.commit(("web", "a"))
            last = await pool.get(WEB)
            for number in range(5):
                store.commit(("db", f"{number}"))
                await quiet()
                assert len(pool) == 0
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, last.index)
                    await quiet()
                    store.commit(("db", f"{number}"))
                    await quiet()
                    assert answers == []
                    tasks.cancel_scope.cancel()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, last.index)
                await quiet()
                index = store.commit(("web", "b"))
            assert answers == [index]
            await ask(last.index)  # changed since then: at once
            assert answers[1:] == [store.index]


async def test_get_answers_at_once_what_changed_before_the_view_was_made() -> None:
    """U16: also a change that its snapshot holds and no event tells."""
    async with opened(snapshot_cache_ttl=0) as (store, publisher), pool_of(publisher, idle_ttl=0) as pool:
        last = await pool.get(WEB)
        store.commit(("web", "a"))
        await pool.get(WEB, 0)
        store.commit(("web", None))
        store.commit(("db", "x"))
        await quiet()
        for known in (last.index + 1, 1):
            answer = await pool.get(WEB, known)
            assert (answer.index, values(answer)) == (3, {})


async def test_get_answers_when_it_cannot_be_known_whether_there_is_something_new() -> None:
    """U16: what the client has is older than the history."""
    async with opened(snapshot_cache_ttl=0, history=2) as (store, publisher):
        async with pool_of(publisher, idle_ttl=0) as pool:
            for number in range(5):
                store.commit(("web", f"{number}"))
            await quiet()
            assert (await pool.get(WEB, 1)).index == 5


async def test_get_answers_a_change_of_the_epoch_that_comes_while_a_new_view_waits() -> None:
    """U16: without an epoch given, that of the first state counts."""
    async with opened(snapshot_cache_ttl=0, index=5) as (store, publisher):
        async with pool_of(publisher, idle_ttl=0) as pool, anyio.create_task_group() as tasks:
            answers = []

            async def ask(after: int) -> None:
                answers.append((await pool.get(WEB, after)).epoch)

            tasks.start_soon(ask, 5)
            tasks.start_soon(ask, 7)
            await quiet()
            assert answers == []
            store.index = 0
            store.states = {0: {}}
            publisher.refresh()
            await quiet()
            assert answers == [publisher.epoch] * 2


async def test_get_blocks_with_a_shared_view_whose_horizon_moves_without_an_event() -> None:
    async with opened() as (store, publisher), pool_of(publisher) as pool, pool.view(WEB) as view:
        store.commit(("web", "a"))
        await view.wait_index(1)
        index = store.commit(("db", "x"))
        await view.wait_index(index)
        with anyio.move_on_after(0.001) as scope:
            await pool.get(WEB, 1)
        assert scope.cancelled_caught


async def test_get_raises_when_the_view_ends_while_it_looks_for_something_new() -> None:
    exchange = Exchange()
    async with ViewPool[str, Health](exchange, is_delete=is_gone) as pool:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(ViewEnded):
                    await pool.get(WEB, 3)

            tasks.start_soon(ask)
            await quiet()
            view = exchange.wire
            view.give(put(2, "web"), whole(5))
            await quiet()
            assert len(exchange.wires) == 2
            assert exchange.requests[1] == replace(WEB, index=3, epoch="one")
            view.end(PermissionError("no"))
        assert not exchange.wire.is_open


@pytest.mark.parametrize("min_index", [None, "1", 1.5, True])
async def test_get_refuses_what_is_no_index(min_index: Any) -> None:
    async with pool_of(EventPublisher()) as pool:
        with pytest.raises(TypeError, match="an index is an integer"):
            await pool.get(WEB, min_index)
        assert len(pool) == 0


async def test_a_pool_says_how_many_views_it_has_and_no_tokens() -> None:
    """U22."""
    async with opened() as (_, publisher), pool_of(publisher, limit=7) as pool:
        assert repr(pool) == "<ViewPool of 0 views, at most 7>"
        assert pool
        async with pool.view(SubscribeRequest(HEALTH, "web", token="s3cret")) as view:
            assert repr(pool) == "<ViewPool of 1 views, at most 7>"
            assert "s3cret" not in repr(view)
        with pytest.raises(AttributeError):
            pool.limt = 8  # type: ignore[attr-defined]


async def test_get_raises_how_the_view_has_ended() -> None:
    async with ViewPool(Exchange(*[PermissionError("no")] * 2)) as pool:
        for _ in range(2):
            with pytest.raises(ViewEnded) as caught:
                await pool.get(WEB)
            assert isinstance(caught.value.__cause__, PermissionError)


async def test_leaving_the_pool_ends_its_views_and_releases_who_waits() -> None:
    async with opened() as (_, publisher), anyio.create_task_group() as tasks:
        pool = pool_of(publisher)
        views: list[View[str, Health]] = []

        async def use() -> None:
            async with pool.view(WEB) as view:
                views.append(view)
                with pytest.raises(ViewEnded):
                    await view.wait_index(99)

        async with pool:
            tasks.start_soon(use)
            await quiet()
        assert views[0].status.status is Status.CLOSED
        with pytest.raises(ClosedResourceError):
            await pool.get(WEB)
        with pytest.raises(RuntimeError, match="already"):
            await pool.__aenter__()
        assert publisher.statistics().subscriptions == 0


async def test_an_exception_of_the_block_leaves_the_pool_as_it_is() -> None:
    async with opened() as (_, publisher):
        with pytest.raises(ZeroDivisionError):
            async with pool_of(publisher) as pool, pool.view(WEB):
                raise ZeroDivisionError


async def test_each_view_has_a_reducer_of_its_own() -> None:
    async with opened() as (store, publisher):
        store.commit(("web", "a"), ("db", "b"))
        made = []

        def make() -> KeyedReducer[Health, str]:
            made.append(KeyedReducer[Health, str](lambda health: health.key.upper(), is_gone))
            return made[-1]

        async with ViewPool(publisher.subscribe, reducer=make) as pool:
            assert sorted(await pool.get(ALL)) == ["DB", "WEB"]
            assert sorted(await pool.get(WEB)) == ["WEB"]
        assert len(made) == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"idle_ttl": -1}, ValueError),
        ({"idle_ttl": math.nan}, ValueError),
        ({"limit": 0}, ValueError),
        ({"limit": 1.5}, TypeError),
        ({"limit": True}, TypeError),
    ],
)
async def test_misuse_is_refused_at_the_call(options: dict[str, Any], error: type[Exception]) -> None:
    """D18."""
    with pytest.raises(error):
        ViewPool(cast(Any, None), **options)


@in_virtual_time
async def test_a_view_that_is_used_again_does_not_end_with_the_time_it_was_left_for(
    anyio_backend: object,
) -> None:
    async with opened() as (_, publisher), pool_of(publisher, idle_ttl=10) as pool:
        async with pool.view(WEB) as view:
            await view.wait_current()
        await anyio.sleep(5)
        async with pool.view(WEB):
            await anyio.sleep(20)
            assert (len(pool), view.status.status) == (1, Status.CURRENT)


@in_virtual_time
@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_view_that_ends_while_it_is_idle_leaves_no_time_behind(
    anyio_backend: object, is_replaced: bool
) -> None:
    """The time would end the next view of the request, or the pool."""
    exchange = Exchange()
    async with ViewPool[str, Health](exchange, is_delete=is_gone, idle_ttl=10) as pool:
        async with pool.view(WEB):
            await quiet()
        exchange.wire.end(PermissionError("no"))
        await quiet()
        assert len(pool) == 0
        if is_replaced:
            async with pool.view(WEB) as view:
                await anyio.sleep(20)
                assert (len(pool), view.status.status) == (1, Status.CONNECTING)
        await anyio.sleep(20)
        assert len(pool) == 0
        async with pool.view(ALL):
            assert len(pool) == 1


async def test_an_exception_of_the_block_says_where_it_was_raised() -> None:
    def mistake() -> None:
        raise ZeroDivisionError

    async with opened() as (_, publisher):
        with pytest.raises(ZeroDivisionError) as caught:
            async with pool_of(publisher):
                mistake()
    assert "mistake" in [entry.name for entry in caught.traceback]


@in_virtual_time
async def test_a_view_is_kept_for_20_minutes_where_no_other_time_is_given(anyio_backend: object) -> None:
    async with opened() as (_, publisher), pool_of(publisher) as pool:
        await pool.get(WEB)
        await anyio.sleep(20 * 60 - 1)
        assert len(pool) == 1
        await anyio.sleep(2)
        assert len(pool) == 0
