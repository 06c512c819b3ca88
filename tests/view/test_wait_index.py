"""Reading your own writes: waiting until a view has everything up to an index."""

from operator import attrgetter

import anyio
import pytest
from backends import in_virtual_time
from catalogue import HEALTH, JOBS, Catalogue, event
from interruptions import Stepwise
from scenes import ALL, WEB, opened, quiet
from view.wires import Exchange, HealthView, is_gone, put, truth, values, viewed, viewing, whole

from trio_stream import ClosedResourceError, EventPublisher, SubscribeRequest, running
from trio_stream.view import EpochChanged, KeyedReducer, Status, ViewEnded

pytestmark = pytest.mark.anyio


async def test_it_returns_with_the_write() -> None:
    async with viewed(WEB) as (store, _, view):
        for number in range(20):
            index = store.commit(("web", f"{number}"))
            assert values(await view.wait_index(index)) == {"web": f"{number}"}
            assert (await view.wait_index(index - 1)).index == index


@pytest.mark.parametrize("burst", [1, 3])
async def test_a_commit_that_touches_something_else_is_enough(burst: int) -> None:
    """Each round waits for a new commit, whoever runs first; a lost wake-up would hang here."""
    async with viewed(WEB) as (store, _, view), anyio.create_task_group() as tasks:

        async def read_own_writes() -> None:
            index = 0
            for number in range(60):
                for _ in range(burst):
                    key, topic = [("web", HEALTH), ("db", HEALTH), ("web", JOBS)][number % 3]
                    index = store.commit((key, f"{number}"), topic=topic)
                with anyio.fail_after(5):
                    state = await view.wait_index(index)
                assert values(state) == truth(store, max(index, state.index), WEB)

        async def interfere() -> None:
            for number in range(100):
                store.commit(("web" if number % 2 else "db", "x"))
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(read_own_writes)
        tasks.start_soon(interfere)


async def test_an_index_that_was_published_before_the_wait_needs_no_other_event() -> None:
    async with viewed(WEB) as (store, _, view):
        index = store.commit(("db", "a"))
        await quiet()
        assert (await view.wait_index(index)).index == 0
        assert (await view.wait_index(index)).index == 0


async def test_hidden_events_count_as_seen() -> None:
    async with opened() as (store, publisher):

        def connect(request: SubscribeRequest[object]) -> object:
            return publisher.subscribe(request, authorizer=frozenset({"web"}))

        async with viewing(connect) as view:  # type: ignore[arg-type]
            await view.wait_current()
            for key in ("db", "web", "db", "db"):
                index = store.commit((key, "a"))
                assert set(await view.wait_index(index)) <= {"web"}
            assert view.index == 2


async def test_it_waits_for_the_first_snapshot_also_for_index_0() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        done: list[int] = []

        async def wait() -> None:
            done.append((await view.wait_index(0)).index)

        tasks.start_soon(wait)
        await quiet()
        assert done == []
        exchange.wire.give(whole(5))
        await quiet()
        assert done == [5]


async def test_a_thousand_waiters_are_woken_only_when_their_index_has_come() -> None:
    """Counted by the steps of their tasks: one to begin, one to wait, and one when it has come."""
    returned: dict[int, int] = {}
    steps = 0

    async def wait(view: HealthView, index: int) -> None:
        nonlocal steps
        waiting = Stepwise(lambda: view.wait_index(index))
        returned[index] = (await waiting).index
        steps += waiting.suspensions

    async with viewed() as (store, _, view), anyio.create_task_group() as tasks:
        for index in range(101, 1101):
            tasks.start_soon(wait, view, index)
        await quiet()
        assert view.statistics().waiting == 1000
        for _ in range(100):
            store.commit(("web", "a"))
            await quiet()
        assert returned == {}
        store.commit(("web", "a"))
        await quiet()
        assert returned == {101: 101}
        for _ in range(999):  # all at once, each of them gets the state that it waited for
            store.commit(("web", "a"))
        await quiet()
        assert returned == {index: index for index in range(101, 1101)}
        assert steps == 2000
        assert view.statistics().waiting == 0


