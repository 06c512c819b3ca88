"""A state read once: whole, and as new as what has been published, although its snapshot comes from the cache."""

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from trio_stream import Event, EventPublisher, SnapshotAppender, SubscribeRequest, Topic, open_publisher


@dataclass(frozen=True, slots=True)
class Flag:
    subject: str
    is_on: bool


FLAGS = Topic[Flag]("flags")


class Flags:
    """A dict is the store. It has no index of its own: the publisher counts its commits."""

    def __init__(self, publisher: EventPublisher) -> None:
        self.snapshots = 0
        self._publisher = publisher
        self._is_on: dict[str, bool] = {}
        publisher.register_handler(FLAGS, self.snapshot)

    def turn(self, name: str, *, is_on: bool) -> None:
        self._is_on[name] = is_on
        self._publisher.publish([Event(FLAGS, self._publisher.next_index, Flag(name, is_on))])

    async def snapshot(self, request: SubscribeRequest[Flag], snapshot: SnapshotAppender[Flag]) -> int:
        self.snapshots += 1
        index, flags = self._publisher.index, dict(self._is_on)  # no await in between
        for name, is_on in flags.items():
            if request.covers(FLAGS, name):
                await snapshot.append([Event(FLAGS, index, Flag(name, is_on))])
        return index


def apply(state: dict[str, bool], events: Sequence[Event[Flag]]) -> None:
    for event in events:
        if event.is_new_snapshot_to_follow:
            state.clear()
        for flag in event.payloads:
            state[flag.subject] = flag.is_on


async def read_once(publisher: EventPublisher) -> dict[str, bool]:
    state: dict[str, bool] = {}
    async with publisher.subscribe(SubscribeRequest(FLAGS)) as subscription:
        apply(state, await subscription.receive_until_current())
    return state


async def read_again(publisher: EventPublisher, flags: Flags) -> None:
    state: dict[str, bool] = {}
    async with publisher.subscribe(SubscribeRequest(FLAGS), on_lag="reset") as subscription:
        apply(state, await subscription.receive_until_current())
        print(state)
        flags.turn("beta", is_on=True)
        events = await subscription.receive_until_current()
        apply(state, events)
        print(len(events), "change:", state)
        print(len(await subscription.receive_until_current()), "changes")


async def main() -> None:
    async with open_publisher() as publisher:
        flags = Flags(publisher)
        flags.turn("dark-mode", is_on=True)
        print(await read_once(publisher))

        flags.turn("dark-mode", is_on=False)
        print(await read_once(publisher))
        print("2 reads,", flags.snapshots, "run of the snapshot function")

        await read_again(publisher, flags)


trio.run(main)
