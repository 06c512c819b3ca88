"""An application whose rows and events are committed together, killed at random: never one without the other.

The application is one of the examples of the documentation, which tests run with any engine: it has
`create(place)` and `place_order(place, item, count)`, which writes a row of the table `orders` and records its event.
"""

import random
import runpy
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.abc
import anyio.to_thread
from stores.storehouse import PATIENCE, python, until_live

from trio_stream import Event, EventPublisher, SubscribeRequest
from trio_stream.stores import JSON, Commit, Put, Record, Store, open_store_publisher, topic

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ORDERS = topic("orders")
ROWS = "SELECT id, item, count FROM orders"  # in both engines
WRITERS = 2  # processes at once
LONGEST = 0.1  # seconds until a kill, from the first order of a process on

# Places orders for ever. Every fourth is refused by the table's constraint, behind its insert or in the place of it.
# It says each that was acknowledged: index, item, count.
WRITER = """
import itertools, runpy, sys

program, place, name = sys.argv[1:]
place_order = runpy.run_path(program)["place_order"]
for number in itertools.count(1):
    try:
        index = place_order(place, name, number if number % 4 else -number)
    except Exception as error:
        if number % 4:
            raise
    else:
        assert number % 4, "a count below 0 was taken"
        print(index, name, number, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Application:
    program: Path
    place: str
    """What its functions are told where the database is."""

    async def create(self) -> None:
        """Makes its table, and those of the store."""
        await anyio.to_thread.run_sync(runpy.run_path(str(self.program))["create"], self.place)


@dataclass(frozen=True, slots=True)
class Told:
    """An order that a writer was told of."""

    index: int
    item: str
    count: int


Row: TypeAlias = tuple[int, str, int]  # id, item, count
Rows: TypeAlias = Callable[[], Sequence[Row]]


async def kill_some(application: Application, generator: random.Random, names: Sequence[str]) -> list[Told]:
    """Starts a process for each name and kills it at a random moment after its first order; what they were told."""
    told: list[Told] = []

    async def end(process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        first = await anyio.to_thread.run_sync(process.stdout.readline)
        await anyio.sleep(generator.uniform(0, LONGEST))
        assert process.poll() is None, "the writer has ended by itself"
        process.kill()
        rest = await anyio.to_thread.run_sync(process.stdout.readlines)
        process.stdout.close()
        process.wait()
        # The last line may be torn.
        lines = [line.split() for line in (first, *rest) if line.endswith("\n")]
        told.extend(Told(int(index), item, int(count)) for index, item, count in lines)

    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            for name in names:
                command = (WRITER, str(application.program), application.place, name)
                tasks.start_soon(end, python(*command, stdout=subprocess.PIPE))
    return told


class Reader:
    """What a subscription of all orders has brought."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher
        self.orders: dict[str, JSON] = {}
        self.index = 0
        # Set, and replaced by a new one, whenever something has been received.
        self._stir = anyio.Event()

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Until it is cancelled; started when it is live."""
        async with self._publisher.subscribe(SubscribeRequest(ORDERS)) as subscription:
            await until_live(subscription)
            task_status.started()
            async for event in subscription:
                self._take(event)

    async def until(self, index: int) -> None:
        with anyio.fail_after(PATIENCE):
            while self.index < index:
                await self._stir.wait()

    def _take(self, event: Event[Record]) -> None:
        for record in event.payloads:
            assert record.key not in self.orders, f"order {record.key} came twice"
            self.orders[record.key] = record.value
        self.index = event.index
        stir, self._stir = self._stir, anyio.Event()
        stir.set()


async def run(
    application: Application, store: Store, rows: Rows, kills: int, generator: random.Random
) -> int:
    """Kills so many writers under a reader that stays, and checks what is there after each few; orders placed."""
    told: list[Told] = []
    async with open_store_publisher(store, ["orders"]) as publisher, anyio.create_task_group() as tasks:
        reader = Reader(publisher)
        await tasks.start(reader.run)
        for first in range(0, kills, WRITERS):
            names = [f"w{number}" for number in range(first, min(first + WRITERS, kills))]
            told += await kill_some(application, generator, names)
            found, events = await both(store, rows)
            check(found, events, told)
            await reader.until(events[-1].index)
            assert reader.orders == as_values(found)
        tasks.cancel_scope.cancel()
    return len(told)


async def both(store: Store, rows: Rows) -> tuple[Sequence[Row], Sequence[Commit]]:
    """The rows of the table and the commits of the log, of the same moment.

    A server may still be ending the transaction of a client that was killed.
    """
    with anyio.fail_after(PATIENCE):
        while True:
            head = await store.head()
            found = await anyio.to_thread.run_sync(rows)
            if await store.head() == head:
                return found, await log(store, head.index)


async def log(store: Store, index: int) -> Sequence[Commit]:
    """All commits up to this one, which there must be."""
    commits: list[Commit] = []
    async with store.changes(0) as changes:
        while not commits or commits[-1].index < index:
            commits.append(await anext(changes))
    return commits


def check(rows: Sequence[Row], events: Sequence[Commit], told: Sequence[Told]) -> None:
    """Each row has its event, each event its row, and all that was acknowledged is there."""
    recorded: dict[str, JSON] = {}
    placed: dict[int, JSON] = {}
    for commit in events:
        (operation,) = commit.operations
        assert isinstance(operation, Put)
        assert operation.key not in recorded, f"two events for order {operation.key}"
        recorded[operation.key] = placed[commit.index] = operation.value
    assert recorded == as_values(rows), "a row without its event, or an event without its row"
    assert told
    for each in told:
        assert placed.get(each.index) == {"item": each.item, "count": each.count}, (
            "an acknowledged order is lost"
        )
    check_each_once(rows, told)


def check_each_once(rows: Sequence[Row], told: Sequence[Told]) -> None:
    """A writer has placed its orders in turn, none twice, and at most one more than it was told."""
    acknowledged = Counter(each.item for each in told)
    placed: dict[str, list[int]] = {}
    for _, item, count in sorted(rows):
        placed.setdefault(item, []).append(count)
    for item, counts in placed.items():
        assert counts == [number for number in range(1, counts[-1] + 1) if number % 4]
        assert acknowledged[item] <= len(counts) <= acknowledged[item] + 1


def as_values(rows: Sequence[Row]) -> dict[str, JSON]:
    """What the events of these have: {key: value}."""
    return {str(number): {"item": item, "count": count} for number, item, count in rows}
