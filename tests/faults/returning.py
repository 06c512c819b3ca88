"""A reader that leaves and comes back by its cursor, again and again, and what its state was at every index."""

import json
import random
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio
from faults.following import published
from stores.storehouse import ALL_JOBS, PATIENCE

from trio_stream import Event, EventPublisher, SubscriptionForceClosed
from trio_stream.stores import JSON, Commit, Record

MOST: Final = 12  # events of one visit
PAUSE: Final = 0.01  # seconds before a client comes back that was closed


@dataclass(frozen=True, slots=True)
class At:
    """A commit of one copy of the store; another copy has another mark at that index."""

    index: int
    mark: str


class Fold:
    """The state, and a fingerprint of it: two states with the same one are the same."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}  # of each key with its value
        self.fingerprint = 0  # all marks together

    def apply(self, records: Iterable[Record]) -> None:
        for record in records:
            self.fingerprint ^= self._marks.pop(record.key, 0)
            if not record.is_delete:
                self._marks[record.key] = mark = _mark(record.key, record.value)
                self.fingerprint ^= mark


def _mark(key: str, value: JSON) -> int:
    return hash((key, json.dumps(value, sort_keys=True)))


def folds(commits: Iterable[Commit]) -> dict[At, int]:
    """The fingerprint of the state behind every commit, and before the first."""
    fold = Fold()
    fingerprints = {At(0, ""): fold.fingerprint}
    for commit in commits:
        fold.apply(event.payload for event in published(commit) if isinstance(event.payload, Record))
        fingerprints[At(commit.index, commit.mark)] = fold.fingerprint
    return fingerprints


class Returning:
    """Goes from publisher to publisher of one store."""

    def __init__(self, publishers: Sequence[EventPublisher], generator: random.Random) -> None:
        self.publishers = publishers
        self._random = generator
        self._request = ALL_JOBS
        self._fold = Fold()
        self._has_begun = False  # it has a whole state
        # Where it was, in the order of its coming, with the fingerprint of its state there.
        self.seen: list[tuple[At, int]] = []
        self.resumes = 0  # that went on without a snapshot
        self.snapshots = 0
        # Set, and replaced by a new one, whenever something has been received.
        self._stir = anyio.Event()

    @property
    def place(self) -> At:
        return self.seen[-1][0] if self.seen else At(0, "")

    async def run(self) -> None:
        """Until it is cancelled; then it can go on from there."""
        while True:
            await self._visit(self._random.choice(self.publishers))

    async def _visit(self, publisher: EventPublisher) -> None:
        """For some events; one visit in ten may end inside a snapshot."""
        if not self._request.index:
            self._begin()
        left = self._random.randint(1, MOST)
        reads_whole_snapshot = self._random.random() < 0.9
        subscription = publisher.subscribe(self._request)
        try:
            async with subscription:
                event = await subscription.receive()
                self.resumes += self._has_begun and not event.is_new_snapshot_to_follow
                self._take(event)
                while left or (reads_whole_snapshot and not self._has_begun):
                    self._take(await subscription.receive())
                    left = max(0, left - 1)
        except SubscriptionForceClosed:
            await anyio.sleep(PAUSE)  # as a client does
        finally:
            self._request = subscription.resume_request()

    async def until(self, place: At) -> None:
        with anyio.fail_after(PATIENCE):
            while self.place != place:
                await self._stir.wait()

    def check(self, fingerprints: Mapping[At, int], *, can_go_back: bool = False) -> None:
        """Each state that it had is that of a store's log at that place; back it goes only with the store."""
        assert self.seen
        for place, fingerprint in self.seen:
            assert place in fingerprints, f"no log has {place}"
            assert fingerprint == fingerprints[place], f"another state at {place}"
        if not can_go_back:
            indexes = [place.index for place, _ in self.seen]
            assert indexes == sorted(indexes)

    def _begin(self) -> None:
        self._fold = Fold()
        self._has_begun = False

    def _take(self, event: Event[Record]) -> None:
        if event.is_new_snapshot_to_follow:
            self.snapshots += 1
            self._begin()
        elif event.is_end_of_snapshot:
            self._has_begun = True
        else:
            self._fold.apply(event.payloads)
        if self._has_begun:
            self.seen.append((At(event.index, event.mark), self._fold.fingerprint))
        stir, self._stir = self._stir, anyio.Event()
        stir.set()


@asynccontextmanager
async def returning(
    publishers: Sequence[EventPublisher], generator: random.Random
) -> AsyncIterator[list[Returning]]:
    """Readers that come back: one always to the same publisher, two to any."""
    readers = [
        Returning(which, random.Random(generator.random()))
        for which in (publishers[:1], publishers, publishers)
    ]
    async with going(readers):
        yield readers


@asynccontextmanager
async def going(readers: Sequence[Returning]) -> AsyncIterator[None]:
    """They go to and fro beside the block."""
    async with anyio.create_task_group() as tasks:
        for reader in readers:
            tasks.start_soon(reader.run)
        yield
        tasks.cancel_scope.cancel()
