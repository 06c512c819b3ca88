"""The rules: all that can be done to a publisher and its subscribers, in any order, one step of one task at a time."""

# ruff: noqa: SLF001 - the model may know private names of the core

import math
from collections.abc import Callable
from typing import Any, cast

from catalogue import HEALTH, JOBS, Health, event
from evidence import count
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model.books import Plan, Reader
from model.manual import Cancelled, ManualLoop, Task
from model.world import World
from typing_extensions import override

import trio_stream._compose
import trio_stream._handlers
import trio_stream._passages
import trio_stream._wait
from trio_stream import (
    ClosedResourceError,
    Event,
    Framing,
    InvalidCommitError,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    Topic,
    UnknownTopicError,
    WouldBlock,
)

TOKENS = ("", "t", "u")
WINDOW = 3  # deliveries that a snapshot function may be ahead, here
FEW = {"AT_ONCE": 1, "SLICE": 2, "STEPS": 2}  # so that the publisher's own task has something to wake

subjects = st.sampled_from(
    [
        Subject("web"),
        Subject("web"),
        Subject("db"),
        Subject(),
        Subject(),
        Subject("web", "eu"),
        Subject("", "eu"),
    ]
)
values = st.sampled_from(["a", "b", "c"])
topics = st.sampled_from([HEALTH, HEALTH, JOBS])
changes = st.lists(st.tuples(topics, subjects, st.none() | values), min_size=1, max_size=4)
states = st.lists(st.tuples(subjects, values), max_size=3)
tokens = st.sampled_from(TOKENS)
rights = st.sampled_from([*[None] * 6, frozenset({"web"}), frozenset({"web", "db"}), frozenset[str]()])
plans = st.builds(
    Plan,
    st.sampled_from(["published", "ahead", "behind"]),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from([*[None] * 6, 0, 1]),
)
numbers = st.integers(0, 1000)  # picks one of what is there


