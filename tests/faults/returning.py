"""A reader that leaves and comes back by its cursor, again and again, and what its state was at every index."""

import json
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress

import anyio
from stores.storehouse import ALL_JOBS, PATIENCE

from trio_stream import Event, EventPublisher, SubscriptionForceClosed
from trio_stream.stores import JSON, Record

MOST = 12  # events of one visit


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


def folds(commits: Sequence[Iterable[Event[Record]]]) -> list[int]:
    """The fingerprint of the state at every index, from 0."""
    fold = Fold()
    fingerprints = [fold.fingerprint]
    for commit in commits:
        fold.apply(record for event in commit for record in event.payloads)
        fingerprints.append(fold.fingerprint)
    return fingerprints


class Returning:
    """Goes from publisher to publisher of one store."""

    def __init__(self, publishers: Sequence[EventPublisher], generator: random.Random) -> None:
        self._publishers = publishers
        self._random = generator
        self._request = ALL_JOBS
        self._fold = Fold()
        self._has_begun = False  # it has a whole state
        self.seen: list[tuple[int, int]] = []  # (index, fingerprint), in the order of their coming
        self.resumes = 0  # that went on without a snapshot
        # Set, and replaced by a new one, whenever something has been received.
        self._stir = anyio.Event()

    @property
    def index(self) -> int:
        return self.seen[-1][0] if self.seen else 0

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._visit(self._random.choice(self._publishers))

    async def _visit(self, publisher: EventPublisher) -> None:
        """For some events; one visit in ten may end inside a snapshot."""
        if not self._request.index:
            self._begin()
        left = self._random.randint(1, MOST)
        reads_whole_snapshot = self._random.random() < 0.9
        subscription = publisher.subscribe(self._request)
        with suppress(SubscriptionForceClosed):
            async with subscription:
                event = await subscription.receive()
                self.resumes += self._has_begun and not event.is_new_snapshot_to_follow
                self._take(event)
                while left or (reads_whole_snapshot and not self._has_begun):
                    self._take(await subscription.receive())
                    left = max(0, left - 1)
                self._request = subscription.resume_request()
                return
        self._request = subscription.resume_request()

    async def until(self, index: int) -> None:
        with anyio.fail_after(PATIENCE):
            while self.index < index:
                await self._stir.wait()

    def check(self, fingerprints: Sequence[int]) -> None:
        """Each state that it had is the log's at that index."""
        assert self.seen
        for index, fingerprint in self.seen:
            assert fingerprint == fingerprints[index], f"another state at {index}"

    def _begin(self) -> None:
        self._fold = Fold()
        self._has_begun = False

    def _take(self, event: Event[Record]) -> None:
        if event.is_new_snapshot_to_follow:
            self._begin()
        elif event.is_end_of_snapshot:
            self._has_begun = True
        else:
            self._fold.apply(event.payloads)
        if self._has_begun:
            assert event.index >= self.index, f"back from {self.index} to {event.index}"
            self.seen.append((event.index, self._fold.fingerprint))
        stir, self._stir = self._stir, anyio.Event()
        stir.set()
