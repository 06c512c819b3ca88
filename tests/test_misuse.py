"""Misuse is refused at the call, with a clear error, and nothing has changed."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
import trio
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready
from scenes import quiet

from trio_stream import (
    BusyResourceError,
    Event,
    EventPublisher,
    Framing,
    InvalidCommitError,
    PayloadEvents,
    SubscribeRequest,
    Subscription,
    Topic,
    UnknownTopicError,
    WouldBlock,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

UNKNOWN = Topic[Health]("unknown")


class Subjectless:
    """A payload whose subject is whatever it is given."""

    def __init__(self, subject: Any) -> None:
        self.subject = subject


def publisher_at_5() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot, JOBS: Catalogue().snapshot}, index=5, epoch="e")


def live(publisher: EventPublisher) -> Subscription[Health]:
    return publisher.subscribe(SubscribeRequest(HEALTH, token="t", index=5))


@contextmanager
def refused(
    publisher: EventPublisher, kind: type[Exception] | tuple[type[Exception], ...], match: str | None = None
) -> Iterator[None]:
    """The block raises this, with something to read, and changes nothing that can be seen."""
    reader = live(publisher)
    before = publisher.statistics()
    with pytest.raises(kind, match=match):
        yield
    assert publisher.statistics() == before
    assert ready(reader) == []
    assert reader.statistics().lag == 0
    reader.close()


NOT_ONE_COMMIT: dict[str, list[Any]] = {
    "equal index": [event(5, "web")],
    "lower index": [event(4, "web")],
    "index zero": [event(0, "web")],
    "negative index": [event(-6, "web")],
    "bool index": [event(True, "web")],
    "float index": [event(6.0, "web")],  # type: ignore[arg-type]
    "text index": [event("6", "web")],  # type: ignore[arg-type]
    "no index": [event(None, "web")],  # type: ignore[arg-type]
    "several indexes": [event(6, "web"), event(7, "web")],
    "several indexes over topics": [event(6, "web"), event(7, "web", topic=JOBS)],
    "one bad index at the end": [event(6, "web"), event(6, "db"), event(5, "web")],
    "end of snapshot": [Event(HEALTH, 6, Framing.END_OF_SNAPSHOT)],
    "new snapshot to follow": [event(6, "web"), Event(HEALTH, 6, Framing.NEW_SNAPSHOT_TO_FOLLOW)],
    "a batch": [Event(HEALTH, 6, PayloadEvents([event(6, "web")]))],
    "no event": [Health("web")],
    "none": [event(6, "web"), None],
    "text": ["ab"],
    "subject is a number": [Event(HEALTH, 6, Subjectless(7))],
    "subject is missing": [event(6, "web"), Event(HEALTH, 6, Subjectless(None))],
    "subject is a plain tuple": [Event(HEALTH, 6, Subjectless(("web", "default", "default")))],
}


@pytest.mark.parametrize("commit", NOT_ONE_COMMIT.values(), ids=NOT_ONE_COMMIT)
async def test_what_is_not_one_commit_with_a_greater_index_is_not_published(commit: list[Any]) -> None:
    """D18, C11: also where it stands among events that are in order, and beside a close event."""
    publisher = publisher_at_5()
    for events in (
        commit,
        [close_subscription_event(["t"]), *commit],
        [*commit, close_subscription_event(["t"])],
    ):
        with refused(publisher, InvalidCommitError):
            publisher.publish(events)
        with refused(publisher, InvalidCommitError):
            publisher.publish(iter(events))
    publisher.publish([event(6, "web")])
    assert publisher.index == 6


async def test_a_payload_without_any_subject_is_not_published() -> None:
    """D18: and the message names the type of the payload, not what is in it."""
    publisher = publisher_at_5()
    with refused(publisher, InvalidCommitError, match="object has no subject"):
        publisher.publish([event(6, "web"), Event(HEALTH, 6, object())])


async def test_an_iterable_that_fails_half_way_publishes_nothing() -> None:
    """D4, D18."""
    publisher = publisher_at_5()

    def half() -> Iterable[Event[Any]]:
        yield close_subscription_event(["t"])
        yield event(6, "web")
        raise OSError("half way")

    with refused(publisher, OSError):
        publisher.publish(half())
    with refused(publisher, TypeError):
        publisher.publish(event(6, "web"))  # type: ignore[arg-type]


async def test_a_close_event_cannot_be_hidden_in_a_commit_that_is_refused() -> None:
    """D18: nothing changed, so nobody was closed."""
    publisher = publisher_at_5()
    with refused(publisher, UnknownTopicError):
        publisher.publish([close_subscription_event(["t"]), event(6, "web", topic=UNKNOWN)])


async def test_publishing_nothing_is_no_commit() -> None:
    publisher = publisher_at_5()
    reader, before = live(publisher), publisher.statistics()
    reader.close()
    publisher.publish([])
    publisher.publish(iter(()))
    assert publisher.index == before.index


@pytest.mark.parametrize("events", [[], [event(6, "web")], [close_subscription_event(["t"])]])
@pytest.mark.parametrize(
    ("index", "kind"), [(5, InvalidCommitError), (-1, ValueError), (True, TypeError), ("7", TypeError)]
)
async def test_the_index_of_a_commit_is_a_greater_one_and_that_of_its_events(
    events: list[Any], index: Any, kind: type[Exception]
) -> None:
    """D18."""
    publisher = publisher_at_5()
    with refused(publisher, InvalidCommitError if events and events[0].index == 6 else kind):
        publisher.publish(events, index=index)


@pytest.mark.parametrize(
    "commit", [[event(6, "web", topic=UNKNOWN)], [event(6, "web"), event(6, "web", topic=UNKNOWN)]]
)
async def test_an_event_of_an_unknown_topic_is_not_published(commit: list[Event[Any]]) -> None:
    """D18, D4: nor are those of known topics beside it."""
    publisher = publisher_at_5()
    with refused(publisher, UnknownTopicError, match="unknown"):
        publisher.publish(commit)


async def test_an_unknown_topic_has_no_subscriptions_and_nothing_to_refresh() -> None:
    """D18: it is a `LookupError` too."""
    publisher = publisher_at_5()
    for kind in (UnknownTopicError, LookupError):
        with refused(publisher, kind, match="unknown"):
            publisher.subscribe(SubscribeRequest(UNKNOWN))
        with refused(publisher, kind, match="unknown"):
            publisher.refresh(UNKNOWN)


async def test_what_is_no_request_is_not_subscribed_to() -> None:
    """D18."""
    publisher = publisher_at_5()
    for wrong in (HEALTH, "health", None):
        with refused(publisher, TypeError):
            publisher.subscribe(wrong)  # type: ignore[arg-type, unused-ignore]
    for policy in ("drop", "", None, True):
        with refused(publisher, (ValueError, TypeError)):
            publisher.subscribe(SubscribeRequest(HEALTH), on_lag=policy)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        ({"index": -1}, ValueError),
        ({"index": True}, TypeError),
        ({"index": 1.0}, TypeError),
        ({"index": "1"}, TypeError),
        ({"epoch": 1}, TypeError),
        ({"token": None}, TypeError),
        ({"key": None}, TypeError),
        ({"namespace": None}, TypeError),
        ({"partition": 0}, TypeError),
        ({"topic": "health"}, TypeError),
    ],
    ids=repr,
)
async def test_a_request_that_makes_no_sense_cannot_be_made(
    wrong: dict[str, Any], kind: type[Exception]
) -> None:
    """D18."""
    with pytest.raises(kind):
        SubscribeRequest(**{"topic": HEALTH, **wrong})


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"history": 0}, ValueError),
        ({"history": -1}, ValueError),
        ({"history": True}, TypeError),
        ({"history": 1.5}, TypeError),
        ({"history": None}, TypeError),
        ({"snapshot_cache_ttl": -0.001}, ValueError),
        ({"snapshot_cache_ttl": float("nan")}, ValueError),
        ({"snapshot_cache_ttl": float("-inf")}, ValueError),
        ({"snapshot_cache_ttl": "10"}, TypeError),
        ({"index": -1}, ValueError),
        ({"index": True}, TypeError),
        ({"index": 1.0}, TypeError),
        ({"epoch": ""}, ValueError),
        ({"epoch": 7}, TypeError),
    ],
    ids=repr,
)
async def test_an_option_that_makes_no_sense_is_refused(
    options: dict[str, Any], kind: type[Exception]
) -> None:
    """D18: by both ways to make a publisher, and not in an exception group."""
    with pytest.raises(kind):
        EventPublisher({HEALTH: Catalogue().snapshot}, **options)
    with pytest.raises(kind):
        async with open_publisher({HEALTH: Catalogue().snapshot}, **options):
            pytest.fail("it runs")


@pytest.mark.parametrize("ttl", [0, 0.0, 1, 1e300, float("inf")])
async def test_any_time_to_live_from_none_to_endless_works(ttl: float) -> None:
    async with open_publisher({HEALTH: Catalogue().snapshot}, snapshot_cache_ttl=ttl) as publisher:
        for _ in range(2):
            async with publisher.subscribe(SubscribeRequest(HEALTH)) as subscription:
                assert kinds([await subscription.receive()]) == ["eos@0"]
        await quiet()
        assert publisher.statistics().topics["health"].snapshots == (ttl > 0)


@pytest.mark.parametrize(
    "handlers", [{"health": Catalogue().snapshot}, {HEALTH: None}, {HEALTH: 1}, {None: print}]
)
async def test_handlers_are_functions_of_topics(handlers: Any) -> None:
    """D18."""
    with pytest.raises(TypeError):
        EventPublisher(handlers)
    publisher = publisher_at_5()
    ((topic, handler),) = handlers.items()
    with refused(publisher, (TypeError, ValueError)):
        publisher.register_handler(topic, handler)


async def test_a_topic_has_one_handler() -> None:
    """D18: under whatever object of that name."""
    publisher = publisher_at_5()
    with refused(publisher, ValueError, match="health"):
        publisher.register_handler(Topic[Health]("health"), Catalogue().snapshot)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({"index": -1}, ValueError),
        ({"index": True}, TypeError),
        ({"index": 2.0}, TypeError),
        ({"epoch": ""}, ValueError),
        ({"epoch": 7}, TypeError),
        ({"index": 3, "epoch": ""}, ValueError),
        ({"epoch": "e"}, ValueError),  # the epoch that ends
        ({"topic": HEALTH, "index": 3}, ValueError),
        ({"topic": HEALTH, "epoch": "f"}, ValueError),
    ],
    ids=str,
)
async def test_a_refresh_that_makes_no_sense_closes_nobody(
    arguments: dict[str, Any], kind: type[Exception]
) -> None:
    """D18."""
    publisher = publisher_at_5()
    with refused(publisher, kind):
        publisher.refresh(**arguments)


@pytest.mark.parametrize("most", [0, -1])
async def test_a_batch_of_nothing_cannot_be_asked_for(most: int) -> None:
    """D18: and what was ready stays ready."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    publisher.publish([event(6, "web")])
    with pytest.raises(ValueError):
        await subscription.receive_batch(most)
    assert kinds(ready(subscription)) == ["6:web=ok"]


