"""One subscription to several things: two topics, the keys that begin alike, every namespace."""

from dataclasses import dataclass

import trio

from trio_stream import (
    ALL,
    Event,
    EventPublisher,
    SnapshotAppender,
    Source,
    Subject,
    SubscribeRequest,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Entry:
    subject: Subject
    value: str


FLAGS = Topic[Entry]("flags")
LIMITS = Topic[Entry]("limits")
Row = tuple[Topic[Entry], Subject]


class Settings:
    """A dict is the store, for both topics. It has no index of its own: the publisher counts its commits."""

    def __init__(self, publisher: EventPublisher) -> None:
        self._publisher = publisher
        self._entries: dict[Row, Event[Entry]] = {}
        for topic in (FLAGS, LIMITS):
            publisher.register_handler(topic, Source(self.snapshot, wide=True))

    def commit(self, *changes: tuple[Topic[Entry], str, str, str]) -> None:
        """One commit of changes: topic, namespace, key and value of each."""
        index = self._publisher.next_index
        commit = [
            Event(topic, index, Entry(Subject(key, name), value)) for topic, name, key, value in changes
        ]
        self._entries |= {(event.topic, event.payloads[0].subject): event for event in commit}
        self._publisher.publish(commit)

    async def snapshot(self, request: SubscribeRequest[Entry], snapshot: SnapshotAppender[Entry]) -> int:
        index, entries = self._publisher.index, dict(self._entries)  # no await in between
        for (topic, subject), event in entries.items():
            if request.covers(topic, subject):
                await snapshot.append([event])
        return index


def lines(event: Event[Entry]) -> list[str]:
    return [f"{each.topic} {each.payloads[0].subject} = {each.payloads[0].value}" for each in event.events]


async def read(publisher: EventPublisher, what: str, request: SubscribeRequest[Entry]) -> None:
    async with publisher.subscribe(request) as subscription:
        events = await subscription.receive_until_current()
    print(
        f"{what}, as of {events[-1].index}:",
        *sorted(line for event in events for line in lines(event)),
        sep="\n    ",
    )


async def main() -> None:
    async with open_publisher() as publisher:
        settings = Settings(publisher)
        settings.commit((FLAGS, "shop", "dark", "on"), (LIMITS, "shop", "cart", "20"))
        settings.commit((FLAGS, "shop", "darker", "off"), (FLAGS, "blog", "dark", "off"))

        both = SubscribeRequest(FLAGS, namespace="shop") | SubscribeRequest(LIMITS, namespace="shop")
        await read(publisher, "the shop", both)
        prefix = SubscribeRequest(FLAGS, "dark", namespace="shop", prefix=True)
        await read(publisher, "what begins with 'dark' in the shop", prefix)
        await read(publisher, "'dark' everywhere", SubscribeRequest(FLAGS, "dark", namespace=ALL))

        async with publisher.subscribe(both) as subscription:
            await subscription.receive_until_current()
            settings.commit(
                (LIMITS, "shop", "cart", "10"), (FLAGS, "blog", "dark", "on"), (FLAGS, "shop", "dark", "off")
            )
            change = await subscription.receive()
            print(f"one event of commit {change.index}:", *lines(change), sep="\n    ")

        print("a request has no interest twice:", (both | prefix) == both)


trio.run(main)
