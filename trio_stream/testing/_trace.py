"""Checks what one subscription has returned against the commits that there were: promises D1 to D5, D19, D21 and D22.

Which of the right sequences it is depends on where the snapshot was taken, and the trace says so itself with
end-of-snapshot.
After that nothing is open any more: the next event must be the next commit that touches the subscription, whole.
The state is compared at end-of-snapshot; from there on D1 follows, because what comes is what the state is made of.
A request of several interests is checked as one: there is one state, one order, and one event for each commit.
A reader with rights gets of an event what its old and its new payload tell; one that conflates gets, of all commits up
to an index, the newest event of each row.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NoReturn, TypeAlias, assert_never

from typing_extensions import TypeVar

from trio_stream import Event, Framing, PayloadEvents, SubscribeRequest

from ._arguments import check_upto
from ._broken import PromiseBroken

P = TypeVar("P", default=Any)

State: TypeAlias = dict[Any, Any]
"""What a reader makes of the events: whatever keys and values its `apply` puts there."""


@dataclass(frozen=True, kw_only=True)
class Model(Generic[P]):
    """What was true for one subscription: from it follows S(i), the state that its reader must have at index i."""

    request: SubscribeRequest[P]
    """What the subscription asked for."""
    commits: Sequence[Sequence[Event[P]]]
    """All commits, oldest first, of whatever topics and subjects; a list that grows may be checked again.

    The marks of their events are compared where they have some: they may have been given to `publish` instead.
    """
    apply: Callable[[State, Event[P]], None]
    """Changes a state by one single event, as the reader does it.

    Over several topics, namespaces or partitions the state must tell these apart.
    """
    initial: Iterable[Event[P]] = ()
    """What made the state before the first of the commits, if it was not empty."""
    authorizer: Any = field(default=None, repr=False)  # it may be a secret
    """What the subscription was given.

    Where events do not say in `previous` what they replace it may decide by the subject only: what is hidden cannot be
    taken back.
    """
    where: Callable[[P], bool] | None = None
    """The filter that the subscription was given; for it the same is true."""
    resets: bool = False
    """Whether `on_lag="reset"` was asked for, so that a new snapshot may come at any time."""
    row: Callable[[P], Hashable] | None = None
    """What one row of the state is, if `on_lag="conflate"` was asked for; a new snapshot may come then, too.

    Rows of different topics are different.
    """

    def touches(self, event: Event[P]) -> bool:
        """Whether the request asks for this single event."""
        payload: Any = event.payload
        return self.request.covers(event.topic, payload.subject)

    def shows(self, event: Event[P]) -> bool:
        """Whether the reader may see this single event."""
        return self._shows(event.payload)

    def part(self, commit: Iterable[Event[P]]) -> tuple[Event[P], ...]:
        """What the reader must get of a commit: of what it asked for what it may see, and withdrawals."""
        return self._across((event.previous, event) for event in commit if self.touches(event))

    def newest(self, after: int, upto: int) -> tuple[Event[P], ...]:
        """What a reader that conflates must get of the commits after one index up to another."""
        assert self.row is not None
        # {row: the first payload that is known to be replaced, and the last event}, by the index of that event.
        rows: dict[Hashable, tuple[P | None, Event[P]]] = {}
        for commit in self.commits[self._position(after) : self._position(upto)]:
            for event in filter(self.touches, commit):
                payload: Any = event.payload
                row = event.topic, self.row(payload)
                first, _ = rows.pop(row, (None, event))
                rows[row] = event.previous if first is None else first, event
        return self._across(rows.values())

    def state(self, index: int) -> State:
        """S(index), made anew."""
        state: State = {}
        for event in self.part(self.initial):
            self.apply(state, event)
        for commit in self.commits[: self._position(index)]:
            for event in self.part(commit):
                self.apply(state, event)
        return state

    def after(self, index: int) -> Sequence[Event[P]] | None:
        """The next commit with a greater index of which the reader must get something; None if there is none."""
        for commit in self.commits[self._position(index) :]:
            if self.part(commit):
                return commit
        return None

    def passed(self, index: int) -> Iterator[int]:
        """Where a reader may stand that has returned all up to this index: also behind what it may not see."""
        yield index
        for commit in self.commits[self._position(index) :]:
            if self.part(commit):
                return
            yield _index_of(commit)

    def at(self, index: int) -> Sequence[Event[P]]:
        """The commit with this index; empty if there is none."""
        found = self.commits[bisect_left(self.commits, index, key=_index_of) : self._position(index)]
        return found[0] if found else ()

    def _position(self, index: int) -> int:
        return bisect_right(self.commits, index, key=_index_of)

    def _shows(self, payload: Any) -> bool:
        if self.authorizer is not None and not payload.has_read_permission(self.authorizer):
            return False
        return self.where is None or bool(self.where(payload))

    def _across(self, changes: Iterable[tuple[P | None, Event[P]]]) -> tuple[Event[P], ...]:
        """What a reader gets of these events that has had these payloads, and nothing between."""
        got = (self._of(before, last) for before, last in changes)
        return tuple(event for event in got if event is not None)

    def _of(self, before: Any, last: Event[P]) -> Event[P] | None:
        if self.authorizer is None and self.where is None:
            return last
        replaced: Any = last.previous
        is_delete = replaced is not None and bool(last.payload == replaced.withdrawn())
        if not is_delete and self._shows(last.payload):
            return last
        if before is None or not self._shows(before):
            return None
        if is_delete and (replaced is before or self._shows(replaced)):
            return last
        return replace(last, payload=before.withdrawn(), previous=None)


def check_trace(events: Iterable[Event[P]], model: Model[P], *, upto: int | None = None) -> None:
    """Checks all that a subscription has returned, in order, framing included.

    `upto`: the index up to which it must have everything, as `collect(subscription, upto=...)` has.
    None: it may have stopped anywhere, even inside the snapshot.

    A request with an index may have been resumed or answered with a snapshot; the first event says which.
    Raises `PromiseBroken` with the number of the promise: D1 for a wrong state, D2 for the order, D3 for what is
    lost, doubled or foreign, D4 for a commit that is torn, D5 for the framing, D19 for what a reader may not see or
    that was not withdrawn, D21 for a conflated event that is not the newest of each row.
    Where the request has several interests it is D22, in place of D2 and D4, for live events that are out of order, for
    one commit in two events, and for a commit that lacks a topic.
    """
    check_upto(upto)
    trace = _Trace(model)
    for event in events:
        trace.take(event)
    if upto is not None:
        trace.end(upto)


class _Trace(Generic[P]):
    """How far a trace has come."""

    def __init__(self, model: Model[P]) -> None:
        self._model = model
        self._is_begun = False
        self._is_live = False
        # While live: the index reached, and the change that brought it there, None before the first one.
        self._index = 0
        self._last: Event[P] | None = None
        # What the reader has made of the snapshot.
        self._state: State = {}

    def take(self, event: Event[P]) -> None:
        """Checks the next event."""
        request = self._model.request
        topics = dict.fromkeys(interest.topic for interest in request.interests)
        if event.topic not in topics:
            asked = " and ".join(repr(topic.name) for topic in topics)
            self._fail("D3", event.index, f"an event of topic {str(event.topic)!r} in one of {asked}")
        if any(single.previous is not None for single in event.events):
            self._fail("D19", event.index, f"it says what it replaces: {_shown(event.events)}")
        match event.framing:
            case Framing.NEW_SNAPSHOT_TO_FOLLOW:
                self._take_marker(event)
            case Framing.END_OF_SNAPSHOT:
                self._take_end(event)
            case None:
                if not self._is_begun and request.index > 0:
                    self._go_live(request.index)
                if self._is_live:
                    self._take_commit(event)
                else:
                    self._take_state(event)
            case kind:
                assert_never(kind)
        self._is_begun = True

    def end(self, upto: int) -> None:
        """Checks that nothing is missing at the end."""
        if not self._is_begun and self._model.request.index > 0:
            self._go_live(self._model.request.index)
        if not self._is_live:
            self._fail("D5", None, "the trace ends before end-of-snapshot")
        lost = self._next(upto)
        if lost is not None and _index_of(lost) <= upto:
            self._fail(
                "D3", _index_of(lost), f"the trace ends at {self._index} without this commit: {_shown(lost)}"
            )

    def _take_marker(self, event: Event[P]) -> None:
        if event.index:
            self._fail("D5", event.index, "new-snapshot-to-follow has index 0")
        if not self._model.resets and self._model.row is None:
            if self._is_begun:
                self._fail("D5", self._index, "new-snapshot-to-follow after the beginning")
            if not self._model.request.index:
                self._fail("D5", 0, "new-snapshot-to-follow in answer to a fresh request")
        self._is_live = False
        self._state = {}

    def _take_end(self, event: Event[P]) -> None:
        if not self._is_begun and self._model.request.index > 0:
            self._fail(
                "D5", event.index, "end-of-snapshot without new-snapshot-to-follow in answer to a resume"
            )
        if self._is_live:
            self._fail("D5", event.index, "end-of-snapshot where no snapshot has begun")
        truth = self._model.state(event.index)
        if self._state != truth:
            self._fail("D1", event.index, f"the snapshot gives {self._state!r}, but the state is {truth!r}")
        self._go_live(event.index)

    def _take_state(self, event: Event[P]) -> None:
        for single in event.events:
            if not self._model.touches(single):
                self._fail("D3", single.index, f"the snapshot has what was not asked for: {single}")
            if not self._model.shows(single):
                promise = "D3" if self._model.where is None else "D19"
                self._fail(promise, single.index, f"the snapshot has what the reader may not see: {single}")
            self._model.apply(self._state, single)

    def _go_live(self, index: int) -> None:
        self._is_live = True
        self._index = index
        self._last = None

    def _take_conflated(self, event: Event[P]) -> None:
        if self._model.row is None:
            self._fail("D21", event.index, f"nobody asked for the newest of several commits: {event}")
        expected = self._model.newest(self._index, event.index)
        starts = self._model.passed(self._index)  # it may have passed what it may not see one by one
        if not any(_is_same(event.events, self._model.newest(each, event.index)) for each in starts):
            self._fail(
                "D21",
                event.index,
                f"of each row the newest since {self._index} is {_shown(expected)}, "
                f"but {_shown(event.events)} came",
            )
        if not any(map(self._model.touches, self._model.at(event.index))):
            self._fail("D3", event.index, f"no commit of this index is of what was asked for: {event}")
        self._index = event.index
        self._last = event

    def _next(self, upto: int) -> Sequence[Event[P]] | None:
        """The next commit that has to come, at least if it is not newer than this index."""
        model = self._model
        if model.row is not None and not model.newest(self._index, upto):
            return None  # one that came and went while the reader was behind is nothing for it
        return model.after(self._index)

    def _take_commit(self, event: Event[P]) -> None:
        self._check_order(event)
        if event.is_conflated:
            self._take_conflated(event)
            return
        commit = self._next(event.index - 1) or self._model.after(event.index - 1)
        if commit is None or event.index < _index_of(commit):
            self._fail("D3", event.index, f"nothing that this subscription should get: {event}")
        if event.index > _index_of(commit):
            lost = _index_of(commit)
            self._fail("D3", lost, f"lost: after {self._index} came {event.index}, without {_shown(commit)}")
        expected = self._model.part(commit)
        if not _is_same(event.events, expected):
            self._fail(
                self._broken_by(commit, event.events, expected),
                event.index,
                f"the commit is {_shown(expected)}, but {_shown(event.events)} came",
            )
        touching = sum(map(self._model.touches, commit))
        if isinstance(event.payload, PayloadEvents) != (touching > 1):
            self._fail(
                "D4", event.index, f"a commit of {touching} here came as {type(event.payload).__name__}"
            )
        self._index = event.index
        self._last = event

    def _broken_by(
        self, commit: Iterable[Event[P]], came: Iterable[Event[P]], expected: Iterable[Event[P]]
    ) -> str:
        model = self._model
        has_rights = model.authorizer is not None or model.where is not None
        if has_rights and any(each.previous is not None for each in commit if model.touches(each)):
            return "D19"
        lacks_topic = {each.topic for each in came} != {each.topic for each in expected}
        return "D22" if self._is_union and lacks_topic else "D4"

    def _check_order(self, event: Event[P]) -> None:
        if event.index > self._index:
            return
        if self._last is None:
            self._fail("D2", event.index, f"late: the stream was at {self._index} before its first change")
        if event.index < self._index:
            self._fail("D22" if self._is_union else "D2", event.index, f"came after {self._index}")
        if event == self._last:
            self._fail("D3", event.index, f"delivered twice: {event}")
        torn = f"one commit in two events: {_shown(self._last.events + event.events)}"
        self._fail("D22" if self._is_union else "D4", event.index, torn)

    @property
    def _is_union(self) -> bool:
        return len(self._model.request.interests) > 1

    def _fail(self, promise: str, index: int | None, difference: str) -> NoReturn:
        raise PromiseBroken(promise, index, difference)


def _index_of(commit: Sequence[Event[Any]]) -> int:
    return commit[0].index


def _is_same(came: Sequence[Event[Any]], expected: Sequence[Event[Any]]) -> bool:
    return len(came) == len(expected) and all(
        (one.topic, one.index, one.payload) == (other.topic, other.index, other.payload)
        and other.mark in ("", one.mark)
        for one, other in zip(came, expected, strict=True)
    )


def _shown(events: Iterable[Event[Any]]) -> str:
    return " + ".join(
        f"{event.payload!r}{f' with mark {event.mark!r}' if event.mark else ''}" for event in events
    )
