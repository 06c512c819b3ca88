"""The rules of `PublisherMachine` for requests of any interests: prefixes, `ALL` and unions, with marks or without."""

# ruff: noqa: SLF001 - the model may know private names of the core

import math
from collections.abc import Sequence
from typing import Any, cast

from catalogue import HEALTH, JOBS
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from model.books import Plan
from model.interests import InterestsWorld, Watcher, Wish
from model.machine import PublisherMachine, numbers, rights, tokens, topics, values
from model.manual import Cancelled, Task
from model.timeline import TOPICS
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    Subject,
    SubscribeRequest,
    SubscriptionForceClosed,
    SubscriptionState,
)

KEYS = ("web", "we", "db")
NAMESPACES = ("default", "eu")

subjects = st.builds(
    Subject, st.sampled_from([*KEYS, *KEYS, *KEYS, ""]), st.sampled_from(["default", *NAMESPACES])
)
changes = st.lists(st.tuples(topics, subjects, st.none() | values), min_size=1, max_size=5)
wishes = st.one_of(
    st.builds(Wish, topics, st.sampled_from(["", *KEYS]), st.just(False), st.sampled_from(NAMESPACES)),
    st.builds(
        Wish, topics, st.sampled_from(["w", "we", "web", "d"]), st.just(True), st.sampled_from(NAMESPACES)
    ),
    st.builds(Wish, topics, st.sampled_from(["", *KEYS]), st.booleans(), st.none()),
)
unions = st.one_of(
    st.lists(wishes, min_size=1, max_size=1),
    st.lists(wishes, min_size=2, max_size=3),
    # What many ask for, so that it is shared.
    st.sampled_from(
        [
            [Wish(HEALTH), Wish(JOBS)],
            [Wish(HEALTH, "we", True), Wish(JOBS, "web")],
            [Wish(HEALTH, "w", True)],
            [Wish(HEALTH, "web"), Wish(HEALTH, "", False, "eu")],
        ]
    ),
)
plans = st.builds(
    Plan,
    st.sampled_from(["published", "ahead", "behind"]),
    st.booleans(),
    st.integers(0, 2),
    st.sampled_from([*[None] * 8, 0, 1]),
    st.sampled_from(["mark", "mark", "mark", "index", "false mark"]),
    st.booleans(),
)


