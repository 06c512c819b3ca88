"""A service catalogue, step 2: the state first, then what changes."""

from dataclasses import dataclass

import trio

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Topic, open_publisher


@dataclass(frozen=True, slots=True)
class Health:
    subject: str  # the name of the service
    status: str


HEALTH = Topic[Health]("health")


class Catalogue:
    """The store: the newest event of each service, and the newest index."""

    def __init__(self) -> None:
        self.index = 0
        self.services: dict[str, Event[Health]] = {}

    def commit(self, *changes: Health) -> list[Event[Health]]:
        """Makes one commit, and returns the events to publish."""
        self.index += 1
        events = {one.subject: Event(HEALTH, self.index, one) for one in changes}
        self.services |= events
        return list(events.values())

    async def snapshot(
        self,
        request: SubscribeRequest[Health],
        snapshot: SnapshotAppender[Health],
    ) -> int:
        index, services = self.index, dict(self.services)  # no await in between
        for name, event in services.items():
            if request.key in {"", name}:
                await snapshot.append([event])
        return index


async def main() -> None:
    catalogue = Catalogue()
    async with open_publisher({HEALTH: catalogue.snapshot}) as publisher:
        events = catalogue.commit(Health("web", "passing"), Health("db", "passing"))
        publisher.publish(events)
        publisher.publish(catalogue.commit(Health("web", "critical")))
        async with publisher.subscribe(SubscribeRequest(HEALTH)) as subscription:
            async for event in subscription:
                for one in event.events:
                    print(one.index, one.payload)
                if event.is_end_of_snapshot:
                    print("this was the state at index", event.index)
                    both = catalogue.commit(Health("web", "passing"), Health("db", "critical"))
                    publisher.publish(both)
                if subscription.index == 3:
                    break


if __name__ == "__main__":
    trio.run(main)