CALLS: dict[str, Callable[[Subscription[Health]], Awaitable[Any]]] = {
    "receive": lambda subscription: subscription.receive(),
    "receive_batch": lambda subscription: subscription.receive_batch(),
    "anext": anext,
}
BOTH = {"trio": trio.BusyResourceError, "anyio": anyio.BusyResourceError}


@pytest.mark.parametrize("readiness", [[False, True], [True]], ids=["later ready", "ready"])
@pytest.mark.parametrize("first", CALLS.values(), ids=CALLS)
async def test_a_second_receiver_is_refused_and_the_first_is_not_disturbed(
    first: Callable[[Subscription[Health]], Awaitable[Any]], readiness: list[bool]
) -> None:
    """D18: whichever calls the two make, and whether something is ready or not."""
    got: list[Any] = []

    async def wait() -> None:
        received = await first(subscription)
        got.extend(received if isinstance(received, list | tuple) else [received])

    publisher = publisher_at_5()
    subscription = live(publisher)
    publisher.publish([event(6, "web")])
    await anext(subscription)  # so that the next one need not be a checkpoint
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await quiet()
        for something_is_ready in readiness:
            if something_is_ready:
                publisher.publish([event(7, "web")])
            for second in reversed(CALLS.values()):
                for kind in (BusyResourceError, trio.BusyResourceError, anyio.BusyResourceError):
                    with pytest.raises(kind):
                        await second(subscription)
            with pytest.raises(BusyResourceError):
                subscription.receive_nowait()
    assert kinds(got) == ["7:web=ok"]
    with pytest.raises(WouldBlock):
        subscription.receive_nowait()
    publisher.publish([event(8, "web")])
    assert kinds([await subscription.receive()]) == ["8:web=ok"]


