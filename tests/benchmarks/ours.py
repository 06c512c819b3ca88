"""The library under test, in the least that a benchmark needs: one topic, one kind of payload."""

from dataclasses import dataclass

from typing_extensions import override

from trio_stream import (
    Event,
    EventPublisher,
    Payload,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    Topic,
)


@dataclass(frozen=True, slots=True)
class Value(Payload):
    """A key and its value."""

    key: str
    value: int = 0

    @property
    @override
    def subject(self) -> str:
        return self.key

    @override
    def has_read_permission(self, authorizer: int, /) -> bool:
        """An authorizer of 2 may read every other value."""
        return self.value % authorizer == 0

    @property
    def is_delete(self) -> bool:
        return False


VALUES = Topic[Value]("values")
KEY = "hot"
START = 1  # the index of every publisher here, so that one can resume from it and needs no snapshot


async def no_state(_: SubscribeRequest[Value], __: SnapshotAppender[Value]) -> int:
    """A snapshot of nothing."""
    return START


def commit(index: int, key: str = KEY) -> list[Event[Value]]:
    """One event."""
    return [Event(VALUES, index, Value(key, index))]


def live(
    publisher: EventPublisher, key: str = KEY, token: str = "", authorizer: int | None = None
) -> Subscription[Value]:
    """A subscription that has had everything so far and gets only what comes."""
    request = SubscribeRequest(VALUES, key, token=token, index=publisher.index)
    return publisher.subscribe(request, authorizer=authorizer)
