"""What type checkers make of a user's program; checked by mypy and pyright, never run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never, assert_type

import anyio
import trio

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    Event,
    EventPublisher,
    Framing,
    NoOpEventPublisher,
    Payload,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    SnapshotFunc,
    Subject,
    Subscribable,
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


def its_attributes_are_those_of_an_anyio_stream(subscription: Subscription[Health]) -> None:
    class Attributes(anyio.TypedAttributeSet):
        name: str = anyio.typed_attribute()

    assert_type(subscription.extra(Attributes.name), str)
    assert_type(subscription.extra(Attributes.name, None), str | None)
    subscription.indxe = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def what_readers_use_of_a_publisher_is_one_protocol(
    publisher: EventPublisher, disabled: NoOpEventPublisher
) -> None:
    _both: tuple[Subscribable, Subscribable] = (publisher, disabled)


async def reads_from(source: Subscribable) -> None:
    subscription = source.subscribe(SubscribeRequest(HEALTH), authorizer=bool, on_lag="reset")
    assert_type(subscription, Subscription[Health])
    source.publish([])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def a_subscription_need_not_be_from_a_publisher() -> None:
    class Nobody:
        """Subscribes to nothing."""

    _: Subscribable = Nobody()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


def a_request_says_what_it_covers(request: SubscribeRequest[Health], payload: Health) -> None:
    assert_type(request.covers(HEALTH, payload.subject), bool)
    assert_type(request.covers(UNRELATED, Subject("web")), bool)
    request.covers("health", "web")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def a_kind_of_framing_that_was_forgotten_is_found(event: Event[Health]) -> None:
    assert_type(event.framing, Framing | None)
    framing = event.framing
    match framing:
        case Framing.END_OF_SNAPSHOT:
            pass
        case Framing.NEW_SNAPSHOT_TO_FOLLOW:
            pass
        case None:
            pass
        case _:
            assert_never(framing)
    match framing:
        case Framing.END_OF_SNAPSHOT | None:
            pass
        case _:
            assert_never(framing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


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
    SubscribeRequest("health")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    publisher.publish(Event(HEALTH, 1, Health("web", passing=True)))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
