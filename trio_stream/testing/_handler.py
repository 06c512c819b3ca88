"""Checks a snapshot function: what it appends, what it returns, and how it ends.

It runs against an appender that keeps what it is given, waits at each append as the real one may, and can be told
to fail or to let something happen there.
"""

from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, NoReturn

import anyio
import anyio.lowlevel
from typing_extensions import TypeVar, override

from trio_stream import (
    ALL,
    Cursor,
    Event,
    Framing,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFunc,
    SubscribeRequest,
)

from ._broken import PromiseBroken
from ._cancel import cancel_at_every_checkpoint
from ._trace import Model, State

P = TypeVar("P", default=Any)

_MOST: Final = 16  # appends that are made to fail, the first ones


async def check_snapshot_handler(
    handler: SnapshotFunc[P],
    request: SubscribeRequest[P],
    *,
    model: Model[P] | None = None,
    at_append: Callable[[], Awaitable[object]] | None = None,
    unready: AbstractAsyncContextManager[object] | None = None,
    finishes: bool = False,
) -> None:
    """Runs a snapshot function many times, and raises `PromiseBroken` for the first rule that it breaks.

    `model`: what the state is; without one nobody knows whether the snapshot is right, only whether it is well formed.
    `at_append`: something to happen in the middle, as a commit, of which `model` must know: a function that reads the
    index and the state at two moments is found by it. Called before each append of the first run.
    `unready`: entered to make the store not ready; the function must raise then.
    `finishes`: it is of a `Source` that `finishes`, so that it may call `finish` where one key is asked for.

    The rules: an index, or a `Cursor`, is returned, not negative, not below that of anything appended, and 0 only for
    nothing; all runs say the same epoch, and for one index the same mark; each append has events of one index and of
    what was asked for, and no framing; every append is awaited, and none comes later; token, index, epoch and mark of
    the request make no difference; an error of an append is not swallowed, for the snapshot would be taken for whole; a
    cancellation neither, at every checkpoint, and the function works after it; all runs of one index say the same about
    whether the subject is finished.
    It runs as often as it has checkpoints: give it a small state.

    A request with `prefix` or `ALL` checks a function of a `Source` that is wide.
    One of several interests is a `ValueError`: no snapshot function is asked for that.
    """
    if len(request.interests) > 1:
        raise ValueError(
            f"a snapshot function is asked for one interest at a time, not for {len(request.interests)}"
        )
    check = _Check(
        handler, replace(request, token="", index=0, epoch=None, mark=""), model, finishes=finishes
    )
    await check.run(at_append=at_append)
    whole = await check.run()
    check.compare(
        whole,
        await check.run(
            replace(request, token="another", index=max(1, whole.index), epoch="another", mark="another")
        ),
    )
    await check.cancel_at_each_append(len(whole.groups))
    await check.fail_at_each_append(len(whole.groups))
    await check.cancel_at_each_checkpoint()
    if unready is not None:
        await check.raises_while(unready)


class _AppendFailedError(Exception):
    """What an append is made to raise."""


@dataclass
class _Recording(SnapshotAppender[P], Generic[P]):
    """What one run has appended; `before` is called at each append, with its number."""

    before: Callable[[int], Awaitable[object]] | None = None
    groups: list[tuple[Event[P], ...]] = field(default_factory=list)
    index: int = 0
    called: int = 0
    finishes: bool = False
    is_finished: bool = False
    is_closed: bool = False

    @override
    def append(self, events: Iterable[Event[P]], /) -> Awaitable[bool]:  # type: ignore[override]
        """Not `async`, so that a call which nobody awaits is seen."""
        number = self.called
        self.called += 1
        return _Append(lambda: self._append(number, events))

    @override
    def finish(self) -> None:
        if self.is_closed:
            raise PromiseBroken("finish", None, "it was called after the function had returned")
        if not self.finishes:
            super().finish()
        self.is_finished = True

    async def _append(self, number: int, events: Iterable[Event[P]]) -> bool:
        group = tuple(events)
        if self.before is not None:
            await self.before(number)
        await anyio.lowlevel.checkpoint()
        if self.is_closed:
            raise PromiseBroken("append", None, f"append {number} came after the function had returned")
        self.groups.append(group)
        return True


