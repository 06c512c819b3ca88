"""Waiting until what a view shows is as one wants it."""

from collections.abc import Generator
from functools import partial
from typing import Any

import anyio
import pytest
from scenes import quiet
from view.wires import Exchange, values, viewed, viewing, whole

from trio_stream.view import ViewEnded

pytestmark = pytest.mark.anyio


async def test_it_returns_the_state_of_which_the_predicate_was_true() -> None:
    async with viewed() as (store, _, view), anyio.create_task_group() as tasks:

        async def wait() -> None:
            state = await view.wait_for(lambda state: "web" in state and state["web"].value == "b")
            assert (state.index, values(state)) == (3, {"web": "b", "db": "b"})

        tasks.start_soon(wait)
        for key, value in [("web", "a"), ("db", "b"), ("web", "b"), ("web", "c")]:
            await quiet()
            store.commit((key, value))


async def test_it_returns_at_once_what_is_so_already_and_is_a_checkpoint_even_then() -> None:
    async with viewed() as (_, _, view):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await view.wait_for(lambda _: True)
        assert scope.cancelled_caught
        assert await view.wait_for(lambda _: True) is view.frozen()


async def test_it_waits_for_a_view_that_is_current() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        asked: list[int] = []
        tasks.start_soon(view.wait_for, lambda state: asked.append(state.index))
        await quiet()
        assert asked == []
        exchange.wire.give(whole(4))
        await quiet()
        assert asked == [4]
        tasks.cancel_scope.cancel()


async def test_what_the_predicate_raises_comes_out_and_disturbs_nobody() -> None:
    async with viewed() as (store, _, view):
        with pytest.raises(ZeroDivisionError):
            await view.wait_for(lambda state: 1 / len(state))
        store.commit(("web", "a"))
        assert values(await view.wait_for(lambda state: state.index == 1)) == {"web": "a"}


async def asynchronous(_: object) -> bool:
    raise AssertionError("nobody has awaited this")


class Later:
    def __await__(self) -> Generator[None, None, bool]:
        raise AssertionError("nobody has awaited this")


class Asynchronous:
    async def __call__(self, _: object) -> bool:
        return await asynchronous(_)


@pytest.mark.parametrize(
    "predicate",
    [
        asynchronous,
        partial(asynchronous),
        Asynchronous(),
        lambda state: asynchronous([state]),
        lambda state: Later(),
        None,
        True,
    ],
    ids=["function", "partial", "object", "lambda", "awaitable", "None", "True"],
)
async def test_a_predicate_that_is_async_or_none_is_refused(predicate: Any) -> None:
    """U22: an awaitable is always true."""
    async with viewed() as (store, _, view):
        with pytest.raises(TypeError, match="predicate"):
            await view.wait_for(predicate)
        store.commit(("web", "a"))
        assert (await view.wait_index(1)).index == 1


async def test_an_async_function_is_refused_before_there_is_a_state() -> None:
    async with viewing(Exchange()) as view:
        with pytest.raises(TypeError, match="not async"):
            await view.wait_for(asynchronous)


async def test_a_view_that_ends_releases_it() -> None:
    exchange = Exchange()
    async with viewing(exchange, raise_on_end=False) as view, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(ViewEnded, match="ended"):
                await view.wait_current()

        tasks.start_soon(wait)
        await quiet()
        exchange.wire.end(PermissionError())
