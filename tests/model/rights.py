"""Random courses of events for readers who see some of the state, by its values: a model of the state under rights.

Every commit says what it replaces.
A reader is given an authorizer, a filter or both, and folds what it is returned into a dict.
That is compared with the state of the store under these rights at *every* index that is published while it reads, also
at those of which it is told nothing.

`python tests/model/rights.py SEED LENGTH` replays a course.
"""

import random
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

sys.path.insert(0, str(Path(__file__).parents[1]))

from catalogue import Health
from model.checker import Phase
from model.interests import InterestsWorld, State, Watcher, Wish
from model.interests_courses import GIVEN, WEIGHTS, commit as of_interests, course, play, subscribe
from model.interests_machine import InterestsMachine
from model.timeline import TOPICS, Line
from typing_extensions import override

from trio_stream import Event, Subject, SubscribeRequest, Subscription, Topic


class Sight(NamedTuple):
    """What a reader may see: keys, or `key=value`; and the values that its filter lets through. None: everything."""

    can_read: frozenset[str] | None
    lets: frozenset[str | None] | None

    def reads(self, payload: Health) -> bool:
        return self.can_read is None or payload.has_read_permission(self.can_read)

    def shows(self, payload: Health) -> bool:
        return self.reads(payload) and (self.lets is None or payload.value in self.lets)

    def where(self, payload: Health) -> bool:
        """The filter of the reader."""
        assert self.reads(payload), "D19: the filter is asked about what may not be read"
        assert self.lets is not None
        return payload.value in self.lets


READS = [
    None,
    None,
    frozenset({"web=a", "we=a", "db=a", "web=b", "=a"}),
    frozenset({"web", "db=b", "we=c"}),
    frozenset({"web=restored", "we", "=b", "=c"}),
    frozenset[str](),
]
LETS = [None, None, frozenset({"a"}), frozenset({"a", "b", "restored"}), frozenset({"c", None})]

LOGGED = 5  # commits that a snapshot has as changes

Rows = dict[Subject, Event[Health]]


