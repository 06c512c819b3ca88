"""A subscription is checked against the commits, and a snapshot with the index of somebody else is found."""

from dataclasses import dataclass

import trio

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Topic, open_publisher
from trio_stream.testing import Model, PromiseBroken, State, check_trace, collect


@dataclass(frozen=True, slots=True)
class Job:
    subject: str
    state: str


JOBS = Topic[Job]("jobs")
REQUEST = SubscribeRequest(JOBS)


class Queue:
    """The state, and a log of all commits to check against."""

    def __init__(self) -> None:
        self.jobs: dict[str, Event[Job]] = {}
        self.commits: list[list[Event[Job]]] = []

    def make(self, *jobs: Job) -> list[Event[Job]]:
        index = len(self.commits) + 1
        return [Event(JOBS, index, job) for job in jobs]

    def commit(self, events: list[Event[Job]]) -> None:
        self.commits.append(events)
        for event in events:
            for job in event.payloads:
                self.jobs[job.subject] = event

    async def snapshot(self, _: SubscribeRequest[Job], snapshot: SnapshotAppender[Job]) -> int:
        index, jobs = len(self.commits), list(self.jobs.values())
        for event in jobs:
            await snapshot.append([event])
        return index


def apply(state: State, event: Event[Job]) -> None:
    for job in event.payloads:
        state[job.subject] = job.state


async def check(*, is_careful: bool) -> None:
    queue = Queue()

    async def careless_snapshot(request: SubscribeRequest[Job], snapshot: SnapshotAppender[Job]) -> int:
        await queue.snapshot(request, snapshot)
        return publisher.index  # of what was published, and not of the state

    handler = queue.snapshot if is_careful else careless_snapshot
    async with open_publisher({JOBS: handler}) as publisher:
        first = queue.make(Job("build", "queued"), Job("test", "queued"))
        publisher.publish(first)  # before the commit, which only one of the two survives
        subscription = publisher.subscribe(REQUEST)
        events = await collect(subscription)
        queue.commit(first)
        second = queue.make(Job("build", "done"))
        queue.commit(second)
        publisher.publish(second)
        await collect(subscription, upto=2, into=events)

    check_trace(events, Model(request=REQUEST, commits=queue.commits, apply=apply), upto=2)


async def main() -> None:
    await check(is_careful=True)
    print("the index of the state: right")
    try:
        await check(is_careful=False)
    except PromiseBroken as broken:
        print("the index of the publisher:", broken)


trio.run(main)
