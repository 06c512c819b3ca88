"""A call is cancelled at each of its checkpoints, in orders of tasks that a seed decides, and a leak is found."""

import anyio
import anyio.lowlevel

from trio_stream.testing import cancel_at_every_checkpoint, seeded_schedule


class Pool:
    """Hands out a few connections."""

    def __init__(self, *, is_careful: bool) -> None:
        self.free = ["one", "two"]
        self._is_careful = is_careful

    async def use(self) -> None:
        connection = self.free.pop()
        if self._is_careful:
            try:
                await self._greet()
            finally:
                self.free.append(connection)
        else:
            await self._greet()
            self.free.append(connection)

    async def _greet(self) -> None:
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()


async def sweep(pool: Pool) -> None:
    checkpoints = await cancel_at_every_checkpoint(pool.use)
    print("   ", checkpoints, "checkpoints;", len(pool.free), "connections are left")


async def race() -> str:
    """Who is first depends on the order of the tasks."""
    order = ""

    async def runner(name: str) -> None:
        nonlocal order
        await anyio.lowlevel.checkpoint()
        order += name

    async with anyio.create_task_group() as tasks:
        for name in "abc":
            tasks.start_soon(runner, name)
    return order


for is_careful in (True, False):
    print("careful" if is_careful else "careless")
    try:
        anyio.run(sweep, Pool(is_careful=is_careful), backend="trio")
    except IndexError:
        print("    no connection is left")

orders = [seeded_schedule(seed).run(race, backend="asyncio") for seed in range(30)]
print(len(set(orders)), "orders of 3 tasks; the seed gives the same again:", end=" ")
print(orders == [seeded_schedule(n).run(race, backend="asyncio") for n in range(30)])