class RightsWorld(InterestsWorld):
    """What is true under rights."""

    identity = staticmethod(
        lambda event: event
    )  # the one that is handed out has no `previous`, and is another

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # {the index of a commit that was published: what each of its events replaced}
        self.previous: dict[int, list[Health | None]] = {}
        # The indexes that were published in this epoch, in order.
        self.order: list[int] = [self.store.published]
        # {reader: the index from which on it is to be compared}
        self.due: dict[Watcher, int] = {}
        self.compared = 0
        # {id of a line: it, and its rows after so many commits}, and these as far as a reader may see them.
        self._rows_of: dict[int, tuple[Line, list[Rows]]] = {}
        self._seen: dict[tuple[int, int, tuple[Wish, ...], Sight], State] = {}
        # {the index of a commit, and what a reader asks for and may see: what it gets of the commit}
        self._parts: dict[tuple[int, tuple[Wish, ...], Sight], list[Event[Health]]] = {}

    def sight(self, reader: Watcher) -> Sight:
        return cast("Sight", reader.can_see)

    # What is true:

    def rows(self, topic: Topic[Health], index: int) -> tuple[int, Rows]:
        """The state of a topic at this index, and after how many commits that is."""
        line = self.store.lines[topic]
        if id(line) not in self._rows_of:
            initial: Rows = {}
            for event in line.initial:
                _put(initial, event)
            self._rows_of[id(line)] = line, [initial]
        _, states = self._rows_of[id(line)]
        for commit in line.commits[len(states) - 1 :]:
            state = dict(states[-1])
            for event in commit:
                _put(state, event)
            states.append(state)
        number = bisect_right(line.commits, index, key=_index_of)
        return number, states[number]

    @override
    def state(self, reader: Watcher, index: int) -> State:
        state: State = {}
        sight = self.sight(reader)
        for topic in dict.fromkeys(wish.topic for wish in reader.wishes):
            number, rows = self.rows(topic, index)
            key = id(self.store.lines[topic]), number, reader.wishes, sight
            if key not in self._seen:
                seen = self._seen[key] = {}
                for subject, event in rows.items():
                    payload = _payload(event)
                    if reader.wants(event) and sight.shows(payload):
                        seen[topic.name, subject] = cast("str", payload.value)
            state |= self._seen[key]
        return state

    @override
    def is_for(self, reader: Watcher, event: Event[Health]) -> bool:
        """In the snapshot of a union there are changes too, and so withdrawals."""
        payload = _payload(event)
        return reader.wants(event) and (payload.value is None or self.sight(reader).shows(payload))

    @override
    def part(self, reader: Watcher, commit: Sequence[Event[Health]]) -> list[Event[Health]]:
        index = commit[0].index
        if index not in self.previous:  # it is not published yet, and what it replaces may change
            return self._part(reader, commit, self._previous_of(commit))
        key = index, reader.wishes, self.sight(reader)
        if key not in self._parts:
            self._parts[key] = self._part(reader, commit, self.previous[index])
        return self._parts[key]

    def _part(
        self, reader: Watcher, commit: Sequence[Event[Health]], previous: Sequence[Health | None]
    ) -> list[Event[Health]]:
        sight = self.sight(reader)
        found: list[Event[Health]] = []
        for event, old in zip(commit, previous, strict=True):
            payload = _payload(event)
            if not reader.wants(event):
                continue
            if old is not None and payload.value is None:  # a delete, or a withdrawal, is the same
                if sight == (None, None) or sight.shows(old):
                    found.append(event)
            elif sight == (None, None) or sight.shows(payload):
                found.append(event)
            elif old is not None and sight.shows(old):
                found.append(replace(event, payload=replace(payload, value=None)))
        return found

    def _previous_of(self, commit: Sequence[Event[Health]]) -> list[Health | None]:
        rows = {topic: dict(self.rows(topic, commit[0].index - 1)[1]) for topic in TOPICS}
        previous: list[Health | None] = []
        for event in commit:
            was = rows[event.topic].get(_payload(event).subject)
            previous.append(None if was is None else _payload(was))
            _put(rows[event.topic], event)
        return previous

    @override
    def _rows(self, topic: Topic[Health], wish: Wish | None, index: int) -> list[list[Event[Health]]]:
        """Every other snapshot has its newest commits as changes, as a log has them."""
        commits = [commit for commit in self.store.lines[topic].commits if commit[0].index <= index]
        newest = commits[-LOGGED:] if len(self.runs) % 2 else []
        before = newest[0][0].index - 1 if newest else index
        groups = super()._rows(topic, wish, before)
        for commit in newest:
            changes = zip(commit, self._previous_of(commit), strict=True)
            groups.append([replace(event, previous=old) for event, old in changes])
        if wish is None:
            return groups
        asked = [[event for event in group if wish.asks_for(event)] for group in groups]
        return [group for group in asked if group]

    # What is done to both:

    @override
    def as_published(self, commit: list[Event[Health]]) -> list[Event[Health]]:
        previous = self.previous[commit[0].index] = self._previous_of(commit)
        return [replace(event, previous=old) for event, old in zip(commit, previous, strict=True)]

    @override
    def publish(self, *, revoked: Sequence[str] = ()) -> None:
        super().publish(revoked=revoked)
        self._publish_index()

    @override
    def publish_nothing(self, step: int) -> None:
        super().publish_nothing(step)
        self._publish_index()

    def _publish_index(self) -> None:
        if self.store.published > self.order[-1]:
            self.order.append(self.store.published)

    @override
    def restore(self, index: int, state: list[tuple[Subject, str]]) -> None:
        super().restore(index, state)
        self.previous.clear()
        self._parts.clear()
        self.order = [index]

    @override
    def skip(self, count: int) -> None:
        super().skip(count)
        self._publish_index()

    @override
    def _open(
        self, request: SubscribeRequest[Health], can_see: frozenset[str] | None, *, resets: bool
    ) -> Subscription[Health]:
        sight = cast("Sight", can_see)
        return self.publisher.subscribe(
            request,
            authorizer=sight.can_read,
            where=None if sight.lets is None else sight.where,
            on_lag="reset" if resets else "close",
        )

    # What a receiving call gave:

    @override
    def _take_change(self, reader: Watcher, event: Event[Health]) -> None:
        self.compare(reader, event.index - 1)
        super()._take_change(reader, event)
        assert all(each.previous is None for each in (event, *event.events)), "D19: handed out"

    @override
    def check_reader(self, reader: Watcher) -> None:
        super().check_reader(reader)
        self.compare(reader, min(reader.subscription.horizon, self.store.published))

    @override
    def blocked(self, reader: Watcher) -> None:
        super().blocked(reader)
        self.check_reader(reader)

    @override
    def _check_feeds(self) -> None:
        """What is in the feeds is another model's affair, and takes long."""

    def compare(self, reader: Watcher, until: int) -> None:
        """What it holds with the state under its rights, at each index up to this one that was not compared yet."""
        is_known = reader.phase is Phase.LIVE and reader.is_open and not reader.is_false
        if not is_known or until < reader.index:
            return
        if reader.held is None:  # of a client that has come with a cursor, and whatever that stands for
            reader.held = self.state(reader, reader.index)
        begin = bisect_left(self.order, max(reader.index, self.due.get(reader, 0)))
        for index in self.order[begin : bisect_right(self.order, until)]:
            truth = self.state(reader, index)
            assert reader.held == truth, f"D1, D19: at {index} it holds {reader.held}, the store {truth}"
            self.compared += 1
            self.due[reader] = index + 1