class InterestsMachine(PublisherMachine):
    """As `PublisherMachine`; what is judged is in `InterestsWorld`."""

    world_type: type[InterestsWorld] = InterestsWorld

    def __init__(self) -> None:
        super().__init__()
        # Tasks in which somebody reads a state at once, with the index published then; and those that only wait.
        self.reads: dict[Task, tuple[Watcher, int]] = {}
        self.waits: dict[Task, tuple[Watcher, int | None]] = {}

    @property
    def wider(self) -> InterestsWorld:
        return cast("InterestsWorld", self.world)

    def _watcher(self, number: int) -> Watcher | None:
        return cast("Watcher | None", self._reader(number))

    @initialize(
        history=st.sampled_from([3, 1, 2, 6, 20]),
        history_events=st.sampled_from([65_536, 65_536, 5]),
        ttl=st.sampled_from([0.0, 1.0, math.inf]),
        index=st.sampled_from([0, 7]),
        has_marks=st.booleans(),
        wide=st.sampled_from([TOPICS, TOPICS, (HEALTH,), ()]),
    )
    @override
    def begin(
        self, history: int, history_events: int, ttl: float, index: int, has_marks: bool, wide: Any
    ) -> None:
        loop = self.loop
        world = self.world_type(
            self._pause,
            loop.current_time,
            history=history,
            history_events=history_events,
            ttl=ttl,
            index=index,
            has_marks=has_marks,
            wide=wide,
        )
        self.world = cast("Any", world)
        world.publisher._parking._backend = loop

    @rule(
        commits=st.lists(changes, min_size=1, max_size=5),
        step=st.sampled_from([1, 1, 1, 3]),
        publish=st.sampled_from([True, True, True, False]),
        then_receive=st.sampled_from([True, True, False]),
    )
    @override
    def commit(self, commits: Any, step: int, publish: bool, then_receive: bool) -> None:
        for commit in commits:
            self.wider.commit(step, commit)
        if publish and not self.world.is_stopped:
            self.publish(100, None)
            for reader in self.world.readers[-6:] if then_receive else ():
                self._drain(reader)

    @rule(step=st.sampled_from([1, 3]))
    def publish_nothing(self, step: int) -> None:
        if not self.world.is_stopped and not self.world.store.pending:
            self.wider.publish_nothing(step)

    @rule(plan=plans)
    @override
    def plan(self, plan: Plan) -> None:
        self.world.plans.append(plan)

    @rule(
        asked=unions,
        token=tokens,
        can_see=rights,
        resets=st.booleans(),
        back=st.sampled_from([None, None, None, 0, 0, 1, 2, 5, -1, -3]),
        epoch=st.sampled_from(["right", "right", "right", "none", "wrong"]),
        mark=st.sampled_from(["right", "right", "right", "none", "wrong"]),
        at_once=st.booleans(),
    )
    @override
    def subscribe(
        self,
        asked: Sequence[Wish],
        token: str,
        can_see: Any,
        resets: bool,
        back: int | None,
        epoch: str,
        mark: str,
        at_once: bool,
    ) -> None:
        world = self.wider
        index = 0 if back is None else max(0, world.store.published - back)
        request = asked[0].request(token)
        for wish in asked[1:]:
            request |= wish.request(token)
        request = SubscribeRequest(
            interests=request.interests,
            token=token,
            index=index,
            epoch={"right": world.store.epoch, "none": None, "wrong": "another"}[epoch],
            mark={"right": world.store.mark_of(index), "none": "", "wrong": "wrong"}[mark],
        )
        if world.is_stopped:
            self._refused(request)
        elif any(wish.namespace is None and wish.topic not in world.wide for wish in asked):
            self._not_known(request)
        else:
            held = world.ask(asked, request, can_see=can_see, resets=resets)
            if held.begins in ("resume", "judged"):
                held.held = None
            if at_once:
                self._run()
                self.settle()
                self._drain(cast("Any", held))

    def _not_known(self, request: SubscribeRequest[Any]) -> None:
        before = self.world.publisher.statistics()
        try:
            self.world.publisher.subscribe(request)
        except ValueError:
            assert self.world.publisher.statistics() == before
            return
        raise AssertionError("D18: ALL of a topic whose source is not wide")

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers)
    def begin_to_read_a_state(self, number: int) -> None:
        reader = self._watcher(number)
        if reader is None or reader.subscription._is_receiving or self._is_busy(reader):
            return
        task = self.loop.spawn(cast("Any", reader.subscription.receive_until_current()), "read a state")
        self.reads[task] = reader, self.world.store.published
        self.loop.step(task)
        self._look_at(task)

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers, ahead=st.sampled_from([None, None, 0, 1, 2]))
    def begin_to_wait(self, number: int, ahead: int | None) -> None:
        reader = self._watcher(number)
        if reader is None:
            return
        subscription = reader.subscription
        index = None if ahead is None else self.world.store.published + ahead
        call = subscription.wait_ready() if index is None else subscription.wait_published(index)
        task = self.loop.spawn(cast("Any", call), "wait")
        self.waits[task] = reader, index
        self.loop.step(task)
        self._look_at(task)

    def _is_busy(self, reader: Any) -> bool:
        return reader in self.receives.values() or any(reader is busy for busy, _ in self.reads.values())

    @precondition(lambda self: self.world.readers)
    @rule(number=numbers, most=st.sampled_from([0, 0, 1, 2, None]))
    @override
    def begin_to_receive(self, number: int, most: int | None) -> None:
        reader = self._reader(number)
        if reader is not None and not self._is_busy(reader):
            super().begin_to_receive(number, most)

    @precondition(lambda self: self.reads or self.waits)
    @rule(number=numbers)
    def cancel_a_wait(self, number: int) -> None:
        tasks = [*self.reads, *self.waits]
        tasks[number % len(tasks)].is_cancelled = True

    @rule()
    @override
    def settle(self) -> None:
        for _ in range(10_000):
            if not (ready := self.loop.ready()):
                break
            for task in ready:  # in turn: after the stop some look again and again, until others are done
                if task.can_go_on:
                    self.loop.step(task)
                    self._look_at(task)
        else:
            raise AssertionError("the tasks do not come to rest")
        if self.is_running:
            self.wider.check_settled()
        receiving = len(self.receives) + len(self.reads)
        assert self.world.is_stopped or self.world.publisher.statistics().waiting == receiving
        for reader in self.receives.values():
            self.world.blocked(reader)

    @override
    def _look_at(self, task: Task) -> None:
        if task.is_done and task in self.waits:
            self._has_waited(*self.waits.pop(task), task)
        elif task.is_done and task in self.reads:
            self._has_read(*self.reads.pop(task), task)
        else:
            super()._look_at(task)

    def _has_waited(self, reader: Watcher, index: int | None, task: Task) -> None:
        if task.error is None and index is None:
            assert reader.subscription.state is SubscriptionState.LIVE
        elif task.error is None:
            assert (
                self.world.store.published >= cast("int", index)
                or reader.subscription.epoch != self.world.store.epoch
            )
        elif not isinstance(task.error, (Cancelled, ClosedResourceError, SubscriptionForceClosed)):
            raise task.error

    def _has_read(self, reader: Watcher, index: int, task: Task) -> None:
        if isinstance(task.error, Cancelled):
            return
        if task.error is not None:
            if not isinstance(task.error, (ClosedResourceError, SubscriptionForceClosed)):
                raise task.error
            self.wider.raised(reader, task.error)
            return
        self.wider.took(reader, task.result)
        assert self.wider.next(reader, index) is None or reader.is_false, "D8: the state is not current"

    @precondition(lambda self: self.is_running)
    @rule(really=st.integers(0, 19))
    @override
    def stop(self, really: int) -> None:
        if really == 0 and not self.world.is_stopped:
            self.world.stopping()
            self.world.publisher._stop()
            own = [*self.receives, *self.reads, *self.waits]
            self.loop.cancel(task for task in self.loop.tasks if task not in own)
            self.loop.start_soon(self.world.publisher._parking.finish)

    @override
    def _leave_nothing(self) -> None:
        super()._leave_nothing()
        assert not self.reads
        assert not self.waits
        if self.world.ttl < math.inf or self.world.is_stopped:
            self.wider.check_empty()
