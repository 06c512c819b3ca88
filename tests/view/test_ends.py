"""A view that an error ends takes its block with it, and says why; whatever can be mended does not."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, Catalogue
from scenes import ALL, opened, quiet
from view.wires import Exchange, HealthView, is_gone, put, values, viewing, whole

from trio_stream import ClosedResourceError, Event, EventPublisher, Framing, SubscribeRequest, running
from trio_stream.view import Status, View, ViewEnded, ViewPool, open_view

pytestmark = pytest.mark.anyio

MISTAKES = [
    AssertionError("no"),
    AttributeError("no"),
    ImportError("no"),
    KeyError("no"),
    LookupError("no"),
    NameError("no"),
    NotImplementedError("no"),
    RuntimeError("no"),
    TypeError("no"),
    ValueError("no"),
    ZeroDivisionError("no"),
    ExceptionGroup("tasks", [OSError("down"), KeyError("no")]),
]


class LibraryError(Exception):
    """What a network library would raise: of no class that is Python's own."""


def named(value: object) -> str:
    return type(value).__name__


@asynccontextmanager
async def by_view(connect: Any, **options: Any) -> AsyncIterator[HealthView]:
    async with open_view(connect, ALL, **({"is_delete": is_gone} | options)) as view:
        yield view


@asynccontextmanager
async def by_pool(connect: Any, **options: Any) -> AsyncIterator[HealthView]:
    async with ViewPool(connect, **({"is_delete": is_gone} | options)) as pool, pool.view(ALL) as view:
        await quiet()  # until it connects
        yield view


ways = pytest.mark.parametrize("opening", [by_view, by_pool])


@ways
@pytest.mark.parametrize("error", MISTAKES, ids=named)
@pytest.mark.parametrize("when", ["at once", "later"])
async def test_a_mistake_in_connect_cancels_the_block_and_leaves_as_view_ended(
    opening: Any, error: Exception, when: str
) -> None:
    """U14: it was tried again for ever, and nobody said so."""
    exchange = Exchange(*([error] if when == "at once" else []))
    with pytest.raises(ViewEnded) as caught, anyio.fail_after(5):
        async with opening(exchange) as view:
            if when == "later":
                exchange.wire.give(put(1, "web"), whole(1))
                await view.wait_current()
                exchange.errors.append(error)
                exchange.wire.end(OSError("gone"), resume=1)
            await anyio.sleep_forever()
    assert caught.value.__cause__ is error


@ways
@pytest.mark.parametrize("error", [OSError("no"), EOFError("no"), LibraryError("no")], ids=named)
async def test_what_a_connection_may_fail_with_ends_nothing(opening: Any, error: Exception) -> None:
    exchange = Exchange(error, error)
    async with opening(exchange) as view:
        with anyio.fail_after(5):
            await exchange.connected.wait()
        exchange.wire.give(put(1, "web"), whole(1))
        assert values(await view.wait_current()) == {"web": "ok"}


@ways
@pytest.mark.parametrize("function", ["key", "is_delete"])
async def test_a_record_that_a_function_cannot_take_ends_the_view_loudly(opening: Any, function: str) -> None:
    """U14: with the real publisher; the view went on showing the old state."""

    def fussy(payload: Any) -> Any:
        return (
            {}[payload.value]
            if payload.value == "bad"
            else {"key": payload.key, "is_delete": False}[function]
        )

    with pytest.raises(ViewEnded) as caught, anyio.fail_after(5):
        async with opened() as (store, publisher):
            async with opening(publisher.subscribe, **{function: fussy}) as view:
                store.commit(("web", "good"))
                await view.wait_index(1)
                store.commit(("web", "bad"))
                await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, KeyError)
    assert "while the view folded" in caught.value.__cause__.__notes__[0]


@ways
async def test_tasks_inside_of_the_block_are_cancelled_and_do_not_make_a_group_of_it(opening: Any) -> None:
    exchange = Exchange()
    with pytest.raises(ViewEnded) as caught, anyio.fail_after(5):
        async with opening(exchange) as view, anyio.create_task_group() as tasks:
            tasks.start_soon(view.wait_index, 5)
            tasks.start_soon(view.wait_for, lambda _: False)
            tasks.start_soon(anyio.sleep_forever)
            await quiet()
            exchange.wire.end(PermissionError("no"))
    assert isinstance(caught.value.__cause__, PermissionError)


@ways
async def test_a_block_that_notices_nothing_raises_when_it_is_left(opening: Any) -> None:
    exchange = Exchange()
    with pytest.raises(ViewEnded):
        async with opening(exchange) as view:
            exchange.wire.end(PermissionError("no"))
            with anyio.CancelScope(shield=True):
                await quiet()
            assert view.status.status is Status.CLOSED


