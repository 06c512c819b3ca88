"""Connections that fail: what is silent, what is reported, what ends the view, and how soon it tries again."""

import random
from typing import Any, cast

import anyio
import pytest
import trio
from backends import in_virtual_time
from catalogue import HEALTH, Health
from scenes import ALL, Held, opened, quiet
from typing_extensions import override
from view.wires import Exchange, HealthView, Wire, put, values, viewing, whole

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    Payload,
    PublisherDisabledError,
    SnapshotFailed,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionLagged,
    UnknownTopicError,
    open_publisher,
)
from trio_stream.view import Status, ViewEnded, ViewStatus

pytestmark = pytest.mark.anyio

TEMPORARY = [OSError("down"), anyio.BrokenResourceError(), SubscriptionLagged(5, "one", 3)]


@pytest.mark.parametrize("error", TEMPORARY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("to_connect", [0, 1])
async def test_after_one_failure_the_view_goes_on_from_where_it_was(
    error: Exception, to_connect: int
) -> None:
    """C21; and U14, U15: while it connects again it is not current, and says why."""
    exchange = Exchange()
    views: list[HealthView] = []
    reported: list[ViewStatus] = []

    def connect(request: SubscribeRequest[Any]) -> Wire:
        reported.extend(view.status for view in views)
        return exchange(request)

    async with viewing(connect) as view:
        views.append(view)
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        refused = [OSError("down")] * to_connect
        exchange.errors += refused
        exchange.wire.end(error, resume=1)
        exchange.horizon = 1
        await quiet()
        assert [request.index for request in exchange.requests] == [0, *[1] * (1 + to_connect)]
        assert reported == [ViewStatus(Status.STALE, reason) for reason in (error, *refused)]
        assert view.status == ViewStatus(Status.CURRENT)
        exchange.wire.give(put(2, "db", "b"))
        assert values(await view.wait_index(2)) == {"web": "a", "db": "b"}


@in_virtual_time
async def test_the_newest_failure_is_reported_and_what_was_shown_stays(anyio_backend: object) -> None:
    """C21."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        down = [OSError(f"down {number}") for number in range(3)]
        exchange.errors.extend(down[1:])
        exchange.wire.end(down[0], resume=1)
        waited = anyio.Event()
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                await view.wait_index(2)
                waited.set()

            tasks.start_soon(wait)
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
            assert view.status == ViewStatus(Status.STALE, down[2])
            assert values(view) == {"web": "a"}
            exchange.horizon = 1
            await anyio.sleep(1)
            assert view.status == ViewStatus(Status.CURRENT)
            assert not waited.is_set()
            exchange.wire.give(put(2, "db", "b"))
        assert waited.is_set()


async def test_a_view_that_never_had_a_state_is_connecting_and_says_what_fails() -> None:
    errors = [OSError("down") for _ in range(100)]
    async with viewing(Exchange(*errors)) as view:
        await quiet()
        assert view.status.status is Status.CONNECTING
        assert view.status.reason in errors


async def test_a_snapshot_function_that_fails_is_asked_again_and_reported() -> None:
    held = Held()
    failures = 0

    async def handler(*args: Any) -> int:
        nonlocal failures
        await held(*args)
        failures += 1
        if failures < 3:
            raise LookupError("not ready")
        return 0

    async with opened(handler) as (_, publisher), viewing(publisher.subscribe) as view:
        held.go.set()
        await quiet()
        assert isinstance(view.status.reason, SnapshotFailed)
        assert view.status.status is Status.CONNECTING
        with anyio.fail_after(5):
            await view.wait_current()
        assert view.status == ViewStatus(Status.CURRENT)


@in_virtual_time
@pytest.mark.parametrize(
    "error",
    [
        anyio.EndOfStream(),
        trio.EndOfChannel(),
        trio.BrokenResourceError(),
        ExceptionGroup("tasks", [OSError("down"), ExceptionGroup("more", [anyio.EndOfStream()])]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_however_a_connection_says_that_it_is_over_the_view_goes_on(
    anyio_backend: object, error: Exception
) -> None:
    """Groups too: a connection may have tasks of its own."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.horizon = 1
        exchange.errors.extend([error] * 2)
        exchange.wire.end(error, resume=1)
        await anyio.sleep(1)
        assert [request.index for request in exchange.requests] == [0, 1, 1, 1]
        assert view.status == ViewStatus(Status.CURRENT)


@pytest.mark.parametrize("when", ["connecting", "receiving"])
async def test_a_terminal_error_in_a_group_ends_the_view(when: str) -> None:
    error = ExceptionGroup("tasks", [OSError("down"), PermissionError("no")])
    exchange = Exchange(*([error] if when == "connecting" else []))
    async with viewing(exchange, raise_on_end=False) as view:
        if when == "receiving":
            exchange.wire.end(error)
        with pytest.raises(ViewEnded) as caught:
            await view.wait_current()
        assert caught.value.__cause__ is error
        assert len(exchange.requests) == 1


TERMINAL = [
    UnknownTopicError("no"),
    PermissionError("no"),
    PublisherDisabledError("no"),
    TypeError("no"),
    ValueError("no"),
]


@pytest.mark.parametrize("error", TERMINAL, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("when", ["at once", "later", "receiving"])
async def test_a_terminal_error_ends_the_view_once_and_reaches_every_waiter(
    error: Exception, when: str
) -> None:
    """C21."""
    exchange = Exchange(*([error] if when == "at once" else []))
    ends: list[ViewEnded] = []

    async def wait(how: Any) -> None:
        with pytest.raises(ViewEnded) as caught:
            await how()
        ends.append(caught.value)

    async with viewing(exchange, raise_on_end=False) as view, anyio.create_task_group() as tasks:

        async def change() -> None:
            async with view.changes() as changes:
                await anext(changes)

        hows = [view.wait_current, lambda: view.wait_for(lambda _: False), lambda: view.wait_index(5), change]
        if when != "at once":
            exchange.wire.give(whole(1))
            await view.wait_current()
            hows = hows[1:]
        for how in hows * 3:
            tasks.start_soon(wait, how)
        await quiet()
        if when == "later":
            exchange.errors.append(error)
            exchange.wire.end(OSError("gone"))
        elif when == "receiving":
            exchange.wire.end(error)
        await quiet()
        assert len(ends) == len(hows) * 3
        assert all(end.__cause__ is error for end in ends)
        assert view.status == ViewStatus(Status.CLOSED, error)
        assert len(exchange.requests) == (2 if when == "later" else 1)
        for how in hows:
            await wait(how)


@in_virtual_time
async def test_it_tries_again_at_once_and_then_ever_more_slowly_up_to_a_minute(
    anyio_backend: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert low == 0
        bounds.append(high)
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    exchange = Exchange(*(OSError("down") for _ in range(14)))
    async with viewing(exchange) as view:
        await anyio.sleep(500)
        gaps = [after - before for before, after in zip(exchange.at, exchange.at[1:], strict=False)]
        expected = [0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60, 60, 60, 60]
        assert gaps == pytest.approx(expected)
        exchange.wire.give(whole(1))
        await view.wait_current()
        exchange.errors.extend(OSError("down") for _ in range(3))
        bounds.clear()
        exchange.wire.end(OSError("gone"), resume=1)
        await anyio.sleep(5)
        assert bounds == pytest.approx([0.2, 0.4])  # at once twice: it had been healthy


@in_virtual_time
async def test_a_server_that_accepts_and_hangs_up_is_not_hammered(anyio_backend: object) -> None:
    """A connection that was resumed and gave nothing was not a healthy one, however current the view is."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.horizon = 1
        ended = 0
        with anyio.move_on_after(60):
            while True:
                while ended < len(exchange.wires):
                    exchange.wires[ended].end(OSError("bye"), resume=1)
                    ended += 1
                await anyio.sleep(0.01)
        assert len(exchange.wires) < 40
        assert isinstance(view.status.reason, OSError)


@in_virtual_time
async def test_a_connection_that_had_nothing_to_tell_for_a_minute_was_healthy(anyio_backend: object) -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.horizon = 1
        for _ in range(20):
            exchange.wire.end(OSError("idle"), resume=1)
            await anyio.sleep(61)
            assert view.status == ViewStatus(Status.CURRENT)


async def test_entering_and_leaving_a_connection_may_fail_like_connecting() -> None:
    exchange = Exchange()
    attempts = 0

    class Refusing:
        async def __aenter__(self) -> Any:
            raise EOFError("handshake")

        async def __aexit__(self, *_: object) -> None:
            raise AssertionError

    def connect(request: SubscribeRequest[Any]) -> Any:
        nonlocal attempts
        attempts += 1
        return Refusing() if attempts == 1 else exchange(request)

    async with viewing(connect) as view:
        await quiet()
        exchange.wire.give(whole(1))
        await view.wait_current()
        exchange.wire.leaving = OSError("leaving")
        exchange.wire.end(anyio.BrokenResourceError(), resume=1)
        await quiet()
        exchange.wire.give(last := put(2, "web"))
        assert (await view.wait_index(2))["web"] is last.payload


class Sour(Payload):
    """Nobody can tell who may read it."""

    key = "web"
    is_delete = False

    @property
    @override
    def subject(self) -> str:
        return "web"

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        raise ZeroDivisionError


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_payload_that_raises_when_asked_who_may_read_it_ends_the_view(waiting: bool) -> None:
    async with opened() as (_, publisher), anyio.create_task_group() as tasks:

        def connect(request: SubscribeRequest[Any]) -> Any:
            return publisher.subscribe(request, authorizer="me")

        async with viewing(connect, raise_on_end=False) as view:
            await view.wait_current()
            ends: list[ViewEnded] = []

            async def wait() -> None:
                with pytest.raises(ViewEnded) as caught:
                    await view.wait_index(9)
                ends.append(caught.value)

            if waiting:  # then another task asks for the horizon
                tasks.start_soon(wait)
                await quiet()
            publisher.publish([Event(HEALTH, 1, cast(Any, Sour()))])
            await quiet()
            await wait()
            assert [type(end.__cause__) for end in ends] == [ZeroDivisionError] * len(ends)


async def test_an_unknown_topic_ends_the_view() -> None:
    async with open_publisher() as publisher:
        with pytest.raises(ViewEnded) as caught:
            async with viewing(publisher.subscribe):
                await anyio.sleep_forever()
        assert isinstance(caught.value.__cause__, UnknownTopicError)


async def test_a_view_may_be_there_before_its_publisher_runs() -> None:
    async def snapshot(*_: object) -> int:
        return 3

    publisher = EventPublisher({HEALTH: snapshot})
    async with viewing(publisher.subscribe) as view, anyio.create_task_group() as tasks:
        await quiet()
        assert view.status == ViewStatus(Status.CONNECTING)
        await tasks.start(publisher.run)
        assert (await view.wait_current()).index == 3
        tasks.cancel_scope.cancel()


async def test_a_revoked_token_that_is_refused_from_now_on_ends_the_view() -> None:
    """D9: what it held stays readable, but nothing new comes."""
    allowed = True
    async with opened() as (store, publisher):

        def connect(request: SubscribeRequest[Any]) -> Any:
            if not allowed:
                raise PermissionError(request.token)
            return publisher.subscribe(request)

        async with viewing(connect, SubscribeRequest(HEALTH, token="t"), raise_on_end=False) as view:
            store.commit(("web", "a"))
            await view.wait_index(1)
            allowed = False
            store.commit(("web", "secret"))
            publisher.close_subscriptions(["t"])
            with pytest.raises(ViewEnded) as caught:
                await view.wait_for(lambda state: state.index > 1)
            assert isinstance(caught.value.__cause__, PermissionError)
            assert values(view) == {"web": "a"}


@pytest.mark.parametrize("reason", [CloseReason.TOKEN, CloseReason.REFRESH, CloseReason.SNAPSHOT_FAILED])
async def test_a_force_close_that_says_drop_it_starts_from_the_beginning(reason: CloseReason) -> None:
    exchange = Exchange()
    async with viewing(exchange, ALL) as view:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.wire.end(SubscriptionForceClosed(reason, 1, "one"))
        await quiet()
        assert exchange.requests[-1].index == 0
        exchange.wire.give(put(2, "db"), whole(2))
        await view.wait_for(lambda state: state.index == 2)
        payload: Health = view["db"]
        assert dict(view) == {"db": payload}


@in_virtual_time
@pytest.mark.parametrize("resumed", [0, 1])
async def test_a_server_that_hangs_up_inside_every_snapshot_is_not_hammered(
    anyio_backend: object, resumed: int
) -> None:
    """What came is not shown, so that the connection was of no use; whether or not the view shows something."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        if resumed:
            exchange.wire.give(put(1, "web"), whole(1))
            await view.wait_current()
        ended = 0
        with anyio.move_on_after(60):
            while True:
                while ended < len(exchange.wires):
                    exchange.wires[ended].give(put(1, "web"))
                    exchange.wires[ended].end(OSError("bye"))
                    ended += 1
                await anyio.sleep(0.01)
        assert len(exchange.wires) < 40
        assert isinstance(view.status.reason, OSError)


@in_virtual_time
async def test_a_connection_that_was_silent_for_a_minute_is_followed_by_one_at_once(
    anyio_backend: object,
) -> None:
    """However many failed before it, and although it had nothing that could be shown."""
    exchange = Exchange(*(OSError("down") for _ in range(8)))
    async with viewing(exchange):
        await anyio.sleep(120)
        assert len(exchange.wires) == 1
        exchange.errors.append(OSError("down"))
        ended = anyio.current_time()
        exchange.wire.end(OSError("idle"))
        await quiet()
        assert exchange.at[-2:] == [ended, ended]
