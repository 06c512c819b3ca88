"""An event loop without a loop: tasks stand still until the test says which of them goes on, or is cancelled.

It stands in for the third back end of `_wait.Backend`, and for what `_handlers` and `_compose` use of anyio, so that a
test decides about every single step of the library between two suspensions.
A cancellation is as harsh as asyncio's: it reaches a task also when that has been woken already.
"""

# ruff: noqa: SLF001 - the one place of the tests that stands in for a back end

import math
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from typing import Any, NamedTuple, Self, cast

from typing_extensions import override

from trio_stream._wait import Backend, Slot


class Cancelled(BaseException):
    """What a cancelled task gets; `is_native` if it was not a scope that was cancelled."""

    def __init__(self, *, is_native: bool) -> None:
        self.is_native = is_native


class Woken(NamedTuple):
    """Why a task stands still: it can go on (`slot` is None), is parked in a slot, or sleeps."""

    slot: Slot | None = None
    until: float = -math.inf


@types.coroutine
def suspend(why: Woken) -> Generator[Woken, None, None]:
    yield why


class Task:
    """A coroutine that goes on when `ManualLoop.step` says so."""

    def __init__(self, loop: "ManualLoop", coroutine: Coroutine[Any, Any, Any], name: str) -> None:
        self.loop = loop
        self.name = name
        self.coroutine = coroutine
        self.why = Woken()
        self.scopes: list[Scope] = []
        self.is_cancelled = False  # natively: once
        self.is_started = False  # its scopes wait for that, as in anyio
        self.is_shielded = False  # its scopes have had their say, and it waits for others that are in them
        self.is_done = False
        self.tell: Callable[[Task], None] | None = None  # that it has ended
        self.result: Any = None
        self.error: BaseException | None = None

    @override
    def __repr__(self) -> str:
        return self.name

    @property
    def must_be_cancelled(self) -> bool:
        in_scope = any(scope.cancel_called for scope in self.scopes)
        return self.is_cancelled or (in_scope and self.is_started and not self.is_shielded)

    @property
    def can_go_on(self) -> bool:
        if self.is_done:
            return False
        if self.must_be_cancelled:
            return True
        is_parked = self.why.slot is not None and self.why.slot._parked is cast("Any", self)
        return not is_parked and self.why.until <= self.loop.now


class Scope:
    """What is needed of `anyio.CancelScope`."""

    def __init__(self, loop: "ManualLoop") -> None:
        self.loop = loop
        self.cancel_called = False

    def cancel(self) -> None:
        self.cancel_called = True

    def __enter__(self) -> Self:
        assert self.loop.current is not None
        self.task = self.loop.current
        self.task.scopes.append(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self.task.scopes.remove(self)
        return kind is Cancelled and self.cancel_called


class Group:
    """What `_compose` needs of `anyio.abc.TaskGroup`."""

    def __init__(self, loop: "ManualLoop") -> None:
        self.cancel_scope = Scope(loop)
        self._loop = loop
        self._tasks = 0
        self._host = Slot()
        self._errors: list[BaseException] = []

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> None:
        self._tasks += 1
        task = self._loop.spawn(function(*args), function.__name__)
        task.scopes = list(self.cancel_scope.task.scopes)
        task.tell = self._tell

    def _tell(self, task: Task) -> None:
        """One of its tasks has ended."""
        self._tasks -= 1
        self._loop.wake((self._host,))
        if task.error is not None and not isinstance(task.error, Cancelled):
            self._errors.append(task.error)
            self.cancel_scope.cancel()
            task.error = None

    async def __aenter__(self) -> Self:
        self.cancel_scope.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        task = self.cancel_scope.task
        if error is not None:
            self.cancel_scope.cancel()
        must_go: BaseException | None = None
        while self._tasks:
            try:
                await self._loop.park(self._host)
            except Cancelled as cancelled:
                if cancelled.is_native:
                    must_go = cancelled
                self.cancel_scope.cancel()
                task.is_shielded = True
        task.is_shielded = False
        is_mine = self.cancel_scope.__exit__(kind, error, None)
        if self._errors:
            raise BaseExceptionGroup("errors of tasks", self._errors)
        if must_go is not None:
            raise must_go
        return is_mine


class ManualLoop(Backend):
    """The tasks, the clock and the back end."""

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.now = 0.0
        self.steps = 0

    def spawn(self, coroutine: Coroutine[Any, Any, Any], name: str) -> Task:
        task = Task(self, coroutine, name)
        self.tasks.append(task)
        return task

    def start_soon(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> None:
        """As a task group has it."""
        self.spawn(function(*args), function.__name__)

    def cancel(self, tasks: Iterable[Task]) -> None:
        """As one does who cancels the task group that they are all in."""
        scope = Scope(self)
        scope.cancel()
        for task in tasks:
            task.scopes.insert(0, scope)

    def ready(self) -> list[Task]:
        return [task for task in self.tasks if task.can_go_on]

    def step(self, task: Task) -> None:
        """One stretch of a task, up to its next suspension or its end."""
        assert task.can_go_on
        self.steps += 1
        self.current = task
        must_be_cancelled, task.is_started = task.must_be_cancelled, True
        try:
            if must_be_cancelled:
                cancelled = Cancelled(is_native=task.is_cancelled)
                task.is_cancelled = False
                task.why = task.coroutine.throw(cancelled)
            else:
                task.why = task.coroutine.send(None)
        except StopIteration as stop:
            task.result = stop.value
            self._end(task)
        except BaseException as error:  # noqa: BLE001 - whoever started the task looks at it
            task.error = error
            self._end(task)
        finally:
            self.current = None

    def settle(self, most: int = 100_000) -> None:
        """Runs everything, in order of arrival, until all stand still."""
        for _ in range(most):
            if not (ready := self.ready()):
                return
            for task in ready:
                if task.can_go_on:
                    self.step(task)
        raise AssertionError("the tasks do not come to rest")

    def close(self) -> None:
        for task in self.tasks:
            task.coroutine.close()

    def _end(self, task: Task) -> None:
        task.is_done = True
        self.tasks.remove(task)
        if task.tell is not None:
            task.tell(task)

    @override
    def check(self) -> None:
        pass

    @override
    async def park(self, slot: Slot) -> None:
        slot._parked = cast("Any", self.current)
        try:
            await suspend(Woken(slot))
        except BaseException:
            slot._parked = None
            raise

    @override
    def wake(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            slot._parked = None

    @override
    def checkpoint(self) -> Awaitable[None]:
        return suspend(Woken())

    @override
    def call_from_thread(self) -> Callable[[Callable[[], object]], object]:
        raise NotImplementedError

    # What _handlers and _compose use of anyio:

    def create_task_group(self) -> Group:
        return Group(self)

    def CancelScope(self) -> Scope:  # noqa: N802
        return Scope(self)

    def get_cancelled_exc_class(self) -> type[BaseException]:
        return Cancelled

    def current_effective_deadline(self) -> float:
        assert self.current is not None
        return -math.inf if self.current.must_be_cancelled else math.inf

    def current_time(self) -> float:
        return self.now

    async def sleep_until(self, deadline: float) -> None:
        await suspend(Woken(until=deadline))
