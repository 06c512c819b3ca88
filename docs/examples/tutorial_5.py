"""A service catalogue, step 5: what a token may read, and its end."""

from dataclasses import dataclass

import trio
from trio.testing import wait_all_tasks_blocked

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    SubscriptionForceClosed,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Health:
    subject: str  # the name of the service
    status: str

    def has_read_permission(self, may_read: frozenset[str], /) -> bool:
        return self.subject in may_read


HEALTH = Topic[Health]("health")

Grants = dict[str, frozenset[str]]  # {token: the services that it may read}


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
    """A reader's copy of the services that it asks for and may see."""

    def __init__(self, request: SubscribeRequest[Health]) -> None:
        self.request = request
        self.services: dict[str, str] = {}

    async def follow(self, publisher: EventPublisher, grants: Grants) -> None:
        """Keeps the copy current until the publisher stops or the token is no longer known."""
        while self.request.token in grants:
            if self.request.index == 0:
                self.services.clear()
            may_read = grants[self.request.token]
            async with publisher.subscribe(self.request, authorizer=may_read) as subscription:
                try:
                    async for event in subscription:
                        self.apply(event)
                except SubscriptionForceClosed as closed:
                    print("closed:", closed.reason)
                    if closed.reason is CloseReason.STOPPED:
                        return
                finally:
                    self.request = subscription.resume_request()
        self.services.clear()

    def apply(self, event: Event[Health]) -> None:
        if event.is_new_snapshot_to_follow:
            self.services.clear()
        for one in event.events:
            match one.payload:
                case Health(name, status):
                    self.services[name] = status


async def main() -> None:
    catalogue = Catalogue()
    grants = {"anna": frozenset({"web", "db"})}
    mirror = Mirror(SubscribeRequest(HEALTH, token="anna"))
    async with (
        open_publisher({HEALTH: catalogue.snapshot}) as publisher,
        trio.open_nursery() as nursery,
    ):
        events = catalogue.commit(Health("web", "passing"), Health("db", "passing"))
        publisher.publish(events)
        nursery.start_soon(mirror.follow, publisher, grants)
        await wait_all_tasks_blocked()
        print(mirror.services)

        grants["anna"] = frozenset({"web"})
        publisher.close_subscriptions(["anna"])
        events = catalogue.commit(Health("web", "critical"), Health("db", "critical"))
        publisher.publish(events)
        await wait_all_tasks_blocked()
        print(mirror.services)

        del grants["anna"]
        publisher.close_subscriptions(["anna"])
        await wait_all_tasks_blocked()
        print(mirror.services)


if __name__ == "__main__":
    trio.run(main)
