"""A snapshot function for a store that is read row by row and may not be ready yet."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SnapshotFailed,
    SubscribeRequest,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Job:
    subject: str  # the name of the job
    state: str
    commit: int  # of its last change


JOBS = Topic[Job]("jobs")


class Database:
    """Stands for a database: read transactions see one moment, and its rows come one by one."""

    def __init__(self) -> None:
        self.is_ready = False
        self.transactions = 0
        self.index = 0
        self._jobs: dict[str, Job] = {}

    def commit(self, name: str, state: str) -> Event[Job]:
        self.index += 1
        self._jobs[name] = job = Job(name, state, self.index)
        return Event(JOBS, self.index, job)

    @asynccontextmanager
    async def read(self, key: str) -> AsyncIterator[tuple[int, AsyncIterator[Job]]]:
        self.transactions += 1
        yield (
            self.index,
            self._rows([job for job in self._jobs.values() if key in {"", job.subject}]),
        )

    async def _rows(self, jobs: list[Job]) -> AsyncIterator[Job]:
        for job in jobs:
            await trio.lowlevel.checkpoint()
            yield job


DATABASE = Database()


async def snapshot_of_jobs(request: SubscribeRequest[Job], snapshot: SnapshotAppender[Job]) -> int:
    if not DATABASE.is_ready:
        raise ConnectionError("the database has not been loaded yet")
    async with DATABASE.read(request.key) as (index, rows):
        async for row in rows:
            await snapshot.append([Event(JOBS, row.commit, row)])
    return index


async def read_all(publisher: EventPublisher) -> list[str]:
    async with publisher.subscribe(SubscribeRequest(JOBS)) as subscription:
        events = await subscription.receive_until_current()
    return [str(job) for event in events for job in event.payloads]


async def main() -> None:
    async with open_publisher({JOBS: snapshot_of_jobs}) as publisher:
        try:
            await read_all(publisher)
        except SnapshotFailed as failed:
            print("failed:", failed.__cause__)

        DATABASE.is_ready = True
        for name in ("build", "test"):
            event = DATABASE.commit(name, "queued")  # first the commit,
            publisher.publish([event])  # then its event
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(read_all, publisher)
        print(await read_all(publisher))
        print("100 readers and one more:", DATABASE.transactions, "read transaction")


trio.run(main)
