"""A service catalogue, step 1: publish what changes, and follow it."""

from dataclasses import dataclass

import trio

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Topic, open_publisher


@dataclass(frozen=True, slots=True)
class Health:
    subject: str  # the name of the service
    status: str


HEALTH = Topic[Health]("health")


async def snapshot_of_health(
    request: SubscribeRequest[Health],
    snapshot: SnapshotAppender[Health],
) -> int:
    if request.key in {"", "web"}:
        await snapshot.append([Event(HEALTH, 1, Health("web", "passing"))])
    return 1


async def main() -> None:
    async with (
        open_publisher({HEALTH: snapshot_of_health}) as publisher,
        publisher.subscribe(SubscribeRequest(HEALTH, "web")) as subscription,
    ):
        async for event in subscription:
            print(event.index, event.payload)
            if event.is_end_of_snapshot:
                publisher.publish([Event(HEALTH, 2, Health("db", "passing"))])
                publisher.publish([Event(HEALTH, 3, Health("web", "critical"))])
            if subscription.index == 3:
                break


if __name__ == "__main__":
    trio.run(main)
