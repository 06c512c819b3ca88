"""What type checkers make of a user's program; checked by mypy and pyright, never run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

import anyio
import trio

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    Event,
    EventPublisher,
    Payload,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    SnapshotFunc,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    Topic,
    close_subscription_event,
    open_publisher,
)


@dataclass(frozen=True)
class Health(Payload):
    service: str
    passing: bool

    @property
    def subject(self) -> str:
        return self.service

    def has_read_permission(self, authorizer: Any, /) -> bool:
        return bool(authorizer(self))


@dataclass(frozen=True)
class Unrelated:
    """A payload need not inherit from anything where no authorizer is used."""

    subject: str


HEALTH = Topic[Health]("health")
UNRELATED = Topic[Unrelated]("unrelated")


async def health_snapshot(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    assert_type(request.topic, Topic[Health])
    await snapshot.append([Event(HEALTH, 1, Health("web", passing=True))])
    return 1


def a_handler_is_typed_by_its_payload() -> None:
    handler: SnapshotFunc[Health] = health_snapshot
    _: SnapshotFunc[Unrelated] = handler  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def a_payload_need_not_inherit() -> None:
    assert_type(Event(UNRELATED, 1, Unrelated("web")), Event[Unrelated])


async def the_payload_type_travels_from_the_topic_to_the_event() -> None:
    async with open_publisher({HEALTH: health_snapshot}, history=10) as publisher:
        assert_type(publisher, EventPublisher)
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"), authorizer=bool)
        assert_type(subscription, Subscription[Health])
        assert_type(subscription.request, SubscribeRequest[Health])
        assert_type(subscription.resume_request(), SubscribeRequest[Health])
        async with subscription:
            assert_type(await subscription.receive(), Event[Health])
            assert_type(subscription.receive_nowait(), Event[Health])
            assert_type(await subscription.receive_batch(), Sequence[Event[Health]])
            async for event in subscription:
                assert_type(event, Event[Health])
                assert_type(event.events, tuple[Event[Health], ...])
                for single in event.events:
                    if isinstance(single.payload, Health):
                        assert_type(single.payload.passing, bool)
                if isinstance(event.payload, PayloadEvents):
                    assert_type(event.payload[0], Event[Health])


def any_iterable_of_events_is_a_commit(publisher: EventPublisher, events: Iterable[Event[Health]]) -> None:
    publisher.publish(events)
    publisher.publish([close_subscription_event(["token"])])
    publisher.publish([Event(HEALTH, 1, Health("web", passing=True)), Event(UNRELATED, 1, Unrelated("web"))])


def a_subscription_is_the_channel_of_both_libraries(subscription: Subscription[Health]) -> None:
    _channel: trio.abc.ReceiveChannel[Event[Health]] = subscription
    _stream: anyio.abc.ObjectReceiveStream[Event[Health]] = subscription


def an_error_is_that_of_both_libraries(error: ClosedResourceError, ended: SubscriptionForceClosed) -> None:
    _own: tuple[trio.ClosedResourceError, anyio.ClosedResourceError] = (error, error)
    _broken: tuple[trio.BrokenResourceError, anyio.BrokenResourceError] = (ended, ended)
    assert_type(ended.reason, CloseReason)
    assert_type(ended.index, int)
    assert_type(ended.epoch, str)
    match ended:
        case SubscriptionLagged():
            assert_type(ended.missed, int)
        case SnapshotFailed():
            assert_type(ended.__cause__, BaseException | None)
        case _:
            pass


def misuse_is_seen(publisher: EventPublisher) -> None:
    publisher.subscribe(SubscribeRequest(HEALTH), on_lag="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SubscribeRequest("health")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    publisher.publish(Event(HEALTH, 1, Health("web", passing=True)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