@ways
async def test_an_exception_of_the_block_leaves_it_as_it_is_also_after_the_end(opening: Any) -> None:
    exchange = Exchange()
    with pytest.raises(ZeroDivisionError):
        async with opening(exchange):
            exchange.wire.end(PermissionError("no"))
            try:
                await anyio.sleep_forever()
            finally:
                raise ZeroDivisionError


@ways
async def test_a_view_that_has_ended_by_itself_does_not_hide_a_cancellation_from_outside(
    opening: Any,
) -> None:
    exchange = Exchange()
    with anyio.CancelScope() as scope:
        async with opening(exchange):
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


@ways
async def test_a_block_that_was_left_is_not_cancelled_by_what_comes_then(opening: Any) -> None:
    class Leaving(Exchange):
        def __call__(self, request: SubscribeRequest[Any]) -> Any:
            wire = super().__call__(request)
            wire.leaving = KeyError("leaving")
            return wire

    exchange = Leaving()
    async with opening(exchange) as view:
        exchange.wire.give(whole(1))
        await view.wait_current()


async def test_without_raising_the_block_goes_on_and_what_was_held_stays() -> None:
    exchange = Exchange()
    async with viewing(exchange, raise_on_end=False) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.wire.end(error := PermissionError("no"))
        await quiet()
        await anyio.lowlevel.checkpoint()
        assert (view.status.status, view.status.reason) == (Status.CLOSED, error)
        assert values(view) == {"web": "ok"}


async def test_every_user_of_a_pooled_view_gets_the_end_and_the_pool_goes_on() -> None:
    """U14: users who only hold it, who wait, who asked; then there is a new view for the next one."""
    exchange = Exchange()
    ends: list[BaseException | None] = []

    async def ended(use: Callable[[], Any]) -> None:
        with pytest.raises(ViewEnded) as caught:
            await use()
        ends.append(caught.value.__cause__)

    async def hold() -> None:
        async with pool.view(ALL):
            await anyio.sleep_forever()

    async def wait() -> None:
        async with pool.view(ALL, raise_on_end=False) as view:
            await view.wait_index(9)

    pool: ViewPool[str, Any] = ViewPool(exchange, is_delete=is_gone)
    async with pool, anyio.create_task_group() as tasks:
        for use in (hold, hold, wait, lambda: pool.get(ALL, 9)):
            tasks.start_soon(ended, use)
        await quiet()
        exchange.wire.give(put(1, "web"), whole(1))
        await quiet()
        exchange.wire.end(error := PermissionError("no"))
        await quiet()
        assert ends == [error] * 4
        assert len(pool) == 0
        async with pool.view(ALL) as view:
            await quiet()
            exchange.wire.give(put(2, "web"), whole(2))
            assert (await view.wait_current()).index == 2


async def test_a_pool_that_is_left_ends_the_views_of_others_without_an_error_of_theirs() -> None:
    async with opened() as (_, publisher), anyio.create_task_group() as tasks:
        pool: ViewPool[str, Any] = ViewPool(publisher.subscribe, is_delete=is_gone)
        views: list[View[Any, Any]] = []
        go = anyio.Event()

        async def use() -> None:
            async with pool.view(ALL) as view:
                views.append(view)
                await go.wait()

        async with pool:
            tasks.start_soon(use)
            await quiet()
        assert views[0].status.reason is None
        go.set()


async def test_a_stopped_publisher_ends_the_block() -> None:
    store = Catalogue()
    store.publisher = publisher = EventPublisher({HEALTH: store.snapshot})
    with pytest.raises(ViewEnded) as caught, anyio.fail_after(5):
        async with viewing(publisher.subscribe) as view:
            async with running(publisher.run):
                await view.wait_current()
            await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, ClosedResourceError)


async def test_a_kind_of_framing_that_is_not_known_ends_the_view() -> None:
    """U23: the view took it for a new snapshot that never came, and was silently stale."""
    third: Any = object.__new__(Framing)
    third._name_, third._value_ = "THIRD", "third"
    exchange = Exchange()
    with pytest.raises(ViewEnded) as caught, anyio.fail_after(5):
        async with viewing(exchange) as view:
            exchange.wire.give(put(1, "web"), whole(1))
            await view.wait_current()
            exchange.wire.give(Event(HEALTH, 2, third), put(3, "web"))
            await anyio.sleep_forever()
    assert isinstance(caught.value.__cause__, AssertionError)
