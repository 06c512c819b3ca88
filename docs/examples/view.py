"""The current state as a mapping: read, awaited, frozen, and told change by change."""

from dataclasses import dataclass

import trio

from trio_stream import Event, EventPublisher, SnapshotAppender, SubscribeRequest, Topic, open_publisher
from trio_stream.view import Status, View, open_view


@dataclass(frozen=True, slots=True)
class Service:
    key: str
    health: str | None  # None: it is gone

    @property
    def subject(self) -> str:
        return self.key

    @property
    def is_delete(self) -> bool:
        return self.health is None


SERVICES = Topic[Service]("services")


class Registry:
    """The store: commits, and then publishes."""

    def __init__(self) -> None:
        self.index = 1
        self.services = {"web": Service("web", "passing"), "db": Service("db", "passing")}

    def commit(self, publisher: EventPublisher, service: Service) -> int:
        self.index += 1
        self.services[service.key] = service
        publisher.publish([Event(SERVICES, self.index, service)])
        return self.index

    async def snapshot(self, _: SubscribeRequest[Service], snapshot: SnapshotAppender[Service]) -> int:
        index = self.index
        for service in list(self.services.values()):
            await snapshot.append([Event(SERVICES, index, service)])
        return index


def show(view: View[str, Service]) -> None:
    print(view.index, {key: view[key].health for key in sorted(view)})


async def main() -> None:
    registry = Registry()
    view: View[str, Service]
    async with (
        open_publisher({SERVICES: registry.snapshot}) as publisher,
        open_view(publisher.subscribe, SubscribeRequest(SERVICES)) as view,
    ):
        await view.wait_current()
        show(view)

        before = view.frozen()
        index = registry.commit(publisher, Service("web", "critical"))
        await view.wait_index(index)  # read your own write
        show(view)
        print("frozen at", before.index, before["web"].health)

        async with view.changes() as changes:
            registry.commit(publisher, Service("db", "warning"))
            registry.commit(publisher, Service("db", None))
            registry.commit(publisher, Service("api", "passing"))
            await view.wait_for(lambda state: "api" in state)
            for _ in range(2):
                change = await anext(changes)
                print(change.key, change.old and change.old.health, "->", change.new and change.new.health)
        assert view.status.status is Status.CURRENT
        show(view)


trio.run(main)
