"""Whether what a subscriber had was right: at every index, against the log of the store.

A state is told from another by a digest, so that one can be kept for each commit: the sum of the hashes of its keys
with their values, which changes with each key by itself.
"""

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, assert_never

from trio_stream.stores import JSON, Commit, Delete, Put, Store


class View(NamedTuple):
    """Which keys a subscriber gets to see: one, or those that end in `suffix`."""

    key: str = ""
    suffix: str = ""

    def shows(self, key: str) -> bool:
        """Whether this key is one of them."""
        return key == self.key if self.key else key.endswith(self.suffix)


class State:
    """Keys with their values, and the digest of them."""

    def __init__(self) -> None:
        self.entries: dict[str, JSON] = {}
        self.digest = 0

    def put(self, key: str, value: JSON) -> None:
        """Sets a key."""
        self.delete(key)
        self.entries[key] = value
        self.digest += _hash(key, value)

    def delete(self, key: str) -> None:
        """Removes a key, if it is there."""
        if key in self.entries:
            self.digest -= _hash(key, self.entries.pop(key))

    def clear(self) -> None:
        """Removes all keys."""
        self.entries.clear()
        self.digest = 0


def _hash(key: str, value: JSON) -> int:
    return int.from_bytes(blake2b(json.dumps([key, value], sort_keys=True).encode(), digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class Point:
    """A state at an index."""

    index: int
    digest: int


@dataclass
class Segment:
    """What a subscriber had from a snapshot, or a resume, to a break: a state at first, and after each change."""

    view: View
    points: list[Point]


@dataclass
class Truth:
    """What all subscribers of one view should have had."""

    view: View
    state: State = field(default_factory=State)
    points: list[Point] = field(default_factory=lambda: [Point(0, 0)])

    def apply(self, commit: Commit, topic: str) -> None:
        """Takes the next commit of the log."""
        operations = [each for each in commit.operations if each.topic == topic and self.view.shows(each.key)]
        for operation in operations:
            match operation:
                case Put():
                    self.state.put(operation.key, operation.value)
                case Delete():
                    self.state.delete(operation.key)
                case _:
                    assert_never(operation)
        if operations:
            self.points.append(Point(commit.index, self.state.digest))

    def check(self, segment: Segment) -> Iterator[str]:
        """What is wrong with a segment of this view; nothing if it is right."""
        first, *received = segment.points
        start = bisect_right(self.points, first.index, key=lambda point: point.index) - 1
        if self.points[start].digest != first.digest:
            yield f"a wrong state at index {first.index}, where it began"
        end = bisect_right(self.points, segment.points[-1].index, key=lambda point: point.index)
        committed = self.points[start + 1 : end]
        if committed != received:
            yield _first_difference(committed, received)


async def replay(store: Store, topic: str, after: int, truths: Collection[Truth]) -> int:
    """Tells the truths what the log says about a topic; returns how many commits are about it.

    One without operations has deleted what was gone, and counts.
    """
    until = (await store.head()).index
    count = 0
    async with store.changes(after) as commits:
        while after < until:
            commit = await anext(commits)
            after = commit.index
            for truth in truths:
                truth.apply(commit, topic)
            count += not commit.operations or any(change.topic == topic for change in commit.operations)
    return count


def _first_difference(committed: Iterable[Point], received: Iterable[Point]) -> str:
    for true, seen in zip(committed, received, strict=False):
        if true != seen:
            if true.index == seen.index:
                return f"a wrong state at index {seen.index}"
            return f"index {seen.index} received where {true.index} was committed"
    return "changes were lost, or came twice, at its end"
