"""What can go wrong, each kind with a type of its own.

Closed means that *you* closed it, broken that somebody else did.
Where trio and anyio both have a class, ours is both, so that `except trio.X` and `except anyio.X` work alike.
"""

import enum
from typing import Any, Final, Self

import anyio
import trio
from typing_extensions import override

FATAL: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""These end the program, wherever they are raised."""


class ClosedResourceError(trio.ClosedResourceError, anyio.ClosedResourceError):
    """You closed it: the subscription was unsubscribed, or the publisher has been stopped.

    It stays closed.
    Subscribe again, on a running publisher.
    """


class WouldBlock(trio.WouldBlock, anyio.WouldBlock):
    """Nothing is ready for this subscription now; nothing was consumed."""


class BusyResourceError(trio.BusyResourceError, anyio.BusyResourceError):
    """Another task is receiving from this subscription.

    A subscription is one cursor and has one reader; the other reader is not disturbed.
    Let every task subscribe for itself: the buffers are shared.
    """

    def __init__(self, action: str) -> None:
        super().__init__(action)
        self._action = action  # of which anyio makes the message

    @override
    def __reduce__(self) -> tuple[type[Self], tuple[str], dict[str, Any]]:
        return type(self), (self._action,), self.__dict__


class CloseReason(enum.Enum):
    """Who ended a subscription, and why."""

    TOKEN = "token"
    """The rights behind its token changed. What was received may no longer be seen: drop it."""
    REFRESH = "refresh"
    """The state was replaced behind the publisher's back. What was received may be wrong: drop it."""
    LAGGED = "lagged"
    """The reader was so slow that the history has passed it. What was received is right, but old."""
    SNAPSHOT_FAILED = "snapshot-failed"
    """The snapshot could not be made. What was received of it is not a whole state: drop it."""
    STOPPED = "stopped"
    """The publisher has stopped. What was received is right, as of `SubscriptionForceClosed.index`."""


class SubscriptionForceClosed(trio.BrokenResourceError, anyio.BrokenResourceError):
    """The publisher ended this subscription; every later call on it raises the same.

    No event is delivered after it.
    `STOPPED` comes after everything that was published before; all other reasons overtake what is queued.
    `Subscription.resume_request` gives the request to go on with.
    """

    reason: CloseReason
    """Why it was closed."""
    index: int
    """The index that the subscription had reached; 0 inside a snapshot."""
    epoch: str
    """The timeline that `index` belongs to."""

    def __init__(self, reason: CloseReason, index: int, epoch: str) -> None:
        super().__init__(reason, index, epoch)
        self.reason = reason
        self.index = index
        self.epoch = epoch

    @override
    def __str__(self) -> str:
        return (
            f"subscription closed by the publisher ({self.reason.value}) at index {self.index} "
            f"of epoch {self.epoch!r}: subscribe again with resume_request()"
        )


class SubscriptionLagged(SubscriptionForceClosed):
    """The reader fell so far behind that events it had not received left the history.

    What was received is a right state as of `index`.
    A resume from there brings a new snapshot; `on_lag="reset"` does the same without an error.
    If a replay of what was missed has failed, `__cause__` is what it raised.
    """

    missed: int
    """How many deliveries left the buffer that it was reading before it could return them.

    Late events that it would have passed over are counted too; inside a snapshot, what was left of that.
    """

    def __init__(self, index: int, epoch: str, missed: int) -> None:
        super().__init__(CloseReason.LAGGED, index, epoch)
        self.missed = missed

    @override
    def __reduce__(self) -> tuple[type[Self], tuple[int, str, int], dict[str, Any]]:
        return type(self), (self.index, self.epoch, self.missed), self.__dict__

    @override
    def __str__(self) -> str:
        return f"{super().__str__()}; {self.missed} deliveries missed"


class SnapshotFailed(SubscriptionForceClosed):
    """The snapshot function failed; `__cause__` is what it raised.

    No end-of-snapshot was or will be delivered: what was received is not a whole state.
    The failure is not cached: the next request runs the snapshot function again.
    A copy has the same `__cause__`, a pickle has none, as is so with all exceptions.
    """

    def __init__(self, index: int, epoch: str) -> None:
        super().__init__(CloseReason.SNAPSHOT_FAILED, index, epoch)

    @override
    def __reduce__(self) -> tuple[type[Self], tuple[int, str], dict[str, Any]]:
        return type(self), (self.index, self.epoch), self.__dict__

    def __copy__(self) -> Self:
        made, arguments, state = self.__reduce__()
        copied = made(*arguments)
        copied.__setstate__(state)
        copied.__cause__ = self.__cause__
        return copied

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self.__copy__()


class EndOfSubject(trio.EndOfChannel, anyio.EndOfStream):
    """The subject is finished: everything that there is of it was received, and nothing will ever come after.

    This is no failure: the publisher, or the snapshot function, has said so.
    Every later call raises the same; `async for` just stops.
    A resume from `index` ends at once, too; if the subject is reopened it goes on.
    """

    index: int
    """The index that the subscription had reached."""
    epoch: str
    """The timeline that `index` belongs to."""

    def __init__(self, index: int, epoch: str) -> None:
        super().__init__(index, epoch)
        self.index = index
        self.epoch = epoch

    @override
    def __str__(self) -> str:
        return f"the subject is finished; the last index was {self.index} of epoch {self.epoch!r}"


class StaleCursorError(LookupError):
    """Raised by a replay function: the cursor does not lie on the log, or what comes after it is no longer there.

    The publisher catches it: who resumes gets new-snapshot-to-follow, and who was live what `on_lag` says.
    """


class UnknownTopicError(LookupError):
    """No snapshot handler is registered for this topic; nothing was changed."""


class InvalidCommitError(ValueError):
    """What was published, or appended to a snapshot or a replay, is not one commit that can come here.

    The message says why; nothing was changed.
    """


class PublisherDisabledError(RuntimeError):
    """A `NoOpEventPublisher` has no events; use a real publisher to subscribe."""
