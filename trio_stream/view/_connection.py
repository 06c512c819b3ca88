"""What a view needs of a subscription, so that it may be one to another process as well."""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

from trio_stream import Event, SubscribeRequest


class Connection(Protocol):
    """The part of a `Subscription` that a view uses.

    One that cannot say at once whether the cursor of its request is right, so that its `horizon` is 0 meanwhile, has
    `wait_ready` as well, as `Subscription.wait_ready`; otherwise the view is not current before the next event.
    """

    @property
    def epoch(self) -> str:
        """The timeline that its indexes belong to."""
        ...

    @property
    def horizon(self) -> int:
        """The index up to which everything was received, 0 inside a snapshot.

        Greater than 0 before anything was received if the index of the request was accepted.
        """
        ...

    async def receive_batch(self, max_events: int | None = None) -> Sequence[Event[Any]]:
        """Waits for an event and returns all that are ready, at most `max_events`.

        Raises how the connection has ended; for what comes then, see `open_view`.
        """
        ...

    async def wait_published(self, index: int) -> None:
        """Waits until there is a commit with this index or a greater one, whether or not it is received.

        A checkpoint; raises how the connection has ended, which `receive_batch` raises too.
        """
        ...

    def resume_request(self) -> SubscribeRequest[Any]:
        """The request that goes on where this stands."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object: ...


@runtime_checkable
class Judging(Protocol):
    """A connection that may need time to find out whether it goes on where its request says."""

    async def wait_ready(self) -> None:
        """Waits until end-of-snapshot was received or the cursor of the request is known to be right.

        A checkpoint; raises how the connection has ended, which `receive_batch` raises too.
        """
        ...


Connect: TypeAlias = Callable[[SubscribeRequest[Any]], Connection]
"""Makes a connection; has the shape of `EventPublisher.subscribe`."""
