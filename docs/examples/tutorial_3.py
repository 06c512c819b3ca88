"""A service catalogue, step 3: many readers, and the end of one."""

from dataclasses import dataclass

import trio
from trio.testing import wait_all_tasks_blocked

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


class Mirror:
    """A reader's copy of the services that it asks for."""

    def __init__(self, request: SubscribeRequest[Health]) -> None:
        self.request = request
        self.services: dict[str, str] = {}
        self.following = trio.CancelScope()

    async def follow(self, publisher: EventPublisher) -> None:
        """Keeps the copy current until it is cancelled."""
        with trio.CancelScope() as self.following:
            async with publisher.subscribe(self.request) as subscription:
                async for event in subscription:
                    self.apply(event)

    def apply(self, event: Event[Health]) -> None:
        for one in event.events:
            match one.payload:
                case Health(name, status):
                    self.services[name] = status


async def main() -> None:
    catalogue = Catalogue()
    everything, web = (
        Mirror(SubscribeRequest(HEALTH)),
        Mirror(SubscribeRequest(HEALTH, "web")),
    )
    async with (
        open_publisher({HEALTH: catalogue.snapshot}) as publisher,
        trio.open_nursery() as nursery,
    ):
        events = catalogue.commit(Health("web", "passing"), Health("db", "passing"))
        publisher.publish(events)
        nursery.start_soon(everything.follow, publisher)
        nursery.start_soon(web.follow, publisher)
        await wait_all_tasks_blocked()  # until the readers have had their turn
        print(everything.services, web.services)

        publisher.publish(catalogue.commit(Health("web", "critical")))
        await wait_all_tasks_blocked()
        print(everything.services, web.services)

        web.following.cancel()
        publisher.publish(catalogue.commit(Health("web", "passing")))
        await wait_all_tasks_blocked()
        print(everything.services, web.services)

        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
