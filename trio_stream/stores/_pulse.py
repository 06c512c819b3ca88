"""How old the feed of a publisher is: the time since it last knew that it had everything that the store had.

That no commit comes may mean that there is none, or that the store is lost; the changes do not tell.
So the store is asked for its newest commit now and then, beside the changes.
Once the feed has come there, it had everything that the store had at the moment of the question.
Nothing else counts.
A store that fails, or does not answer, or answers with less than was published (a replica that is behind) does not tell
what there is, and meanwhile the feed grows older.

| what the answers say                               | what follows                                                 |
|----------------------------------------------------|--------------------------------------------------------------|
| the feed is there, or comes there                  | it is as old as the question                                 |
| nothing of the kind, for `OLD` seconds             | a warning, and another one when that is over                 |
| there is one again, after there was none           | the feed does not sleep out its wait for the next attempt    |
| the feed stands still below the newest commit      | its changes have stopped without a word: it enters them anew |
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import anyio
import anyio.abc

from trio_stream import Cursor, EventPublisher
from trio_stream._warn import Warner

from ._errors import StoreError
from ._raised import error_of
from ._store import Store
from ._values import Head

OLD: Final = 10.0  # seconds

# Seconds between two questions, at most: evenly random below it, so that processes ask at different times.
# The shorter one is for when the last one was not answered, or the feed is behind.
_PAUSE: Final = 4.0
_SHORT_PAUSE: Final = 1.0
_MOST_STANDING: Final = 20  # answers in a row by which the feed stands still

_warner: Final = Warner("trio_stream.stores")  # of its own: other warnings do not take the place of these two


class _Answer(NamedTuple):
    since: float
    """When the store was asked, by `time.monotonic`: any thread may want to know the age."""
    place: Cursor
    """Its newest commit."""


class Pulse:
    """Of one feed."""

    def __init__(self, store: Store, since: float) -> None:
        """`since`: when the store was asked for the commit at which the publisher begins."""
        self._store = store
        self._publisher: EventPublisher
        # When the newest question was asked of whose answer it is known that the feed has come there.
        self._known = since
        # The oldest answer to which the feed had not come.
        self._ahead: _Answer | None = None
        self._is_asking = False
        # Set when the next question must not wait; another one each time.
        self._is_urgent = anyio.Event()
        # What the last question has ended in, if it has failed; and what is set when a later one has not.
        self._error: StoreError | None = None
        self._answered = anyio.Event()
        # `_known`, if a warning has said that the feed is old.
        self._old_since: float | None = None
        # Around the changes while they are followed.
        self._scope: anyio.CancelScope | None = None
        # Whether the feed is at work on a commit, however long that takes. Written by the feed.
        self.is_busy = False
        # Whether the store was seen to have less than before: then it is one of several places, and may be again.
        self.is_behind_at_times = False
        # Where the feed stood at the last answer, how many in a row have found it there, and how many are too many.
        self._stand: Cursor | None = None
        self._standing = 0
        self._most = _MOST_STANDING

    def begin(self, publisher: EventPublisher) -> None:
        """Tells which publisher is fed, before anything else."""
        self._publisher = publisher

    @property
    def age(self) -> float:
        """Seconds. Any thread may ask."""
        ahead = self._ahead
        known = ahead.since if ahead is not None and self._has(ahead.place) else self._known
        return max(0.0, time.monotonic() - known)

    async def head(self) -> Head:
        """Asks the store."""
        published, since = self._publisher.cursor, time.monotonic()
        head = await self._store.head()
        if head.epoch == published.epoch and head.index < published.index:
            self.is_behind_at_times = True
        else:
            self._take(_Answer(since, head.cursor))
        return head

    async def run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Asks until it is cancelled."""
        task_status.started()
        async with anyio.create_task_group() as tasks:
            while True:
                if not self._is_asking:  # a store that does not answer is not asked again
                    self._is_asking = True
                    tasks.start_soon(self._ask)
                pause = _PAUSE if self._error is None and self._ahead is None else _SHORT_PAUSE
                with anyio.move_on_after(pause * random.random()):  # noqa: S311 - no secret
                    await self._is_urgent.wait()
                self._is_urgent = anyio.Event()
                self._warn()

    async def sleep(self, seconds: float) -> None:
        """So long, or until the store answers that did not; the feed has failed."""
        self._is_urgent.set()
        with anyio.move_on_after(seconds):
            await self._answered.wait()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The changes are followed inside; `StoreError` if they have stopped."""
        self.is_busy = False
        self._scope = scope = anyio.CancelScope()
        try:
            with scope:
                yield
        finally:
            self._scope = None
        if scope.cancelled_caught:
            raise StoreError(f"the changes of the store have stopped after commit {self._publisher.index}")

    async def _ask(self) -> None:  # noqa: ASYNC910 - a task, not awaited
        try:
            await self.head()
        except (StoreError, BaseExceptionGroup) as raised:
            self._error = error_of(raised)
        else:
            if self._error is not None:
                self._error = None
                self._answered.set()
                self._answered = anyio.Event()
        finally:
            self._is_asking = False

    def _take(self, answer: _Answer) -> None:
        ahead, place = self._ahead, answer.place
        if ahead is not None and self._has(ahead.place):
            self._known, ahead = ahead.since, None
        if self._has(place):
            self._known, ahead = answer.since, None
        elif ahead is None or ahead.place.epoch != place.epoch or ahead.place.index > place.index:
            ahead = answer
        self._ahead = ahead
        self._look_whether_it_stands(is_behind=ahead is not None)

    def _look_whether_it_stands(self, *, is_behind: bool) -> None:
        stand = self._publisher.cursor
        if stand != self._stand or not is_behind:
            self._most = _MOST_STANDING
            self._standing = 0
        elif self._scope is not None and not self.is_busy:
            self._standing += 1
        self._stand = stand
        if self._scope is not None and self._standing >= self._most:
            self._most *= 2  # it may just be slow
            self._standing = 0
            self._scope.cancel()

    def _has(self, place: Cursor) -> bool:
        """Whether the feed has come there."""
        published = self._publisher.cursor
        if published.epoch != place.epoch or published.index < place.index:
            return False
        return published.index > place.index or "" in (published.mark, place.mark) or published == place

    def _warn(self) -> None:
        age = self.age
        if age >= OLD:
            if self._old_since is None:
                self._old_since = time.monotonic() - age
                _warner.warn(
                    "the feed is %.0f s old: %s",
                    age,
                    self._error
                    or f"the store has not said that commit {self._publisher.index} is its newest",
                )
        elif self._old_since is not None:
            was_old = time.monotonic() - age - self._old_since
            self._old_since = None
            _warner.warn("the feed has everything again, for the first time in %.0f s", was_old)
