"""One view for many requests, and blocking queries with a time limit."""

from dataclasses import dataclass

import anyio
import trio
import trio.testing

from trio_stream import Event, SnapshotAppender, SubscribeRequest, Topic, open_publisher
from trio_stream.view import Frozen, ViewPool


@dataclass(frozen=True, slots=True)
class Service:
    key: str
    health: str

    @property
    def subject(self) -> str:
        return self.key

    @property
    def is_delete(self) -> bool:
        return False


SERVICES = Topic[Service]("services")
WEB = SubscribeRequest(SERVICES, "web")

Pool = ViewPool[str, Service]


async def snapshot_of_services(_: SubscribeRequest[Service], snapshot: SnapshotAppender[Service]) -> int:
    await snapshot.append([Event(SERVICES, 7, Service("web", "passing"))])
    return 7


async def share(pool: Pool) -> None:
    async with pool.view(WEB) as view:
        await view.wait_current()
        print(view)
    answer = await pool.get(WEB)
    print(answer.index, answer["web"].health, len(pool))


async def answer(
    pool: Pool, request: SubscribeRequest[Service], last: Frozen[str, Service]
) -> Frozen[str, Service]:
    with anyio.move_on_after(30):
        return await pool.get(request, last.index, epoch=last.epoch)
    return await pool.get(request)


async def main() -> None:
    async with (
        open_publisher({SERVICES: snapshot_of_services}) as publisher,
        ViewPool[str, Service](publisher.subscribe) as pool,
    ):
        await share(pool)
        last = await pool.get(WEB)
        publisher.publish([Event(SERVICES, 8, Service("web", "critical"))])
        for _ in range(2):
            last = await answer(pool, WEB, last)
            print(last.index, last["web"].health)


# A clock that does not wait: the second answer comes after the time limit, and this program ends at once.
trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
