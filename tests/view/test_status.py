"""What the status of a view says while its connection is lost, and what those who wait get meanwhile."""

from dataclasses import replace
from typing import Any, cast

import anyio
import pytest
import trio
from catalogue import HEALTH
from scenes import ALL, opened, quiet
from view.wires import MARKER, Exchange, HealthView, Wire, is_gone, put, values, viewing, whole

from trio_stream import CloseReason, Event, SubscribeRequest, SubscriptionForceClosed, SubscriptionLagged
from trio_stream.view import Frozen, Status, ViewEnded, ViewStatus, open_view

pytestmark = pytest.mark.anyio

TEMPORARY = [
    OSError("down"),
    anyio.BrokenResourceError(),
    trio.EndOfChannel(),
    SubscriptionLagged(5, "one", 3),
    SubscriptionForceClosed(CloseReason.REFRESH, 5, "one"),
]


class Hanging(Exchange):
    """Its connections hang while they are entered, or left, as long as they are held."""

    def __init__(self) -> None:
        super().__init__()
        self.holds: dict[str, anyio.Event] = {}
        self.entered = 0

    def hold(self, where: str) -> None:
        self.holds[where] = anyio.Event()

    def go(self) -> None:
        for held in self.holds.values():
            held.set()
        self.holds.clear()

    def __call__(self, request: SubscribeRequest[Any]) -> "HangingWire":
        super().__call__(request)
        self.wires[-1] = wire = HangingWire(request, self.epoch, self.horizon)
        wire.exchange = self
        return wire


class HangingWire(Wire):
    exchange: Hanging

    async def __aenter__(self) -> Any:
        if "enter" in self.exchange.holds:
            await self.exchange.holds["enter"].wait()
        self.exchange.entered += 1
        return await super().__aenter__()

    async def __aexit__(self, *error: object) -> None:
        if "exit" in self.exchange.holds:
            await self.exchange.holds["exit"].wait()
        await super().__aexit__(*error)


@pytest.mark.parametrize("error", TEMPORARY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["enter", "exit"])
@pytest.mark.parametrize("resume", [0, 1])
async def test_a_connection_that_is_lost_is_said_before_the_next_one_is_there(
    error: Exception, where: str, resume: int
) -> None:
    """U15: the view stayed current, and whoever waited for that got a state that was void."""
    exchange = Hanging()
    states: list[Frozen[str, Any]] = []

    async def wait() -> None:
        states.append(await view.wait_current())

    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.hold(where)
        exchange.horizon = resume
        exchange.wire.end(error, resume=resume)
        await quiet()
        assert view.status == ViewStatus(Status.STALE, error)
        tasks.start_soon(wait)
        await quiet()
        assert states == []
        assert values(view) == {"web": "a"}
        exchange.go()
        await quiet()
        if not resume:
            assert states == []
            exchange.wire.give(put(2, "web", "b"), whole(2))
            await quiet()
        assert [state.index for state in states] == [1 if resume else 2]
        assert view.status == ViewStatus(Status.CURRENT)


@pytest.mark.parametrize("of", ["connection", "key"])
async def test_a_view_that_will_end_is_not_current_while_it_leaves_its_connection(of: str) -> None:
    """U15."""
    exchange = Hanging()
    async with viewing(exchange, raise_on_end=False) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.hold("exit")
        if of == "key":
            exchange.wire.give(Event(HEALTH, 2, cast(Any, object())))
        else:
            exchange.wire.end(PermissionError("no"))
        await quiet()
        lost = view.status
        assert lost.status is Status.STALE
        assert isinstance(lost.reason, AttributeError if of == "key" else PermissionError)
        exchange.go()
        await quiet()
        assert view.status == ViewStatus(Status.CLOSED, lost.reason)


async def test_the_first_failure_to_connect_is_in_the_status_at_once() -> None:
    """U14: there was nothing until the second one in a row."""
    exchange = Hanging()
    exchange.errors.append(down := OSError("down"))
    exchange.hold("enter")
    async with viewing(exchange) as view:
        await quiet()
        assert view.status == ViewStatus(Status.CONNECTING, down)
        exchange.go()
        await quiet()
        exchange.wire.give(whole(1))
        await view.wait_current()
        assert view.status == ViewStatus(Status.CURRENT)


@pytest.mark.parametrize("how", ["marker", "force-close"])
async def test_who_waits_for_an_index_does_not_get_a_state_that_is_void(how: str) -> None:
    """U15: the state may have been replaced, or may not be seen any more; what comes next is waited for."""
    exchange = Exchange()
    states: list[Frozen[str, Any]] = []

    async def wait(view: HealthView, index: int) -> None:
        states.append(await view.wait_index(index))

    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(put(3, "web", "old"), whole(5))
        assert values(await view.wait_index(4)) == {"web": "old"}
        if how == "marker":
            exchange.wire.horizon = 0
            exchange.wire.give(MARKER)
        else:
            exchange.wire.end(SubscriptionForceClosed(CloseReason.REFRESH, 5, "one"))
        await quiet()
        for index in (4, 5, 6):
            tasks.start_soon(wait, view, index)
        await quiet()
        assert states == []
        assert view.state_at(5) is None
        exchange.wire.give(put(3, "web", "new"), whole(5))
        await quiet()
        assert [values(state) for state in states] == [{"web": "new"}] * 2
        exchange.wire.publish(6)
        await quiet()
        assert len(states) == 3


