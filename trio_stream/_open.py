"""What runs for the time of a block, above all a publisher."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import anyio
import anyio.abc
import anyio.lowlevel

from ._handlers import SnapshotHandlers
from ._publisher import NO_HANDLERS, EventPublisher


class Runnable(Protocol):
    """An async function that runs until it is cancelled and tells when it has started."""

    def __call__(self, *, task_status: anyio.abc.TaskStatus[None]) -> Awaitable[object]: ...


@asynccontextmanager
async def running(run: Runnable) -> AsyncIterator[None]:
    """Runs `run` beside the block: starts it, enters the block, and cancels it when the block is left.

    A cancellation from outside reaches the block first: what the block uses goes on until it has ended.
    An exception of the block leaves it as it is, not in an exception group; one of `run` cancels the block and
    comes in a group, with that of the block if both raise.
    """
    scope = anyio.CancelScope()

    async def scoped(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with scope:
            await run(task_status=task_status)

    cancelled = anyio.get_cancelled_exc_class()
    failure: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                await tasks.start(scoped)
                scope.shield = True
                # What was cancelled before that has reached `run`: then the block must not be entered.
                await anyio.lowlevel.checkpoint_if_cancelled()
                yield
            except cancelled:
                raise
            except BaseException as error:  # noqa: BLE001 - the task group would wrap it: it is raised below
                failure = error
            finally:
                scope.cancel()
    except cancelled:
        if failure is None:
            raise
    except BaseExceptionGroup as group:
        if failure is None:
            raise
        raise BaseExceptionGroup(group.message, [failure, *group.exceptions]) from None
    if failure is not None:
        raise failure


@asynccontextmanager
async def open_publisher(
    handlers: SnapshotHandlers = NO_HANDLERS,
    *,
    snapshot_cache_ttl: float = 10.0,
    history: int = 4096,
    history_events: int | None = None,
    index: int = 0,
    epoch: str | None = None,
    mark: str = "",
    token_digest: Callable[[str], str] | None = None,
) -> AsyncIterator[EventPublisher]:
    """A running `EventPublisher`, stopped when the block ends; the options are those of the class.

    An exception of the block leaves it as it is, not in an exception group.
    """
    publisher = EventPublisher(
        handlers,
        snapshot_cache_ttl=snapshot_cache_ttl,
        history=history,
        history_events=history_events,
        index=index,
        epoch=epoch,
        mark=mark,
        token_digest=token_digest,
    )
    async with running(publisher.run):
        yield publisher