class _Append:
    """An awaitable that starts nothing, and warns of nothing, unless it is awaited."""

    def __init__(self, call: Callable[[], Awaitable[bool]]) -> None:
        self._call = call

    def __await__(self) -> Generator[Any, Any, bool]:
        return self._call().__await__()


class _Check(Generic[P]):
    """One snapshot function and what it is asked for."""

    def __init__(
        self,
        handler: SnapshotFunc[P],
        request: SubscribeRequest[P],
        model: Model[P] | None,
        *,
        finishes: bool,
    ) -> None:
        self._finishes = finishes and _is_of_one_key(request)
        self._handler = handler
        self._request = request
        self._model = model
        # What the runs have returned, {index: one of them}; the epoch is that of all.
        self._cursors: dict[int, Cursor | int] = {}
        # Whether the runs have said that the subject is finished, by the index of the snapshot.
        self._ends: dict[int, bool] = {}

    async def run(
        self,
        request: SubscribeRequest[P] | None = None,
        *,
        at_append: Callable[[], Awaitable[object]] | None = None,
    ) -> _Recording[P]:
        """One run; what it has appended is right."""
        recording = self._recording(None if at_append is None else lambda _: at_append())
        recording.index = await self._call(self._request if request is None else request, recording)
        self._check(recording)
        return recording

    def _recording(self, before: Callable[[int], Awaitable[object]] | None = None) -> _Recording[P]:
        return _Recording(before, finishes=self._finishes)

    async def _call(self, request: SubscribeRequest[P], recording: _Recording[P]) -> int:
        """The index that it returns; the rest of a cursor is right."""
        returned = await self._handler(request, recording)
        recording.is_closed = True
        for _ in range(8):  # whoever was left behind has its turn
            await anyio.lowlevel.checkpoint()
        index = self._check_returned(returned)
        if self._ends.setdefault(index, recording.is_finished) is not recording.is_finished:
            self._fail("finish", index, "one run says that the subject is finished, and another does not")
        return index

    def _check_returned(self, returned: object) -> int:
        if isinstance(returned, bool) or not isinstance(returned, int | Cursor):
            self._fail("index", None, f"returned {returned!r}, not an integer or a Cursor")
        index = returned.index if isinstance(returned, Cursor) else returned
        for other in self._cursors.values():
            if _epoch_of(other) != _epoch_of(returned):
                self._fail("cursor", index, f"returned {returned!r}, and before {other!r}, of another epoch")
        if (other := self._cursors.setdefault(index, returned)) != returned:
            self._fail("cursor", index, f"returned {returned!r}, and before {other!r}, of another commit")
        return index

    def compare(self, one: _Recording[P], other: _Recording[P]) -> None:
        """A snapshot is shared by all tokens, so two at one index are the same."""
        if one.index == other.index and one.groups != other.groups:
            self._fail(
                "request",
                one.index,
                f"a request with a token gets {other.groups!r}, one without gets {one.groups!r}: "
                "a snapshot is shared, use an authorizer",
            )

    async def fail_at_each_append(self, count: int) -> None:
        """An error of an append must come out."""
        await anyio.lowlevel.checkpoint()
        for failing in range(min(count, _MOST)):

            async def fail(number: int, failing: int = failing) -> None:
                await anyio.lowlevel.checkpoint()
                if number == failing:
                    raise _AppendFailedError(f"append {number}")

            try:
                index = await self._call(self._request, self._recording(fail))
            except Exception:  # noqa: BLE001, S112 - it may be wrapped: all that counts is that it came
                continue
            self._fail(
                "append", index, f"the error of append {failing} was swallowed: a part is taken for the whole"
            )

    async def cancel_at_each_append(self, count: int) -> None:
        """A cancellation must come out: nobody is left who wants the snapshot."""
        for cancelling in range(min(count, _MOST)):
            with anyio.CancelScope() as scope:

                async def cancel(
                    number: int, cancelling: int = cancelling, scope: anyio.CancelScope = scope
                ) -> None:
                    await anyio.lowlevel.checkpoint()
                    if number == cancelling:
                        scope.cancel()

                await self._handler(self._request, self._recording(cancel))
            if not scope.cancelled_caught:
                self._fail(
                    "cancel", None, f"cancelled in append {cancelling} it returned as if nothing had been"
                )
        await self.run()

    async def cancel_at_each_checkpoint(self) -> None:
        """Wherever it is cancelled, the next run is right."""

        async def again(_: bool) -> None:
            await self.run()

        await cancel_at_every_checkpoint(
            lambda: self._handler(self._request, self._recording()), after_each=again
        )

    async def raises_while(self, unready: AbstractAsyncContextManager[object]) -> None:
        """A store that is not ready is not an empty one."""
        recording = self._recording()
        async with unready:
            try:
                index = await self._call(self._request, recording)
            except Exception:  # noqa: BLE001 - which one is up to the handler
                return
        self._fail(
            "not ready",
            index,
            f"returned {len(recording.groups)} groups instead of raising: readers take it for the state",
        )

    def _check(self, recording: _Recording[P]) -> None:
        index = recording.index
        if index < 0:
            self._fail("index", index, "is negative")
        if index == 0 and recording.groups:
            self._fail(
                "index", 0, f"0 is for a store without a commit, and this one has {recording.groups[0]!r}"
            )
        if recording.called != len(recording.groups):
            self._fail(
                "append", index, f"{recording.called} appends, {len(recording.groups)} of them awaited"
            )
        for group in recording.groups:
            for event in group:
                if not isinstance(event, Event):
                    self._fail("append", index, f"not an event: {event!r}")
                self._check_event(event, group[0].index, index)
        if self._model is not None:
            self._check_state(recording, self._model)

    def _check_event(self, event: Event[P], expected: int, newest: int) -> None:
        if isinstance(event.payload, Framing | PayloadEvents):
            self._fail(
                "append", event.index, f"a {type(event.payload).__name__} payload: framing is the publisher's"
            )
        if event.topic != self._request.topic:
            self._fail("append", event.index, f"an event of another topic, {str(event.topic)!r}")
        if event.index != expected:
            self._fail(
                "append",
                event.index,
                f"events of different indexes in one append: {expected} and {event.index}",
            )
        if event.index > newest:
            self._fail(
                "index", newest, f"returned although the state has {event.index}: subscribers get that twice"
            )
        self._check_subject(event)

    def _check_subject(self, event: Event[P]) -> None:
        payload: Any = event.payload
        try:
            is_covered = self._request.covers(event.topic, payload.subject)
        except (AttributeError, TypeError) as error:
            self._fail("append", event.index, f"a payload of type {type(payload).__name__}: {error}")
        if not is_covered:
            self._fail(
                "append",
                event.index,
                f"{str(payload.subject)!r} where {self._asked()!r} was asked for: it is dropped",
            )

    def _asked(self) -> str:
        """As the subject it is, or with stars."""
        (interest,) = self._request.interests
        places = ("*" if each is ALL else each for each in (interest.partition, interest.namespace))
        return "/".join([*places, f"{interest.key}{'*' if interest.prefix else ''}"])

    def _check_state(self, recording: _Recording[P], model: Model[P]) -> None:
        state: State = {}
        for group in recording.groups:
            for event in group:
                model.apply(state, event)
        truth = model.state(recording.index)
        if state != truth:
            self._fail("state", recording.index, f"the snapshot gives {state!r}, but the state is {truth!r}")

    def _fail(self, rule: str, index: int | None, difference: str) -> NoReturn:
        raise PromiseBroken(f"snapshot handler, {rule}", index, difference)


def _is_of_one_key(request: SubscribeRequest[Any]) -> bool:
    (interest,) = request.interests
    return interest.key != "" and not interest.prefix and ALL not in (interest.namespace, interest.partition)


def _epoch_of(returned: Cursor | int) -> str | None:
    return returned.epoch if isinstance(returned, Cursor) else None
