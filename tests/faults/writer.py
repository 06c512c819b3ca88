"""A process that writes to a store for ever: `python writer.py URL NAME MODE`. It is there to be killed.

Each of its tasks commits what a lost, repeated or torn commit would show at.
It says what it is about to do, `try TASK NUMBER ID`, and what it was told, `made INDEX TASK NUMBER`.
Every other commit expects the task's last one to be the newest of its key, and every third adds one to what all tasks
of all processes count together, and tries again after a conflict.
One whose mode is `patient` commits again, with the same id, what has failed in any other way.
One that is `forgetful` does so, too, but it expects and counts nothing: an older copy may have taken the store's place.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import anyio

from trio_stream.stores import ConflictError, Delete, Name, Operation, Put, Store, StoreError, open_store

TASKS: Final = 3  # of each process, that commit at the same time
KEYS: Final = 10  # of one commit
COUNTER: Final = Name("jobs", "counter", "default")
PAUSE: Final = 0.05  # seconds before a patient one commits again


def value(number: int) -> tuple[int, str]:
    """Which all keys of a commit have; of very different sizes."""
    return number, "x" * (number * 97 % 3000)


def operations(task: str, number: int) -> list[Operation]:
    """The commit with this number of a task."""
    return [
        *(Put("jobs", f"{task}-{key}", value(number)) for key in range(KEYS)),
        Delete("jobs", task),
        Put("jobs", task, number),
    ]


def say(*words: object) -> None:
    """In one piece, so that only the last line of a killed process can be torn."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def write(store: Store, task: str, mode: str) -> None:
    number = last = 0
    while True:
        number += 1
        id_ = uuid4()
        counts = mode != "forgetful" and not number % 3
        expect = {Name("jobs", task): last} if mode != "forgetful" and number % 2 else {}
        say("try", task, number, id_)
        while True:
            try:
                last = await commit(store, operations(task, number), expect, id_, counts=counts)
            except ConflictError:
                raise
            except StoreError as error:
                say("again", task, number, error)
                if not mode:
                    raise
                await anyio.sleep(PAUSE)
            else:
                break
        say("made", int(last), task, number)


async def commit(
    store: Store, what: Sequence[Operation], expect: Mapping[Name, int], id_: UUID, *, counts: bool
) -> int:
    while counts:
        entry = await store.get(COUNTER.topic, COUNTER.key)
        add = Put("jobs", "counter", count(entry.value) + 1 if entry else 1)
        try:
            read = {**expect, COUNTER: entry.index if entry else 0}
            return await store.commit([*what, add], expect=read, id=id_)
        except ConflictError as error:
            if error.name != COUNTER:
                raise
    return await store.commit(what, expect=expect, id=id_)


def count(found: object) -> int:
    assert isinstance(found, int)
    return found


async def main() -> None:
    url, name, mode = sys.argv[1:]
    async with open_store(url) as store, anyio.create_task_group() as tasks:
        for task in range(TASKS):
            tasks.start_soon(partial(write, store, f"{name}.{task}", mode))


if __name__ == "__main__":
    anyio.run(main)
