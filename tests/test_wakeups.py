"""Waking: every waiting reader, once per burst, in slices, and nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
import pytest
import trio
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready
from interruptions import on_trio
from scenes import quiet
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    Event,
    EventPublisher,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    Topic,
    open_publisher,
)

pytestmark = pytest.mark.anyio


MANY = [1, 15, 16, 17, 255, 256, 257, 600]  # around the numbers at which waking is done in another way
SLICE = 256  # readers that may be woken between two checkpoints


@asynccontextmanager
async def publisher_at_1() -> AsyncIterator[EventPublisher]:
    catalogue = Catalogue()
    async with open_publisher({HEALTH: catalogue.snapshot, JOBS: catalogue.snapshot}, index=1) as publisher:
        yield publisher


def live(publisher: EventPublisher, key: str = "web", topic: Topic[Health] = HEALTH) -> Subscription[Health]:
    return publisher.subscribe(SubscribeRequest(topic, key, token="t", index=1))


@dataclass
class Reader:
    """Receives batch after batch in a task, until its end; can be cancelled."""

    subscription: Subscription[Health]
    batches: list[list[Event[Health]]] = field(default_factory=list)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    end: Exception | None = None

    @property
    def got(self) -> list[str]:
        return [kind for batch in self.batches for kind in kinds(batch)]

    async def __call__(self) -> None:
        with self.scope:
            try:
                while True:
                    self.batches.append(list(await self.subscription.receive_batch()))
            except (ClosedResourceError, SubscriptionForceClosed) as error:
                self.end = error


@asynccontextmanager
async def waiting(readers: list[Reader]) -> AsyncIterator[None]:
    """All of them wait; afterwards all of them are quiet again, and then they are cancelled."""
    async with anyio.create_task_group() as tasks:
        for reader in readers:
            tasks.start_soon(reader, name="reader")
        await quiet()
        yield
        await quiet()
        tasks.cancel_scope.cancel()


class Steps(trio.abc.Instrument):
    """Counts the steps that readers take, and how many of them one step of another task wakes at most."""

    def __init__(self) -> None:
        self.of_readers = 0
        self.woken = 0
        self.woken_in_one_step = 0

    @override
    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.of_readers += task.name == "reader"
        self.woken = 0

    @override
    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self.woken += task.name == "reader"
        self.woken_in_one_step = max(self.woken_in_one_step, self.woken)


@pytest.mark.parametrize("count", MANY)
async def test_all_waiting_readers_are_woken_once_for_a_burst(count: int) -> None:
    """D10, D3: however many commits the burst holds."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(count)]
        async with waiting(readers):
            for index in (2, 3, 4):
                publisher.publish([event(index, "web")])
            await quiet()
            assert [len(reader.batches) for reader in readers] == [1] * count
            publisher.publish([event(5, "web")])
        assert all(reader.got == ["2:web=ok", "3:web=ok", "4:web=ok", "5:web=ok"] for reader in readers)
        assert publisher.statistics().waiting == 0