async def test_a_fresh_snapshot_counts_only_when_it_is_whole_and_not_older_than_what_is_shown() -> None:
    """U15."""
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(7, "web", "a"), whole(7))
        await view.wait_current()
        exchange.wire.end(OSError("gone"))
        await quiet()
        exchange.wire.give(put(1, "web", "old"))
        await quiet()
        assert (view.status.status, values(view)) == (Status.STALE, {"web": "a"})
        exchange.wire.give(whole(5))
        await quiet()
        assert (view.status.status, values(view)) == (Status.STALE, {"web": "a"})
        exchange.wire.give(put(6, "db", "b"))
        await quiet()
        assert (view.status.status, values(view)) == (Status.STALE, {"web": "a"})
        exchange.wire.publish(7)
        await view.wait_current()
        assert (view.index, values(view)) == (7, {"web": "old", "db": "b"})


@pytest.mark.parametrize("attempt", range(10))
@pytest.mark.parametrize("size", [1, 3])
async def test_a_waiter_of_what_cannot_be_folded_gets_the_error_and_not_the_state_before(
    attempt: int, size: int
) -> None:
    """U15: whoever of the reader and the watcher of indexes runs first."""
    states: list[Frozen[str, Any]] = []
    ends: list[BaseException | None] = []

    def key(payload: Any) -> str:
        return str({"web": "web", "db": "db"}[payload.key])

    async def wait(view: HealthView, index: int) -> None:
        try:
            state = await view.wait_index(index)
        except ViewEnded as ended:
            ends.append(ended.__cause__)
        else:
            states.append(state)
            assert state["web"].value == f"{index}"

    async with opened() as (store, publisher), anyio.create_task_group() as tasks:
        async with open_view(
            publisher.subscribe, ALL, key=key, is_delete=is_gone, raise_on_end=False
        ) as view:
            await view.wait_current()
            for index in range(1, size + 2):
                tasks.start_soon(wait, view, index)
            await quiet()
            for index in range(1, size + 1):
                store.commit(("web" if index < size else "bad", f"{index}"))
            publisher.publish((), index=size + 1)
            await quiet()
            assert sorted(state.index for state in states) == list(range(1, size))
            assert [type(end) for end in ends] == [KeyError] * 2
            assert view.index <= size - 1


async def test_a_waiter_gets_its_index_from_a_commit_that_others_wait_in() -> None:
    """Between two events everybody gets the state of the first; each index is known afterwards."""
    exchange = Exchange()
    got: dict[int, int] = {}

    async def wait(view: HealthView, index: int) -> None:
        got[index] = (await view.wait_index(index)).index

    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(whole(1))
        await view.wait_current()
        for index in (2, 3, 4, 5, 7, 9, 10, 12):
            tasks.start_soon(wait, view, index)
        await quiet()
        exchange.wire.give(put(3, "a"), put(5, "b"), put(10, "c"), horizon=11)
        await quiet()
        assert got == {2: 1, 3: 3, 4: 3, 5: 5, 7: 5, 9: 5, 10: 10}
        exchange.wire.publish(12)
        await quiet()
        assert got[12] == 10


async def test_a_resume_is_asked_for_with_what_was_folded() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1), put(2, "web", "b"))
        await view.wait_index(2)
        exchange.horizon = 2
        exchange.wire.end(OSError("gone"), resume=2)
        await view.wait_for(lambda _: len(exchange.wires) == 2)
        assert exchange.requests[-1] == replace(ALL, index=2, epoch="one")
        exchange.wire.give(Event(HEALTH, 3, put(3, "db", "c").payload))
        assert values(await view.wait_index(3)) == {"web": "b", "db": "c"}


def test_a_status_is_told_by_its_name_in_small_letters() -> None:
    """So it is in the text of a view, and may be in a log."""
    assert [status.value for status in Status] == ["connecting", "current", "stale", "finished", "closed"]


@pytest.mark.parametrize("resume", [0, 1])
async def test_a_state_that_is_void_counts_for_no_index_from_the_end_of_the_connection_on(
    resume: int,
) -> None:
    exchange = Hanging()
    async with viewing(exchange) as view:
        exchange.wire.give(put(1, "web", "a"), whole(1))
        await view.wait_current()
        exchange.hold("enter")
        exchange.wire.end(TEMPORARY[-1] if resume == 0 else TEMPORARY[0], resume=resume)
        await quiet()
        assert (values(view), view.status.status) == ({"web": "a"}, Status.STALE)
        assert view.state_at(1) is (view.frozen() if resume else None)
        exchange.go()
