"""A process of the demonstration that changes the catalogue."""

import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final, Self

import anyio

from trio_stream.stores import JSON, Delete, Operation, Put

from ._opening import patient_opening_of
from ._run import open_tasks

_PAUSE: Final = 0.004  # seconds between two commits, on the average


@dataclass(frozen=True)
class Task:
    """What a writer is told."""

    topic: str
    key: str
    """Changed more often than others, and never deleted: somebody follows it."""
    deadline: float
    """Of `time.time()`, which all processes share."""
    seed: int

    @classmethod
    def from_argument(cls, text: str) -> Self:
        """What `to_argument` made."""
        return cls(**json.loads(text))

    def to_argument(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


class Changes:
    """Makes up what happens to the services of a catalogue."""

    def __init__(self, task: Task, entries: dict[str, JSON]) -> None:
        self._task = task
        self._entries = entries
        self._keys = list(entries)
        self._random = random.Random(task.seed)  # noqa: S311 - no secret

    def next(self) -> list[Operation]:
        """The next commit: a service changes, is taken away or comes back, or several do at once."""
        kind = self._random.random()
        if kind < 0.1:
            return [self._put(self._task.key)]
        count = 1 if kind < 0.8 else self._random.randint(2, 5)
        return [self._change(key) for key in self._random.sample(self._keys, min(count, len(self._keys)))]

    def pause(self) -> float:
        """Seconds until the next one."""
        return self._random.expovariate(1 / _PAUSE)

    def _change(self, key: str) -> Operation:
        if key != self._task.key and self._random.random() < 0.1:
            return Delete(self._task.topic, key)
        return self._put(key)

    def _put(self, key: str) -> Put:
        service = self._entries[key]
        assert isinstance(service, dict)
        status = self._random.choice(["passing", "warning", "critical"])
        return Put(self._task.topic, key, {**service, "status": status, "at": time.time()})


async def write(url: str, task: Task) -> int:
    """Commits changes until the deadline, or until standard input ends: then the process that started this is gone.

    Returns how many commits were acknowledged.
    """
    commits = 0
    async with patient_opening_of(url) as store:
        async with store.list(task.topic) as entries:
            changes = Changes(task, {key: entry.value async for key, entry in entries})
        async with open_tasks() as tasks:
            tasks.start_soon(_end_with_parent, tasks.cancel_scope)
            while time.time() < task.deadline:
                await store.commit(changes.next())
                commits += 1
                await anyio.sleep(changes.pause())
    return commits


async def _end_with_parent(scope: anyio.CancelScope) -> None:
    if sys.platform == "win32":  # which cannot wait for a pipe; the deadline holds there, too
        await anyio.sleep_forever()
    await anyio.wait_readable(0)  # nothing is ever written: it is the end
    scope.cancel()