async def test_many_waiters_of_one_index_are_one_to_the_view() -> None:
    async with viewed() as (store, _, view), anyio.create_task_group() as tasks:
        states = []

        async def wait() -> None:
            states.append(await view.wait_index(1))

        for _ in range(1000):
            tasks.start_soon(wait)
        await quiet()
        store.commit(("web", "a"))
        await quiet()
        assert len(states) == 1000
        assert len(set(map(id, states))) == 1


async def passes(store: Catalogue, view: HealthView, publisher: EventPublisher) -> tuple[int, int]:
    """Scheduling passes from the publish until another reader has it, and until a waiter of the view has."""
    count = 0
    got: dict[str, int] = {}

    async def read() -> None:
        async with publisher.subscribe(WEB) as subscription:
            while subscription.index < 1:
                await subscription.receive()
            got["delivery"] = count

    async def wait() -> None:
        await view.wait_index(1)
        got["view"] = count

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(wait)
        await quiet()
        store.commit(("web", "a"))
        while len(got) < 2:
            await anyio.lowlevel.checkpoint()
            count += 1
    return got["delivery"], got["view"]


async def test_it_returns_within_one_scheduling_pass_of_the_delivery() -> None:
    async with viewed(WEB) as (store, publisher, view):
        delivery, waiter = await passes(store, view, publisher)
        assert (
            waiter <= delivery + 2
        )  # the two readers of one wake may run in either order around the counter


async def test_a_new_epoch_releases_the_waiters_with_an_error() -> None:
    async with viewed() as (store, publisher, view):
        store.commit(("web", "a"))
        old = (await view.wait_index(1)).epoch
        errors = []

        async def wait() -> None:
            with pytest.raises(EpochChanged) as caught:
                await view.wait_index(50)
            errors.append((caught.value.old, caught.value.new))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(wait)
            await quiet()
            publisher.refresh(index=1)
        assert errors == [(old, publisher.epoch)] * 20
        assert old in str(EpochChanged(old, "new"))
        await view.wait_for(lambda state: state.epoch == publisher.epoch)
        store.commit(("web", "b"))
        assert values(await view.wait_index(2)) == {"web": "b"}


async def test_the_end_of_the_view_releases_the_waiters_with_its_cause() -> None:
    exchange = Exchange()
    errors: list[ViewEnded] = []

    async def wait(view: HealthView) -> None:
        with pytest.raises(ViewEnded) as caught:
            await view.wait_index(50)
        errors.append(caught.value)

    async with viewing(exchange, raise_on_end=False) as view, anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(wait, view)
        await quiet()
        exchange.errors.append(PermissionError("no"))
        exchange.wire.end(OSError("gone"))
    assert [repr(error.__cause__) for error in errors] == ["PermissionError('no')"] * 20


async def test_leaving_the_block_releases_the_waiters() -> None:
    async with opened() as (_, publisher), anyio.create_task_group() as tasks:

        async def wait(view: HealthView) -> None:
            with pytest.raises(ViewEnded) as caught:
                await view.wait_index(50)
            assert caught.value.__cause__ is None

        async with viewing(publisher.subscribe) as view:
            tasks.start_soon(wait, view)
            await quiet()


async def test_a_stopped_publisher_ends_the_view_which_stays_readable() -> None:
    store = Catalogue()
    store.publisher = publisher = EventPublisher({HEALTH: store.snapshot})
    errors: list[ViewEnded] = []

    async def wait(index: int) -> None:
        with pytest.raises(ViewEnded) as caught:
            await view.wait_index(index)
        errors.append(caught.value)

    async with viewing(publisher.subscribe, raise_on_end=False) as view, anyio.create_task_group() as tasks:
        async with running(publisher.run):
            store.commit(("web", "a"))
            await view.wait_index(1)
            tasks.start_soon(wait, 2)
            await quiet()
            assert errors == []
        await wait(3)
        assert values(view) == values(await view.wait_index(1)) == {"web": "a"}
    assert [type(error.__cause__) for error in errors] == [ClosedResourceError] * 2


async def test_what_is_known_stays_known_while_there_is_no_connection() -> None:
    """The view had everything up to 9 when the connection broke; nobody has to wait for that again."""
    exchange = Exchange()
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(put(4, "web"), whole(5))
        await view.wait_current()
        tasks.start_soon(view.wait_index, 9)
        await quiet()
        exchange.wire.publish(9)
        await quiet()
        exchange.errors.extend(OSError("down") for _ in range(50))
        exchange.wire.end(OSError("down"), resume=5)
        await quiet()
        assert (await view.wait_index(9)).index == 5
        tasks.cancel_scope.cancel()