class PublisherMachine(RuleBasedStateMachine):
    """A publisher on the manual loop, and the model beside it."""

    def __init__(self) -> None:
        super().__init__()
        count("model", "courses of events")
        self.loop = ManualLoop()
        self.world: World
        self.receives: dict[Task, Reader] = {}
        self._undo: list[Callable[[], None]] = []
        self._patch(trio_stream._handlers, "anyio", self.loop)
        self._patch(trio_stream._compose, "anyio", self.loop)
        self._patch(trio_stream._handlers, "WINDOW", WINDOW)
        self._patch(trio_stream._passages, "WINDOW", WINDOW)
        for name, value in FEW.items():
            self._patch(trio_stream._wait, name, value)

    def _patch(self, module: Any, name: str, value: Any) -> None:
        old = getattr(module, name)
        setattr(module, name, value)
        self._undo.append(lambda: setattr(module, name, old))

    @initialize(
        history=st.sampled_from([3, 1, 2, 6, 20]),
        history_events=st.sampled_from([65_536, 65_536, 5]),
        ttl=st.sampled_from([0.0, 1.0, math.inf]),
        index=st.sampled_from([0, 7]),
    )
    def begin(self, history: int, history_events: int, ttl: float, index: int) -> None:
        loop = self.loop
        world = World(
            self._pause,
            loop.current_time,
            history=history,
            history_events=history_events,
            ttl=ttl,
            index=index,
        )
        self.world = world
        world.publisher._parking._backend = loop

    async def _pause(self) -> None:
        await self.loop.checkpoint()

    # The store and the publisher:

    @property
    def is_running(self) -> bool:
        return self.world.publisher._is_running

    @precondition(lambda self: not self.is_running)
    @rule()
    def run(self) -> None:
        self.world.publisher._is_running = True
        self.world.publisher._maker.open(cast("Any", self.loop))
        self.loop.start_soon(self.world.publisher._parking.run)

    def _run(self) -> None:
        if not self.is_running:
            self.run()

    @rule(
        commits=st.lists(changes, min_size=1, max_size=5),
        step=st.sampled_from([1, 1, 1, 3]),
        publish=st.sampled_from([True, True, True, False]),
        then_receive=st.sampled_from([True, True, False]),
    )
    def commit(self, commits: Any, step: int, publish: bool, then_receive: bool) -> None:
        for commit in commits:
            self.world.store.commit(step, commit)
        if publish and not self.world.is_stopped:
            self.publish(100, None)
            for reader in self.world.readers[-6:] if then_receive else ():
                self._drain(reader)

    @rule(count=st.integers(1, 4), revoked=st.sampled_from([*[None] * 15, *TOKENS]))
    def publish(self, count: int, revoked: str | None) -> None:
        if self.world.is_stopped:
            return
        if revoked is not None:
            self.world.publish(revoked=[revoked])
        while count and self.world.store.pending:
            count -= 1
            self.world.publish()

    @rule(
        chosen=st.sampled_from([[], [], [], [], [], ["none"], ["t"], ["u", "t", "t"], [""]]),
        by_event=st.booleans(),
    )
    def revoke(self, chosen: list[str], by_event: bool) -> None:
        if self.world.is_stopped:
            return
        if by_event:
            self.world.publish(revoked=chosen)
        else:
            self.world.revoke(chosen)

    @rule(
        kind=st.sampled_from([*["none"] * 15, "refresh", "restore", "skip"]),
        topic=topics,
        index=st.integers(0, 12),
        state=states,
    )
    def upset(self, kind: str, topic: Any, index: int, state: Any) -> None:
        if self.world.is_stopped:
            return
        match kind:
            case "refresh":
                self.world.refresh(topic, state)
            case "restore":
                self.world.restore(index, state)
            case "skip":
                self.world.skip(index % 3)

    @rule(wrong=st.sampled_from(["index", "two", "topic", "framing"]))
    def misuse(self, wrong: str) -> None:
        """D18: refused, and `check` finds nothing changed."""
        now = self.world.publisher.index
        commits = {
            "index": [event(now, "web")],
            "two": [event(now + 1, "web"), event(now + 2, "web")],
            "topic": [event(now + 1, "web"), event(now + 1, "web", topic=Topic[Health]("other"))],
            "framing": [Event(HEALTH, now + 1, Framing.NEW_SNAPSHOT_TO_FOLLOW)],
        }
        try:
            self.world.publisher.publish(commits[wrong])
        except (InvalidCommitError, UnknownTopicError):
            assert not self.world.is_stopped
        except ClosedResourceError:
            assert self.world.is_stopped
        else:
            raise AssertionError(f"D18: {wrong} was published")

    @rule(plan=plans)
    def plan(self, plan: Plan) -> None:
        self.world.plans.append(plan)

    @rule(seconds=st.sampled_from([0.4, 1.0]))
    def wait(self, seconds: float) -> None:
        self.loop.now += seconds

    # The subscribers:

    @rule(
        topic=topics,
        subject=subjects,
        token=tokens,
        can_see=rights,
        resets=st.booleans(),
        back=st.sampled_from([None, None, 0, 0, 1, 2, 5, -1, -3]),
        epoch=st.sampled_from(["right", "right", "none", "wrong"]),
        at_once=st.booleans(),
    )
    def subscribe(
        self,
        topic: Any,
        subject: Subject,
        token: str,
        can_see: Any,
        resets: bool,
        back: int | None,
        epoch: str,
        at_once: bool,
    ) -> None:
        world = self.world
        index = 0 if back is None else max(0, world.store.published - back)
        request = SubscribeRequest(
            topic,
            subject.key,
            namespace=subject.namespace,
            token=token,
            index=index,
            epoch={"right": world.store.epoch, "none": None, "wrong": "another"}[epoch],
        )
        if world.is_stopped:
            self._refused(request)
            return
        reader = world.subscribe(request, can_see=can_see, resets=resets)
        if at_once:
            self._run()
            self.settle()
            self._drain(reader)

    def _refused(self, request: SubscribeRequest[Health]) -> None:
        try:
            self.world.publisher.subscribe(request)
        except ClosedResourceError:
            return
        raise AssertionError("D18: subscribed to a publisher that has stopped")

    def _reader(self, number: int) -> Reader | None:
        readers = self.world.readers
        return readers[-1 - number % min(len(readers), 6)] if readers else None

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers)
    def resume(self, number: int) -> None:
        reader = self._reader(number)
        if reader is not None and not self.world.is_stopped:
            self.world.resume(reader)

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers)
    def unsubscribe(self, number: int) -> None:
        if (reader := self._reader(number)) is not None:
            self.world.unsubscribe(reader)

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers, count=st.sampled_from([1, 1, 2, 100]))
    def receive(self, number: int, count: int) -> None:
        """One by one, without waiting."""
        if (reader := self._reader(number)) is not None:
            self._drain(reader, count)

    @precondition(lambda self: self.world.readers)
    @rule()
    def everybody_receives(self) -> None:
        self.settle()
        for reader in self.world.readers[-6:]:
            self._drain(reader)

    def _drain(self, reader: Reader, count: int = 1000) -> None:
        if reader.subscription._is_receiving:
            return
        try:
            for _ in range(count):
                self.world.took(reader, [reader.subscription.receive_nowait()])
        except WouldBlock:
            self.world.blocked(reader)
        except (ClosedResourceError, SubscriptionForceClosed) as error:
            self.world.raised(reader, error)

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers, most=st.sampled_from([0, 0, 1, 2, None]))
    def begin_to_receive(self, number: int, most: int | None) -> None:
        """In a task, which stands still at once."""
        reader = self._reader(number)
        if reader is None or reader.subscription._is_receiving or reader in self.receives.values():
            return
        subscription = reader.subscription
        call = subscription.receive() if most == 0 else subscription.receive_batch(most)
        task = self.loop.spawn(cast("Any", call), "receive")
        self.receives[task] = reader
        self.loop.step(task)
        self._look_at(task)

    @precondition(lambda self: self.loop.ready())
    @rule(number=numbers, steps=st.sampled_from([1, 1, 3]))
    def step(self, number: int, steps: int) -> None:
        for _ in range(steps):
            if ready := self.loop.ready():
                task = ready[number % len(ready)]
                self.loop.step(task)
                self._look_at(task)

    @precondition(lambda self: self.receives)
    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        """D12: natively, whether it has been woken or not."""
        tasks = list(self.receives)
        task = tasks[number % len(tasks)]
        task.is_cancelled = True

    @rule()
    def settle(self) -> None:
        """Everybody runs until all wait."""
        for _ in range(10_000):
            if not (ready := self.loop.ready()):
                break
            self.loop.step(ready[0])
            self._look_at(ready[0])
        else:
            raise AssertionError("the tasks do not come to rest")
        if self.is_running:
            self.world.check_settled()
        assert self.world.is_stopped or self.world.publisher.statistics().waiting == len(self.receives)
        for reader in self.receives.values():
            self.world.blocked(reader)

    def _look_at(self, task: Task) -> None:
        if not task.is_done:
            return
        reader = self.receives.pop(task, None)
        if reader is None:
            if task.error is not None and not isinstance(task.error, Cancelled):
                raise task.error
        elif task.error is None:
            self.world.took(reader, task.result if isinstance(task.result, list) else [task.result])
        elif isinstance(task.error, Exception):
            self.world.raised(reader, task.error)

    @precondition(lambda self: self.is_running)
    @rule(really=st.integers(0, 19))
    def stop(self, really: int) -> None:
        if really == 0 and not self.world.is_stopped:
            self.world.stopping()
            self.world.publisher._stop()
            self.loop.cancel(task for task in self.loop.tasks if task not in self.receives)
            self.loop.start_soon(self.world.publisher._parking.finish)

    @invariant()
    def check(self) -> None:
        count("model", "states checked, one after each rule")
        self.world.check()

    @override
    def teardown(self) -> None:
        """D13: when all have left and the cache is over, nothing is left."""
        try:
            if hasattr(self, "world"):
                self._leave_nothing()
        finally:
            count("model", "steps of tasks, each chosen by the test", self.loop.steps)
            self.loop.close()
            self.restore_modules()

    def restore_modules(self) -> None:
        for undo in reversed(self._undo):
            undo()

    def _leave_nothing(self) -> None:
        world = self.world
        count("model", "events received and judged", world.events)
        if not world.is_stopped:
            self._run()
        self.settle()
        world.check()
        for reader in world.readers:
            self._drain(reader)
            world.unsubscribe(reader)
        self.settle()
        self.loop.now += 10
        self.settle()
        world.check()
        assert not self.receives
        assert not any(run.is_running for run in world.runs.values()), "D13: a handler is left"
        if world.ttl < math.inf:
            passages = world.publisher._passages
            assert not passages.shared, "D13: a snapshot is left"
            histories = world.publisher._feeds.histories.values()
            assert not any(history.ageing for history in histories), "D13: a snapshot is left"
            assert not passages._kept, "D13: a snapshot is left"
