"""A service catalogue, step 4: leave, and go on where you were."""

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
        """Keeps the copy current until it is cancelled; the next call goes on from there."""
        with trio.CancelScope() as self.following:
            if self.request.index == 0:
                self.services.clear()
            async with publisher.subscribe(self.request) as subscription:
                try:
                    async for event in subscription:
                        self.apply(event)
                finally:
                    self.request = subscription.resume_request()

    def apply(self, event: Event[Health]) -> None:
        if event.is_framing:
            print("got", event.index, event.payload)
        if event.is_new_snapshot_to_follow:
            self.services.clear()
        for one in event.events:
            print("got", one.index, one.payload)
            match one.payload:
                case Health(name, status):
                    self.services[name] = status


async def main() -> None:
    catalogue = Catalogue()
    mirror = Mirror(SubscribeRequest(HEALTH))
    async with (
        open_publisher({HEALTH: catalogue.snapshot}, history=2) as publisher,
        trio.open_nursery() as nursery,
    ):
        events = catalogue.commit(Health("web", "passing"), Health("db", "passing"))
        publisher.publish(events)
        nursery.start_soon(mirror.follow, publisher)
        await wait_all_tasks_blocked()
        mirror.following.cancel()
        await wait_all_tasks_blocked()

        print("away for one commit")
        publisher.publish(catalogue.commit(Health("web", "critical")))
        nursery.start_soon(mirror.follow, publisher)
        await wait_all_tasks_blocked()
        mirror.following.cancel()
        await wait_all_tasks_blocked()

        print("away for three commits, one more than the history keeps")
        for status in ("passing", "critical", "passing"):
            publisher.publish(catalogue.commit(Health("db", status)))
        nursery.start_soon(mirror.follow, publisher)
        await wait_all_tasks_blocked()

        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