@in_virtual_time
async def test_a_resumed_connection_that_says_how_far_it_is_makes_the_view_current(
    anyio_backend: object,
) -> None:
    exchange = Exchange()
    async with viewing(exchange) as view:
        exchange.wire.give(put(4, "web"), whole(5))
        await view.wait_current()
        exchange.errors.extend(OSError("down") for _ in range(3))
        exchange.wire.end(OSError("down"), resume=5)
        exchange.horizon = 8
        await view.wait_for(lambda _: len(exchange.wires) == 2)
        assert view.status.status is Status.CURRENT
        assert (await view.wait_index(8)).index == 5
        assert exchange.requests[-1].index == 5


async def test_the_watcher_of_indexes_survives_whatever_order_reader_and_watcher_run_in() -> None:
    """The reader may have folded what the watcher was woken for; then it waits for the next one."""
    exchange = Exchange()
    async with viewing(exchange, ALL) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(whole(1))
        await view.wait_current()
        tasks.start_soon(view.wait_index, 1000)
        for index in range(2, 40, 2):
            exchange.wire.give(put(index, "web"))
            exchange.wire.publish(index + 1) if index % 4 else None
            await quiet()
            with anyio.fail_after(5):
                await view.wait_index(index)
                if index % 4 == 0:
                    exchange.wire.publish(index + 1)
                await view.wait_index(index + 1)
        tasks.cancel_scope.cancel()


async def test_events_and_waits_may_come_in_any_mixture() -> None:
    async with viewed(WEB) as (_, publisher, view), anyio.create_task_group() as tasks:
        for index in range(1, 40):
            tasks.start_soon(view.wait_index, index)
        await quiet()
        for index in range(1, 40):
            publisher.publish([event(index, "web" if index % 3 else "other", f"{index}")])


@pytest.mark.parametrize("given_up", [5, 7, 9])
async def test_a_wait_that_is_given_up_takes_no_other_with_it(given_up: int) -> None:
    returned: list[int] = []
    scope = anyio.CancelScope()

    async def wait(index: int) -> None:
        with scope if index == given_up else anyio.CancelScope():
            await view.wait_index(index)
            returned.append(index)

    async with viewed() as (_, publisher, view), anyio.create_task_group() as tasks:
        for index in (5, 7, 9):
            tasks.start_soon(wait, index)
        await quiet()
        scope.cancel()
        await quiet()
        assert view.statistics().waiting == 2
        for index in range(1, 12):
            publisher.publish([event(index, "web")])
            await quiet()
            assert returned == [each for each in (5, 7, 9) if each <= index and each != given_up]


async def test_a_wait_from_before_the_first_connection_is_for_the_epoch_of_that() -> None:
    """What follows is another store's, and its index 50 is another commit."""
    exchange = Exchange(epoch="one")
    view = HealthView(exchange, ALL, KeyedReducer(attrgetter("key"), is_gone))
    errors: list[EpochChanged] = []

    async def wait() -> None:
        with pytest.raises(EpochChanged) as caught:
            await view.wait_index(50)
        errors.append(caught.value)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await quiet()
        tasks.start_soon(view.run)
        await quiet()
        assert errors == []
        exchange.epoch = "two"
        exchange.wire.end(OSError("restored"))
        await quiet()
        tasks.cancel_scope.cancel()
    assert [(error.old, error.new) for error in errors] == [("one", "two")]


async def test_an_index_is_reached_by_a_resumed_connection_that_brings_no_event() -> None:
    exchange = Exchange()
    async with viewing(exchange) as view, anyio.create_task_group() as tasks:
        exchange.wire.give(put(1, "web"), whole(1))
        await view.wait_current()
        exchange.horizon = 1
        exchange.wire.end(OSError("down"), resume=1)
        await quiet()
        assert exchange.requests[-1].index == 1
        tasks.start_soon(view.wait_index, 5)
        await quiet()
        exchange.wire.publish(5)
        await quiet()
        assert view.statistics().waiting == 0
        assert view.state_at(5) is view.frozen()
        tasks.cancel_scope.cancel()
