"""A store that threads write to: each publishes its commits itself, in the order of their indexes."""

import threading
from dataclasses import dataclass

import trio

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Topic,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Counter:
    subject: str
    value: int


COUNTERS = Topic[Counter]("counters")


class Store:
    """Counters. The lock is held until the commit is published: none can overtake it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._index = 0
        self._counters: dict[str, tuple[int, Counter]] = {}  # {name: (index of its last change, counter)}

    def increment(self, name: str, publisher: EventPublisher) -> None:
        """For worker threads: that of the event loop must not wait for the lock."""
        with self._lock:
            self._index += 1
            _, before = self._counters.get(name, (0, Counter(name, 0)))
            counter = Counter(name, before.value + 1)
            self._counters[name] = self._index, counter
            publisher.publish_from_thread([Event(COUNTERS, self._index, counter)])

    async def snapshot(self, request: SubscribeRequest[Counter], snapshot: SnapshotAppender[Counter]) -> int:
        index, found = await trio.to_thread.run_sync(self._read, request.key)
        for changed, counter in found:
            await snapshot.append([Event(COUNTERS, changed, counter)])
        return index

    def _read(self, key: str) -> tuple[int, list[tuple[int, Counter]]]:
        with self._lock:
            return self._index, [found for name, found in self._counters.items() if key in {"", name}]


async def main() -> None:
    store = Store()
    async with open_publisher({COUNTERS: store.snapshot}) as publisher:
        async with trio.open_nursery() as nursery:
            for name in ("hits", "misses") * 50:
                nursery.start_soon(trio.to_thread.run_sync, store.increment, name, publisher)

            async with publisher.subscribe(SubscribeRequest(COUNTERS)) as subscription:
                values: dict[str, int] = {}
                async for event in subscription:
                    for one in event.events:
                        match one.payload:
                            case Counter(name, value):
                                values[name] = value
                    if subscription.index == 100:
                        break
        print(sorted(values.items()))


trio.run(main)
