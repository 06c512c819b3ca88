"""Random courses: clients hop between two publishers of one store by their cursors, against the fold of its log.

Publishers are started anew, the log is compacted, and older copies of the store are put back while no publisher runs.

D1 is checked at every index that a client sees, by the mark of its commit, so that it is also known which copy of the
store that was; D9 and D20 at every subscription; D5 for keys that are finished.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio
import anyio.abc
import pytest
from proof import amount
from stores.houses import House
from stores.readers import until_index
from stores.storehouse import JOBS, PATIENCE

from trio_stream import (
    ALL,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    Framing,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    WouldBlock,
)
from trio_stream.stores import (
    ConflictError,
    Delete,
    Name,
    Operation,
    Put,
    Record,
    Revoke,
    Store,
    open_store_publisher,
    topic,
)

pytestmark = pytest.mark.anyio

USERS = topic("users")
KEYS = ("a", "ab", "b", "c")
TOKENS = ("one", "two", "three")
STEPS = 60


def is_even(record: Record) -> bool:
    return isinstance(record.value, int) and record.value % 2 == 0


State = dict[Name, Any]


@dataclass
class Truth:
    """What was committed: the state, the keys that are finished and the revocations behind each commit, by its mark."""

    states: dict[str, State] = field(default_factory=lambda: {"": {}})
    finals: dict[str, frozenset[Name]] = field(default_factory=lambda: {"": frozenset()})
    # {token: the index at which it was revoked last}, in what the store is now.
    revoked: dict[str, int] = field(default_factory=dict)
    head: Cursor = field(default_factory=lambda: Cursor(0, ""))
    # Those of the present log, oldest first.
    log: list[Cursor] = field(default_factory=list)

    # An older copy of the store, and what was true of that.
    copy: tuple[object, dict[str, int], list[Cursor]] | None = None

    def keep(self, house: House) -> None:
        self.copy = house.copy(), dict(self.revoked), list(self.log)

    async def restore(self, house: House, store: Store) -> None:
        """Puts the copy in the place of the store."""
        assert self.copy is not None
        (copy, self.revoked, self.log), self.copy = self.copy, None
        house.put_back(copy)
        self.head = (await store.head()).cursor
        assert self.head.mark == self.log[-1].mark

    async def commit(self, store: Store, operations: Sequence[Operation]) -> None:
        try:
            await store.commit(operations)
        except ConflictError as error:
            assert error.is_final
            return
        self.log_of(await store.head(), operations)

    def log_of(self, head: Any, operations: Sequence[Operation]) -> None:
        state, finals = dict(self.states[self.head.mark]), set(self.finals[self.head.mark])
        for operation in operations:
            match operation:
                case Put():
                    state[operation.name] = operation.value
                    finals |= {operation.name} if operation.final else set()
                case Delete():
                    state.pop(operation.name, None)
                    finals.discard(operation.name)
                case Revoke():
                    self.revoked[operation.token] = head.index
        assert head.mark not in self.states
        self.states[head.mark], self.finals[head.mark] = state, frozenset(finals)
        self.head = head.cursor
        self.log.append(self.head)


class Slot:
    """A process of the store: its publisher, which can be started anew."""

    def __init__(self, house: House, history: int) -> None:
        self.publisher: EventPublisher
        self.is_up = False
        self._house = house
        self._history = history
        self._stop = anyio.Event()
        self._stopped = anyio.Event()

    async def start(self, tasks: anyio.abc.TaskGroup) -> None:
        await tasks.start(self._run)

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        self._stop, self._stopped = anyio.Event(), anyio.Event()
        async with self._house.open() as store:
            async with open_store_publisher(store, ["jobs", "users"], history=self._history) as publisher:
                self.publisher, self.is_up = publisher, True
                task_status.started()
                await self._stop.wait()
                self.is_up = False
        self._stopped.set()

    async def stop(self) -> None:
        if self.is_up:
            self._stop.set()
            await self._stopped.wait()


@dataclass
class Client:
    """Has a state, a cursor, and sometimes a subscription."""

    request: SubscribeRequest[Any]
    truth: Truth
    on_lag: Literal["close", "reset", "conflate"] = "close"
    is_filtered: bool = False
    state: State = field(default_factory=dict)
    subscription: Subscription[Record] | None = None
    is_whole: bool = False
    had: int = 0
    ends: list[str] = field(default_factory=list)
    # A resume from before a revocation that the publisher knows: it has to be told.
    must_begin_anew: bool = False

    def connect(self, publisher: EventPublisher) -> None:
        where = is_even if self.is_filtered else None
        revoked = self.truth.revoked.get(self.request.token, 0)
        index = self.request.index
        self.must_begin_anew = 0 < index <= revoked <= publisher.index and self.is_known(publisher)
        self.is_whole = index > 0
        if not index:
            self.state = {}
        self.subscription = publisher.subscribe(self.request, where=where, on_lag=self.on_lag)

    def is_known(self, publisher: EventPublisher) -> bool:
        return publisher.cursor.mark in self.truth.states and publisher.epoch == self.truth.head.epoch

    def leave(self) -> None:
        if self.subscription is not None:
            self.request = self.subscription.resume_request()
            self.subscription.unsubscribe()
            self.subscription = None

    def read(self, most: int) -> None:
        """What is ready, at most so many events."""
        for _ in range(most):
            if self.subscription is None:
                return
            try:
                self.take(self.subscription.receive_nowait())
            except WouldBlock:
                return
            except EndOfSubject as end:
                self.check_finished(end)
                self.leave()
            except SubscriptionForceClosed as closed:
                self.ends.append(closed.reason.value)
                assert isinstance(closed, SubscriptionLagged) or closed.reason in {
                    CloseReason.TOKEN,
                    CloseReason.REFRESH,
                    CloseReason.STOPPED,
                }, closed
                self.leave()

    def take(self, event: Event[Record]) -> None:
        if self.must_begin_anew:
            assert event.is_new_snapshot_to_follow
            self.must_begin_anew = False
        match event.framing:
            case Framing.NEW_SNAPSHOT_TO_FOLLOW:
                self.state, self.is_whole = {}, False
            case Framing.END_OF_SNAPSHOT:
                self.is_whole = True
                self.check(event)
            case None:
                for each in event.events:
                    record = each.payload
                    assert isinstance(record, Record)
                    assert each.previous is None
                    name = Name(each.topic.name, record.key, record.namespace)
                    if record.is_delete:
                        self.state.pop(name, None)
                    else:
                        self.state[name] = record.value
                if self.is_whole:
                    self.check(event)
                self.had += 1

    def check(self, event: Event[Record]) -> None:
        # A union's snapshot may have been passed before its mark could be kept.
        assert event.mark or not event.index or event.is_end_of_snapshot
        if event.mark:
            assert self.state == self.right(event.mark), (self.request, event.index)

    def right(self, mark: str) -> State:
        """What the state has to be at this commit."""
        return {
            name: value
            for name, value in self.truth.states[mark].items()
            if self.request.covers(topic(name.topic), Subject(name.key, name.namespace))
            and (not self.is_filtered or is_even(Record(name.key, value)))
        }

    def check_finished(self, end: EndOfSubject) -> None:
        assert self.subscription is not None
        mark = self.subscription.cursor.mark
        if mark:  # it is known
            for topic_, key, _, namespace, _ in self.request.interests:
                assert Name(topic_.name, key, str(namespace)) in self.truth.finals[mark]
        self.ends.append("finished")


def clients(truth: Truth) -> list[Client]:
    jobs, users = SubscribeRequest(JOBS), SubscribeRequest(USERS)
    return [
        Client(jobs, truth),
        Client(SubscribeRequest(JOBS, token="one"), truth, on_lag="reset"),
        Client(SubscribeRequest(USERS, token="two"), truth, is_filtered=True),
        Client(SubscribeRequest(JOBS, "a"), truth),
        Client(SubscribeRequest(JOBS, "a", token="three"), truth, is_filtered=True),
        Client(SubscribeRequest(JOBS, "a", prefix=True, token="one"), truth),
        Client(jobs | users, truth),
        Client(SubscribeRequest(JOBS, "b") | SubscribeRequest(USERS, "b"), truth, on_lag="reset"),
        Client(jobs, truth, on_lag="conflate"),
        Client(users, truth, on_lag="conflate", is_filtered=True),
        Client(SubscribeRequest(JOBS, namespace=ALL), truth, is_filtered=True),
    ]


def some_operations(generator: random.Random) -> Sequence[Operation]:
    if generator.random() < 0.08:
        return [Revoke(generator.choice(TOKENS))]
    operations: list[Operation] = []
    for _ in range(generator.choice((1, 1, 1, 2, 5))):
        name = Name(
            generator.choice(("jobs", "jobs", "users", "others")),
            generator.choice(KEYS),
            generator.choice(("default", "default", "blue")),
        )
        if generator.random() < 0.25:
            operations.append(Delete(*name))
        else:
            is_final = generator.random() < 0.07
            put = Put(name.topic, name.key, generator.randrange(100), name.namespace, final=is_final)
            operations.append(put)
    if generator.random() < 0.05:
        operations.append(Revoke(generator.choice(TOKENS)))
    by_name = {operation.name: operation for operation in operations if not isinstance(operation, Revoke)}
    return [*by_name.values(), *(each for each in operations if isinstance(each, Revoke))]


@pytest.mark.parametrize("seed", range(amount(4, 300)))
async def test_clients_that_hop_have_the_right_state_at_every_index(house: House, seed: int) -> None:
    generator = random.Random(seed)
    truth = Truth()
    everybody = clients(truth)
    with anyio.fail_after(PATIENCE * 3):
        async with house.open() as store, anyio.create_task_group() as tasks:
            slots = [Slot(house, generator.choice((1, 3, 10))), Slot(house, 5)]
            for slot in slots:
                await slot.start(tasks)
            for _ in range(STEPS):
                await step(generator, house, store, truth, slots, everybody, tasks)
            await at_the_end(store, truth, slots, everybody)
            for slot in slots:
                await slot.stop()
    assert sum(client.had for client in everybody) > STEPS


async def step(
    generator: random.Random,
    house: House,
    store: Store,
    truth: Truth,
    slots: Sequence[Slot],
    everybody: Sequence[Client],
    tasks: anyio.abc.TaskGroup,
) -> None:
    for _ in range(generator.choice((0, 1, 2, 8))):
        await truth.commit(store, some_operations(generator))
    slot = generator.choice(slots)
    await something(generator.random(), generator, house, store, truth, slot, slots, tasks)
    for client in generator.sample(everybody, 4):
        if client.subscription is None:
            client.connect(generator.choice(slots).publisher)
        await anyio.lowlevel.checkpoint()
        client.read(generator.choice((1, 3, 50)))
        if generator.random() < 0.4:
            client.leave()


async def something(
    chance: float,
    generator: random.Random,
    house: House,
    store: Store,
    truth: Truth,
    slot: Slot,
    slots: Sequence[Slot],
    tasks: anyio.abc.TaskGroup,
) -> None:
    """Of what happens to a store and its publishers."""
    if chance < 0.08:
        await slot.stop()
        await slot.start(tasks)
    elif chance < 0.16 and truth.log:
        await store.compact(generator.choice(truth.log[-12:]).index)
    elif chance < 0.2 and truth.log:
        truth.keep(house)
    elif chance < 0.24 and truth.copy is not None:
        for each in slots:
            await each.stop()
        await truth.restore(house, store)
        for each in slots:
            await each.start(tasks)
    elif chance < 0.6:
        await until_index(slot.publisher, truth.head.index)


async def at_the_end(store: Store, truth: Truth, slots: Sequence[Slot], everybody: Sequence[Client]) -> None:
    """Everybody comes to the newest commit, also who has seen more than that, which is lost."""
    for client in everybody:
        client.leave()  # perhaps it is at a publisher that has stopped
    while truth.head.index <= max(client.request.index for client in everybody):
        await truth.commit(store, [Put("others", "end", 0)])
    head = await store.head()
    for slot in slots:
        await until_index(slot.publisher, head.index)
    for number, client in enumerate(everybody):
        await come_to(client, slots[number % 2].publisher, head.mark)


async def come_to(client: Client, publisher: EventPublisher, mark: str) -> None:
    """The newest commit, which has this mark, is published."""
    while client.subscription is None or client.state != client.right(mark):
        client.leave()
        client.connect(publisher)
        assert client.subscription is not None
        try:
            for event in await client.subscription.receive_until_current():
                client.take(event)
        except EndOfSubject as end:
            client.check_finished(end)
        except SubscriptionForceClosed as closed:
            client.ends.append(closed.reason.value)
    client.leave()
