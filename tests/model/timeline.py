"""What is true: the commits of a store, how far they are published, and what a topic still remembers of them."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from catalogue import HEALTH, JOBS, Health, apply
from model.checker import Begins

from trio_stream import Event, Subject, SubscribeRequest, Topic
from trio_stream.testing import Model

TOPICS = (HEALTH, JOBS)
KEYS = ("web", "db", "")
NAMESPACES = ("default", "eu")


@dataclass
class Line:
    """One topic, from the commit or the refresh at which its state became known."""

    limit: int
    most_events: int
    start: int
    floor: int
    dropped: int = 0
    # The greatest index that a reader may have from a snapshot, which may be ahead of what is published.
    farthest: int = 0
    initial: list[Event[Health]] = field(default_factory=list)
    # Of the store, published or not; only what concerns this topic.
    commits: list[list[Event[Health]]] = field(default_factory=list)
    # The indexes of what is published and kept.
    log: deque[int] = field(default_factory=deque)

    @property
    def newest(self) -> int:
        return self.log[-1] if self.log else self.dropped

    def append(self, index: int) -> None:
        self.log.append(index)
        while len(self.log) > self.limit or (self._events() > self.most_events and len(self.log) > 1):
            self.dropped = self.log.popleft()
            self.floor = max(self.floor, self.dropped)

    def _events(self) -> int:
        kept = set(self.log)
        return sum(len(commit) for commit in self.commits if commit[0].index in kept)

    def newer_than(self, index: int) -> int:
        return sum(kept > index for kept in self.log)

    def has_room_behind(self, index: int) -> bool:
        """Whether what comes after this commit is at most half of what is kept, by commits and by events."""
        newer = self.newer_than(index)
        return newer * 2 <= self.limit and newer * 2 * self._events() <= self.most_events * len(self.log)

    def subjects(self) -> set[Subject]:
        """All that have a delivery among what is kept, and the blank keys of their namespaces."""
        kept = set(self.log)
        found: set[Subject] = set()
        for commit in self.commits:
            if commit[0].index in kept:
                for event in commit:
                    found |= {subject_of(event), subject_of(event)._replace(key="")}
        return found

    def model(self, request: SubscribeRequest[Health], **more: Any) -> Model[Health]:
        return Model(request=request, commits=self.commits, apply=apply, initial=self.initial, **more)

    def rows(self, request: SubscribeRequest[Health], index: int) -> list[list[Event[Health]]]:
        """What a snapshot at this index has: the events that its state is from, those of one commit together."""
        model = Model(request=request, commits=self.commits, apply=fold_event, initial=self.initial)
        groups: dict[int, list[Event[Health]]] = {}
        for event in model.state(index).values():
            groups.setdefault(event.index, []).append(event)
        return [groups[i] for i in sorted(groups)]


class Store:
    """The commits of all topics; `published` is how far the publisher has been told."""

    def __init__(
        self, limit: int, most_events: int, index: int, epoch: str, *, has_marks: bool = False
    ) -> None:
        self.limits = limit, most_events
        self.has_marks = has_marks
        self.index = self.published = index
        self.epoch = epoch
        self.pending: deque[list[Event[Health]]] = deque()
        self.lines = {topic: Line(*self.limits, index, index) for topic in TOPICS}
        # {token: the index at which it was revoked}
        self.revoked: dict[str, int] = {}

    def commit(self, step: int, changes: Iterable[tuple[Topic[Health], Subject, str | None]]) -> None:
        """One more commit, `step` after the last; not published yet."""
        self.index += step
        mark = self.mark_of(self.index)
        events = [
            Event(topic, self.index, Health(s.key, value, s.namespace), mark=mark)
            for topic, s, value in changes
        ]
        self.pending.append(events)
        for topic in dict.fromkeys(event.topic for event in events):
            self.lines[topic].commits.append([event for event in events if event.topic == topic])

    def mark_of(self, index: int) -> str:
        """What the store writes with the commit of this index."""
        return f"{self.epoch}-{index}" if self.has_marks and index else ""

    def take_pending(self) -> list[Event[Health]]:
        """The next commit to publish, which counts as published."""
        events = self.pending.popleft()
        self.published = events[0].index
        for topic in dict.fromkeys(event.topic for event in events):
            self.lines[topic].append(self.published)
        return events

    def revoke(self, tokens: Iterable[str], farthest: int, *, in_next: bool = False) -> None:
        """`farthest`: what a snapshot had at most. `in_next`: in the next commit that is published, if there is one."""
        index = self.pending[0][0].index if in_next and self.pending else self.published
        self.revoked |= dict.fromkeys(tokens, max(index, farthest))

    def is_revoked(self, request: SubscribeRequest[Health]) -> bool:
        """Whether the cursor was reached before its token was revoked."""
        return request.index <= self.revoked.get(request.token, -1)

    def begins(self, request: SubscribeRequest[Health]) -> Begins:
        """D7, D20."""
        if request.index == 0:
            return "fresh"
        if self.is_revoked(request):
            return "stale"
        if request.epoch not in (None, self.epoch) or request.index < self.lines[request.topic].floor:
            return "stale"
        return "stale" if request.epoch is None and request.index > self.published else "resume"

    def replace(self, topic: Topic[Health], state: list[tuple[Subject, str]]) -> None:
        """The state of a topic is another one, without a commit; what is not published yet comes on top."""
        old = self.lines[topic]
        floor = max(self.published, old.farthest) + 1
        initial = as_events(topic, old.newest, state)
        line = Line(*self.limits, old.newest, floor, old.newest, old.farthest, initial)
        line.commits += [commit for commit in old.commits if commit[0].index > self.published]
        self.lines[topic] = line

    def restore(self, index: int, epoch: str, state: list[tuple[Subject, str]]) -> None:
        """Another timeline; `state` is that of every topic, if anything is committed there at all."""
        self.index = self.published = index
        self.epoch = epoch
        self.revoked.clear()
        self.pending.clear()
        for topic in TOPICS:
            initial = as_events(topic, index, state) if index else []
            self.lines[topic] = Line(*self.limits, index, index, 0, index, initial)

    def skip(self, count: int) -> int:
        """The next commits will never be published; returns the index to go on after."""
        for _ in range(count):
            self.published = self.pending.popleft()[0].index
        for topic, old in self.lines.items():
            floor, farthest = max(self.published, old.floor), max(self.published, old.farthest)
            line = self.lines[topic] = Line(*self.limits, self.published, floor, self.published, farthest)
            for namespace in NAMESPACES:
                at = SubscribeRequest(topic, namespace=namespace)
                everything = Model(request=at, commits=old.commits, apply=fold_event, initial=old.initial)
                line.initial += everything.state(self.published).values()
            line.commits += [commit for commit in old.commits if commit[0].index > self.published]
        return self.published


def as_events(topic: Topic[Health], index: int, state: list[tuple[Subject, str]]) -> list[Event[Health]]:
    return [Event(topic, index, Health(s.key, value, s.namespace)) for s, value in dict(state).items()]


def fold_event(state: dict[Subject, Event[Health]], event: Event[Health]) -> None:
    """Keeps the event that a value is from, in the place of the value."""
    assert isinstance(event.payload, Health)
    if event.payload.value is None:
        state.pop(event.payload.subject, None)
    else:
        state[event.payload.subject] = event


def subject_of(event: Event[Health]) -> Subject:
    assert isinstance(event.payload, Health)
    return event.payload.subject
