"""A publisher that runs for the time of a block."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.abc

from ._publisher import NO_HANDLERS, EventPublisher
from ._snapshot import SnapshotHandlers


@asynccontextmanager
async def open_publisher(
    handlers: SnapshotHandlers = NO_HANDLERS,
    *,
    snapshot_cache_ttl: float = 10.0,
    history: int = 4096,
    index: int = 0,
    epoch: str | None = None,
) -> AsyncIterator[EventPublisher]:
    """A running `EventPublisher`, stopped when the block ends; the options are those of the class.

    An exception of the block leaves it as it is, not in an exception group.
    """
    publisher = EventPublisher(
        handlers, snapshot_cache_ttl=snapshot_cache_ttl, history=history, index=index, epoch=epoch
    )
    # Shielded, so that a cancellation from outside reaches the block first and does not end its subscriptions before.
    running = anyio.CancelScope(shield=True)

    async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with running:
            await publisher.run(task_status=task_status)

    cancelled = anyio.get_cancelled_exc_class()
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                await tasks.start(run)
                yield publisher
            except cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - the task group would wrap it: it is raised below
                failure = error
            finally:
                running.cancel()
    except cancelled:
        if failure is None:
            raise
    if failure is not None:
        raise failure
