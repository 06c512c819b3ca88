"""Every answer to a request with an index: go on, or start again."""

from dataclasses import dataclass, replace

import trio
from trio.testing import wait_all_tasks_blocked

from trio_stream import (
    Event,
    EventPublisher,
    SnapshotAppender,
    SubscribeRequest,
    Topic,
    WouldBlock,
    open_publisher,
)


@dataclass(frozen=True, slots=True)
class Setting:
    subject: str
    value: int


SETTINGS = Topic[Setting]("settings")


async def snapshot_of_settings(_: SubscribeRequest[Setting], snapshot: SnapshotAppender[Setting]) -> int:
    await snapshot.append([Event(SETTINGS, 9, Setting("limit", 9))])
    return 9


async def ask(publisher: EventPublisher, what: str, request: SubscribeRequest[Setting]) -> None:
    print(what)
    async with publisher.subscribe(request) as subscription:
        await wait_all_tasks_blocked()  # so that everything which comes now is there
        try:
            while True:
                event = subscription.receive_nowait()
                print("   ", event.index, event.payload)
        except WouldBlock:
            pass


async def main() -> None:
    async with open_publisher({SETTINGS: snapshot_of_settings}, history=3, epoch="blue") as publisher:
        for index in range(1, 10):
            publisher.publish([Event(SETTINGS, index, Setting("limit", index))])

        seven = SubscribeRequest(SETTINGS, "limit", index=7, epoch="blue")
        await ask(publisher, "7 of blue: the history has 7, 8 and 9", seven)
        await ask(publisher, "9 of blue: nothing has happened since", replace(seven, index=9))
        await ask(publisher, "12 of blue: ahead of this publisher", replace(seven, index=12))
        await ask(publisher, "7, of whatever epoch", replace(seven, epoch=None))
        await ask(publisher, "5 of blue: 6 is gone", replace(seven, index=5))
        await ask(publisher, "7 of green: another timeline", replace(seven, epoch="green"))
        await ask(publisher, "12, of whatever epoch", replace(seven, index=12, epoch=None))


trio.run(main)
