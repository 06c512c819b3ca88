"""Checks what one subscription has returned against the commits that there were.

A trace is right if it is one of the sequences that the promises D1 to D6 leave open; which one it is depends on
where the snapshots were taken, and they say so themselves with end-of-snapshot.
After that nothing is open any more: the next event must be the next commit that touches the subscription, whole.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, NoReturn

from typing_extensions import TypeVar

from trio_stream import Event, PayloadEvents, Subject, SubscribeRequest

P = TypeVar("P", default=Any)

State = dict[Any, Any]
Begins = Literal["fresh", "resume", "stale"]


class TraceError(AssertionError):
    """A trace breaks a promise: which, at which event (counted from 0), and how."""

    def __init__(self, promise: str, position: int, message: str) -> None:
        super().__init__(f"{promise} broken by event {position}: {message}")
        self.promise = promise
        self.position = position


@dataclass(frozen=True, slots=True)
class Model(Generic[P]):
    """What was true, and what was asked for.

    `commits`: all commits of the timeline, oldest first, of whatever topics and subjects.
    `apply`: folds one single event into a state.
    `start`, `initial`: the index before the first of the commits, and the state of the request's topic there.
    `begins`: what the request is; None finds it out from the trace.
    `held`: what a client that resumes held; None is what it should have held.
    `resets`: whether `on_lag="reset"` was asked for.
    Whether a payload may be read must depend on its subject alone: what is hidden cannot be taken back.
    """

    request: SubscribeRequest[P]
    commits: Sequence[Sequence[Event[P]]]
    apply: Callable[[State, Event[P]], None]
    start: int = 0
    initial: Iterable[Event[P]] = ()
    authorizer: Any = None
    begins: Begins | None = None
    held: State | None = None
    resets: bool = False

    def touches(self, event: Event[P]) -> bool:
        """Whether the request asks for it."""
        asked, subject = self.request.subject, _subject(event)
        return event.topic == self.request.topic and asked == (
            subject if asked.key else subject._replace(key="")
        )

    def shows(self, event: Event[P]) -> bool:
        """Whether the reader may see it."""
        payload: Any = event.payload
        return self.authorizer is None or payload.has_read_permission(self.authorizer)

    def state_at(self, index: int) -> State:
        """S(index): the state after the commit with this index, as far as it concerns the subscription."""
        state: State = {}
        for event in self.initial:
            if self.touches(event) and self.shows(event):
                self.apply(state, event)
        for commit in self.commits:
            if commit[0].index > index:
                break
            self.fold(state, commit)
        return state

    def fold(self, state: State, commit: Iterable[Event[P]]) -> None:
        for event in commit:
            if self.touches(event) and self.shows(event):
                self.apply(state, event)

    def after(self, index: int) -> Iterator[Sequence[Event[P]]]:
        """The commits with a greater index of which the reader must see something."""
        for commit in self.commits:
            if commit[0].index > index and any(self.touches(e) and self.shows(e) for e in commit):
                yield commit


class Phase(enum.Enum):
    """Where a trace is."""

    BEGIN = "begin"
    SNAPSHOT = "snapshot"
    LIVE = "live"


class Trace(Generic[P]):
    """Takes the events of a trace one by one; `state` is what they amount to, `index` how far they have come."""

    def __init__(self, model: Model[P]) -> None:
        self.model = model
        self.phase = Phase.BEGIN
        self.index = 0
        self.state: State = {}
        self.count = 0
        self._truth: State | None = None
        if model.begins == "resume":
            self._resume()

    def take(self, event: Event[P]) -> None:
        """Checks the next event; `TraceError` if it must not come here."""
        if event.topic != self.model.request.topic:
            self._fail("D3", f"an event of topic {event.topic}")
        if event.is_new_snapshot_to_follow:
            self._take_marker(event)
        elif self.phase is Phase.BEGIN and not self._begin_with(event):
            self._take_commit(event)
        elif event.is_end_of_snapshot:
            self._take_end(event)
        elif self.phase is Phase.LIVE:
            self._take_commit(event)
        else:
            self._take_row(event)
        self.count += 1

    def missing(self, until: int) -> int | None:
        """The index of the next commit up to `until` that a complete trace would have; None if it is complete."""
        commit = next(self.model.after(self.index), None)
        return None if commit is None or commit[0].index > until else commit[0].index

    def _fail(self, promise: str, message: str) -> NoReturn:
        raise TraceError(promise, self.count, message)

    def _resume(self) -> None:
        self.phase = Phase.LIVE
        self.index = self.model.request.index

    def _begin_with(self, event: Event[P]) -> bool:
        """Whether the first event, which is no marker, belongs to a snapshot."""
        if self.model.begins == "stale":
            self._fail("D5", "a stale resume must begin with new-snapshot-to-follow")
        if self.model.begins is None and self.model.request.index > 0:
            self._resume()
            return False
        self.phase = Phase.SNAPSHOT
        return True

    def _take_marker(self, event: Event[P]) -> None:
        if not self.model.resets:
            if self.phase is not Phase.BEGIN:
                self._fail("D5", "new-snapshot-to-follow later than at the beginning")
            if self.model.begins == "fresh" or self.model.request.index == 0:
                self._fail("D5", "new-snapshot-to-follow in answer to a fresh request")
        if event.index:
            self._fail("D5", f"new-snapshot-to-follow with index {event.index}")
        self.phase = Phase.SNAPSHOT
        self.index = 0
        self.state = {}

    def _take_row(self, event: Event[P]) -> None:
        for single in event.events:
            if not self.model.touches(single):
                self._fail("D3", f"the snapshot has {single}, which was not asked for")
            if not self.model.shows(single):
                self._fail("D3", f"the snapshot has {single}, which the reader may not see")
            self.model.apply(self.state, single)

    def _take_end(self, event: Event[P]) -> None:
        if self.phase is Phase.LIVE:
            self._fail("D5", "a second end-of-snapshot")
        if event.index < self.model.start:
            self._fail("D1", f"a snapshot at {event.index}, before the timeline begins at {self.model.start}")
        self.phase = Phase.LIVE
        self.index = event.index
        self._truth = self.model.state_at(event.index)
        self._compare(self._truth)

    def _take_commit(self, event: Event[P]) -> None:
        if event.is_framing:
            self._fail("D5", f"{event.payload} after a resume")
        if event.index <= self.index:
            self._fail("D2", f"index {event.index} after {self.index}")
        if self._truth is None:  # the first after a resume
            self._truth = self.model.state_at(self.index)
            self.state = dict(self._truth if self.model.held is None else self.model.held)
            self._compare(self._truth)
        commit = next(self.model.after(self.index), None)
        if commit is None or event.index < commit[0].index:
            self._fail("D3", f"{event} is nothing that this subscription should get")
        if event.index > commit[0].index:
            self._fail("D6", f"index {event.index} although {commit[0].index} is missing")
        touching = [single for single in commit if self.model.touches(single)]
        if event.events != tuple(filter(self.model.shows, touching)):
            self._fail("D4", f"{event} is not the whole of commit {commit}")
        if isinstance(event.payload, PayloadEvents) != (len(touching) > 1):
            self._fail("D4", f"{event} should {'not ' if len(touching) == 1 else ''}be a batch")
        for single in event.events:
            self.model.apply(self.state, single)
        self.model.fold(self._truth, commit)
        self.index = event.index
        self._compare(self._truth)

    def _compare(self, truth: State) -> None:
        if self.state != truth:
            self._fail("D1", f"at index {self.index} the reader has {self.state}, the store had {truth}")


def check_trace(events: Iterable[Event[P]], model: Model[P], *, until: int | None = None) -> Trace[P]:
    """Checks all that a subscription has returned, in order; `TraceError` names the promise that is broken.

    `until`: the index up to which it must have everything; None if it may have stopped anywhere.
    """
    trace = Trace(model)
    for event in events:
        trace.take(event)
    if until is not None:
        if trace.phase is not Phase.LIVE:
            raise TraceError("D5", trace.count, "the trace stops before end-of-snapshot")
        if (index := trace.missing(until)) is not None:
            raise TraceError("D3", trace.count, f"commit {index} is missing at the end")
    return trace


def _subject(event: Event[Any]) -> Subject:
    payload: Any = event.payload
    subject: Subject | str = payload.subject
    return subject if isinstance(subject, Subject) else Subject(subject)