async def test_a_receiver_that_was_cancelled_leaves_the_place_to_another() -> None:
    """D12, D18."""
    publisher = publisher_at_5()
    subscription = live(publisher)
    for call in CALLS.values():
        with anyio.CancelScope() as scope:
            scope.cancel()
            await call(subscription)
        with pytest.raises(WouldBlock):
            subscription.receive_nowait()


FOREIGN: dict[str, Callable[[EventPublisher, Subscription[Health]], object]] = {
    "publish": lambda publisher, _: publisher.publish([event(6, "web")]),
    "publish a close event": lambda publisher, _: publisher.publish([close_subscription_event(["t"])]),
    "subscribe": lambda publisher, _: publisher.subscribe(SubscribeRequest(HEALTH)),
    "close_subscriptions": lambda publisher, _: publisher.close_subscriptions(["t"]),
    "refresh": lambda publisher, _: publisher.refresh(),
    "refresh a topic": lambda publisher, _: publisher.refresh(HEALTH),
    "register_handler": lambda publisher, _: publisher.register_handler(UNKNOWN, Catalogue().snapshot),
    "unsubscribe": lambda _, subscription: subscription.unsubscribe(),
    "close": lambda _, subscription: subscription.close(),
}


@pytest.mark.parametrize("call", FOREIGN.values(), ids=FOREIGN)
async def test_another_thread_is_refused(
    call: Callable[[EventPublisher, Subscription[Health]], object],
) -> None:
    """D18: everything but `publish_from_thread` belongs to the event loop."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=5) as publisher:
        subscription = live(publisher)
        with refused(publisher, RuntimeError, match="thread"):
            await anyio.to_thread.run_sync(call, publisher, subscription)
        assert ready(subscription) == []
        publisher.publish([event(6, "web")])
        assert kinds(ready(subscription)) == ["6:web=ok"]
