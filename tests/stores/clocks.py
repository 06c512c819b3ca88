"""A clock that a test moves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import anyio
import anyio.lowlevel
from stores.storehouse import PATIENCE

from trio_stream import EventPublisher

LONG: Final = 10.0  # seconds; less than the patience of the tests, whose clock on asyncio it is as well


@dataclass
class Clock:
    """That by which a feed grows old: how far it is ahead of the right one."""

    ahead: float = 0.0

    def jump(self) -> None:
        self.ahead += LONG


async def until(condition: Callable[[], bool]) -> None:
    """Returns when it is so, which must come."""
    with anyio.fail_after(PATIENCE):
        while not condition():
            await anyio.lowlevel.checkpoint()


def age(publisher: EventPublisher) -> float:
    """Of the publisher of a store."""
    assert publisher.feed_age is not None
    return publisher.feed_age
