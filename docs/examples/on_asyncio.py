"""The same library on asyncio: its own task group, its own cancel."""

import asyncio
from dataclasses import dataclass

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Health:
    subject: str
    status: str


HEALTH = Topic[Health]("health")


async def snapshot_of_health(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    await snapshot.append([Event(HEALTH, 1, Health("web", "passing"))])
    return 1


async def follow(publisher: EventPublisher, seen: asyncio.Event) -> None:
    async with publisher.subscribe(SubscribeRequest(HEALTH)) as subscription:
        async for event in subscription:
            print(event.index, event.payload)
            if subscription.index == 2:
                seen.set()


async def main() -> None:
    async with (
        open_publisher({HEALTH: snapshot_of_health}) as publisher,
        asyncio.TaskGroup() as tasks,
    ):
        seen = asyncio.Event()
        following = tasks.create_task(follow(publisher, seen))
        publisher.publish([Event(HEALTH, 2, Health("web", "critical"))])
        async with asyncio.timeout(5):
            await seen.wait()
        following.cancel()


asyncio.run(main())