@on_trio
@pytest.mark.parametrize("count", MANY)
async def test_a_burst_costs_every_reader_one_step(count: int) -> None:
    """D10: and no step wakes more than a slice of them (D15)."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(count)]
        async with waiting(readers):
            trio.lowlevel.add_instrument(steps := Steps())
            for index in (2, 3, 4):
                publisher.publish([event(index, "web")])
            await quiet()
            trio.lowlevel.remove_instrument(steps)
            assert steps.of_readers == count
            assert steps.woken_in_one_step <= SLICE


@pytest.mark.parametrize("how", ["publish", "many subjects", "close", "refresh"])
async def test_other_tasks_have_their_turn_while_many_readers_are_woken(how: str) -> None:
    """D15: a task that only passes its turn on sees at most two slices run between two turns."""
    ran = 0
    most = 0

    async def compete() -> None:
        nonlocal ran, most
        while True:
            await anyio.lowlevel.checkpoint()
            most, ran = max(most, ran), 0

    async def read(subscription: Subscription[Health]) -> None:
        nonlocal ran
        with suppress(SubscriptionForceClosed):
            await subscription.receive()
        ran += 1

    async with publisher_at_1() as publisher:
        subscriptions = [
            live(publisher, f"key-{n}" if how == "many subjects" else "web") for n in range(2000)
        ]
        async with anyio.create_task_group() as readers:
            for subscription in subscriptions:
                readers.start_soon(read, subscription)
            await quiet()
            async with anyio.create_task_group() as competition:
                competition.start_soon(compete)
                await anyio.lowlevel.checkpoint()
                match how:
                    case "publish":
                        publisher.publish([event(2, "web")])
                    case "many subjects":
                        publisher.publish([event(2, f"key-{n}") for n in range(2000)])
                    case "close":
                        publisher.close_subscriptions(["t"])
                    case _:
                        publisher.refresh()
                while publisher.statistics().waiting or ran:
                    await anyio.lowlevel.checkpoint()
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                competition.cancel_scope.cancel()
    assert 0 < most <= 2 * SLICE


@on_trio
@pytest.mark.parametrize("how", ["publish", "many subjects", "close", "refresh", "snapshot", "failure"])
async def test_no_step_wakes_more_than_a_slice(how: str) -> None:
    """D15."""
    go = anyio.Event()

    async def slow(request: SubscribeRequest[Health], snapshot: object) -> int:
        await go.wait()
        if how == "failure":
            raise OSError
        return publisher.index

    async with open_publisher({HEALTH: slow}, index=1) as publisher:
        keys = [f"key-{n}" if how == "many subjects" else "web" for n in range(1000)]
        index = 0 if how in ("snapshot", "failure") else 1
        readers = [
            Reader(publisher.subscribe(SubscribeRequest(HEALTH, key, token="t", index=index))) for key in keys
        ]
        async with waiting(readers):
            trio.lowlevel.add_instrument(steps := Steps())
            match how:
                case "publish" | "many subjects":
                    publisher.publish([event(2, key) for key in dict.fromkeys(keys)])
                case "close":
                    publisher.close_subscriptions(["t"])
                case "refresh":
                    publisher.refresh()
                case _:
                    go.set()
            await quiet()
            trio.lowlevel.remove_instrument(steps)
            assert steps.of_readers == 1000
            assert steps.woken_in_one_step <= SLICE
        assert all(reader.end or reader.got for reader in readers)


@pytest.mark.parametrize("count", [3, 40, 300])
async def test_a_publish_does_not_wake_the_readers_of_other_subjects(count: int) -> None:
    """D10: neither those of another key or namespace nor those of another topic."""
    async with publisher_at_1() as publisher:
        others = [Reader(live(publisher, f"other-{n}")) for n in range(count)]
        others += [Reader(live(publisher, "web", JOBS)) for _ in range(count)]
        elsewhere = SubscribeRequest(HEALTH, namespace="elsewhere", index=1)
        others += [Reader(publisher.subscribe(elsewhere)) for _ in range(count)]
        async with waiting([Reader(live(publisher)), *others]):
            assert publisher.statistics().waiting == 3 * count + 1
            publisher.publish([event(2, "web")])
            assert publisher.statistics().waiting >= 3 * count
            await quiet()
            assert publisher.statistics().waiting == 3 * count + 1
        assert not any(reader.batches for reader in others)
        assert not any(reader.subscription.statistics().lag for reader in others)


@on_trio
async def test_a_publish_costs_the_readers_of_other_subjects_no_step() -> None:
    """D10."""
    async with publisher_at_1() as publisher:
        async with waiting([Reader(live(publisher, f"other-{n}")) for n in range(300)]):
            trio.lowlevel.add_instrument(steps := Steps())
            for index in range(2, 12):
                publisher.publish([event(index, "web"), event(index, "web", topic=JOBS)])
            await quiet()
            trio.lowlevel.remove_instrument(steps)
            assert (steps.of_readers, steps.woken_in_one_step) == (0, 0)


async def test_a_stalled_reader_changes_nothing_for_the_others() -> None:
    """D10, D11: neither one that never began nor one that stopped half way."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1, history=10) as publisher:
        never, half_way = live(publisher), live(publisher)
        readers = [Reader(live(publisher)) for _ in range(20)]
        async with waiting(readers):
            for index in range(2, 102):
                publisher.publish([event(index, "web")])
                if index == 5:
                    half_way.receive_nowait()
                await quiet()
        expected = [f"{index}:web=ok" for index in range(2, 102)]
        assert all(reader.got == expected for reader in readers)
        for stalled in (never, half_way):
            with pytest.raises(SubscriptionForceClosed):
                stalled.receive_nowait()


async def test_one_commit_over_many_subjects_gives_each_reader_its_own() -> None:
    """D4, D3."""
    async with publisher_at_1() as publisher:
        readers = {f"key-{n}": Reader(live(publisher, f"key-{n}")) for n in range(300)}
        everything = [Reader(live(publisher, "")) for _ in range(20)]
        idle = Reader(live(publisher, "untouched"))
        async with waiting([*readers.values(), *everything, idle]):
            publisher.publish([event(2, key, value) for value in "ab" for key in readers])
        assert all(reader.got == [f"2:{key}=a+{key}=b"] for key, reader in readers.items())
        assert [len(reader.batches) for reader in everything] == [1] * 20
        assert all(len(reader.batches[0][0].events) == 600 for reader in everything)
        assert idle.got == []