class RightsMachine(InterestsMachine):
    """Its readers are long-lived ones, which were here first, and those that have come last."""

    world_type = RightsWorld

    @property
    def compared(self) -> int:
        """How often a reader was compared with what is true, once at each index."""
        return cast("RightsWorld", self.world).compared

    @override
    def _reader(self, number: int) -> Any:
        readers = self._present()
        return readers[number % len(readers)] if readers else None

    @override
    def commit(self, commits: Any, step: int, publish: bool, then_receive: bool) -> None:
        super().commit(commits, step, publish, then_receive=False)
        if then_receive:
            self._all_receive()

    @override
    def everybody_receives(self) -> None:
        self.settle()
        self._all_receive()

    def _all_receive(self) -> None:
        for reader in self._present():
            self._drain(reader)

    def _present(self) -> list[Any]:
        readers = self.world.readers
        first = [reader for reader in readers if reader.is_open][:16]
        return list(dict.fromkeys([*first, *readers[-8:]]))


def commits(rng: random.Random) -> dict[str, Any]:
    """More of them, and mostly received."""
    given = [of_interests(rng) for _ in range(rng.choice([1, 2, 4]))]
    together = [each for one in given for each in one["commits"]]
    return {
        **given[0],
        "commits": together,
        "publish": rng.random() < 0.8,
        "then_receive": rng.random() < 0.7,
    }


def with_rights(rng: random.Random) -> dict[str, Any]:
    return {**subscribe(rng), "can_see": Sight(rng.choice(READS), rng.choice(LETS))}


OF_RIGHTS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    **GIVEN,
    "commit": commits,
    "subscribe": with_rights,
}
HOW_OFTEN = {**WEIGHTS, "commit": 40, "subscribe": 16, "everybody_receives": 12, "revoke": 0.5, "upset": 0.2}


def one_course(seed: int, length: int) -> int:
    """Plays the course of this seed; returns how many comparisons there were."""
    machine = RightsMachine()
    try:
        play(course(seed, length, OF_RIGHTS, HOW_OFTEN), machine)
    except BaseException as error:
        error.add_note(f"replay: python tests/model/rights.py {seed} {length}")
        raise
    return machine.compared


def _payload(event: Event[Health]) -> Health:
    assert isinstance(event.payload, Health)
    return event.payload


def _put(rows: Rows, event: Event[Health]) -> None:
    """Keeps the event that a value is from."""
    payload = _payload(event)
    if payload.value is None:
        rows.pop(payload.subject, None)
    else:
        rows[payload.subject] = event


def _index_of(commit: Sequence[Event[Health]]) -> int:
    return commit[0].index


if __name__ == "__main__":
    sys.stdout.write(f"{one_course(int(sys.argv[1]), int(sys.argv[2]))} comparisons\n")