@pytest.mark.parametrize("count", [10, 300, 600])
@pytest.mark.parametrize("cancel_first", [True, False])
async def test_readers_that_are_cancelled_while_their_wake_is_pending_lose_nothing(
    count: int, cancel_first: bool
) -> None:
    """D12, D13: some are cancelled at once, some a little later; what they missed is there for the next call."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(count)]
        async with waiting(readers):
            if not cancel_first:
                publisher.publish([event(2, "web")])
            for reader in readers[::3]:
                reader.scope.cancel()
            if cancel_first:
                publisher.publish([event(2, "web")])
            await anyio.lowlevel.checkpoint()
            for reader in readers[1::3]:
                reader.scope.cancel()
            await quiet()
            assert publisher.statistics().waiting == len(readers[2::3])
            publisher.publish([event(3, "web")])
        for reader in readers:
            assert reader.got + kinds(ready(reader.subscription)) == ["2:web=ok", "3:web=ok"]


@pytest.mark.parametrize("count", [10, 300, 600])
async def test_readers_that_are_closed_while_their_wake_is_pending_are_told_and_get_nothing(
    count: int,
) -> None:
    """D9, C8: the others get what they waited for."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(count)]
        async with waiting(readers):
            publisher.publish([event(2, "web")])
            for reader in readers[::2]:
                reader.subscription.unsubscribe()
        for reader in readers[::2]:
            assert isinstance(reader.end, ClosedResourceError)
            assert reader.batches == []
        assert all(reader.got == ["2:web=ok"] for reader in readers[1::2])
        assert publisher.statistics().subscriptions == len(readers[1::2])


@pytest.mark.parametrize("count", [10, 300])
async def test_one_that_subscribes_and_waits_while_wakes_are_pending_is_not_forgotten(count: int) -> None:
    """D3: its own wake comes with the next publish."""
    async with publisher_at_1() as publisher:
        late = Reader(publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1)))
        readers = [Reader(live(publisher)) for _ in range(count)]
        async with waiting(readers), anyio.create_task_group() as tasks:
            publisher.publish([event(2, "web")])
            tasks.start_soon(late)
            newest = Reader(publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2)))
            tasks.start_soon(newest)
            await anyio.lowlevel.checkpoint()
            publisher.publish([event(3, "web")])
            await quiet()
            tasks.cancel_scope.cancel()
        assert (late.got, newest.got) == (["2:web=ok", "3:web=ok"], ["3:web=ok"])
        assert all(reader.got == ["2:web=ok", "3:web=ok"] for reader in readers)


async def test_a_publish_out_of_a_reader_reaches_every_reader() -> None:
    """D3, D10: in the middle of being woken, and it does not wait for itself."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(300)]
        echo = live(publisher)

        async def answer() -> None:
            received = await echo.receive()
            publisher.publish([event(received.index + 1, "web", "echo")])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            async with waiting(readers):
                publisher.publish([event(2, "web")])
        assert all(reader.got == ["2:web=ok", "3:web=echo"] for reader in readers)


@pytest.mark.parametrize("count", MANY)
async def test_readers_that_were_woken_do_not_count_as_waiting(count: int) -> None:
    """D17: not even before they have their turn, if they are few."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher)) for _ in range(count)]
        async with waiting(readers):
            assert publisher.statistics().waiting == count
            publisher.publish([event(2, "web")])
            assert publisher.statistics().waiting in ({0} if count <= 16 else {0, count})
            await quiet()
            assert publisher.statistics().waiting == count


@pytest.mark.parametrize(
    "count", [1, 126, 127, 128, 129, 130, 300]
)  # around the number at which it is divided
@pytest.mark.parametrize("how", ["token", "refresh", "topic"])
async def test_however_many_are_closed_together_all_are_told_and_let_go(how: str, count: int) -> None:
    """D9, D13."""
    async with publisher_at_1() as publisher:
        readers = [Reader(live(publisher, key=f"{number}")) for number in range(count)]
        async with waiting(readers):
            match how:
                case "token":
                    assert publisher.close_subscriptions(["t"]) == count
                case "refresh":
                    publisher.refresh()
                case _:
                    publisher.refresh(HEALTH)
            await quiet()
            assert all(isinstance(reader.end, SubscriptionForceClosed) for reader in readers)
            assert publisher.statistics().topics["health"].feeds == 0
