"""What publishers and subscriptions show of themselves to whoever debugs, and which attributes they have."""

import gc
import weakref

import anyio
import anyio.abc
import pytest
import trio
from anyio.streams.stapled import StapledObjectStream
from catalogue import HEALTH, Catalogue, Health, event
from scenes import opened

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    NoOpEventPublisher,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    open_publisher,
)

pytestmark = pytest.mark.anyio


def publisher_at_5() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot}, index=5, epoch="e")


def live() -> tuple[EventPublisher, Subscription[Health]]:
    publisher = publisher_at_5()
    return publisher, publisher.subscribe(SubscribeRequest(HEALTH, "web", namespace="team", index=5))


async def test_a_subscription_shows_what_it_is_to_and_where_it_stands() -> None:
    """U22."""
    publisher, subscription = live()
    shown = "<Subscription topic='health' subject='default/team/web' "
    assert repr(subscription) == f"{shown}state=live index=5 lag=0>"
    for index in (6, 7, 8):
        publisher.publish([event(index, "web", namespace="team")])
    assert repr(subscription) == f"{shown}state=live index=5 lag=3>"
    await subscription.receive()
    assert repr(subscription) == f"{shown}state=live index=6 lag=2>"
    subscription.close()
    assert repr(subscription) == f"{shown}state=closed index=6 lag=0>"


async def test_a_subscription_shows_that_it_is_in_a_snapshot_or_was_closed() -> None:
    publisher = publisher_at_5()
    subscription = publisher.subscribe(SubscribeRequest(HEALTH))
    assert "state=snapshot index=0" in repr(subscription)
    publisher.refresh()
    assert "state=force-closed" in repr(subscription)
    with pytest.raises(SubscriptionForceClosed) as raised:
        subscription.receive_nowait()
    assert raised.value.reason is CloseReason.REFRESH


async def test_showing_a_subscription_changes_nothing() -> None:
    """D16: the peak of the lag is what `statistics` and the reader have found."""
    publisher, subscription = live()
    publisher.publish([event(6, "web", namespace="team")])
    assert f"{subscription!r}" == f"{subscription}" == str(subscription)
    await subscription.receive()
    assert subscription.statistics().peak_lag == 1
    assert subscription.statistics().delivered == 1


async def test_a_publisher_shows_how_far_it_is_and_what_it_does() -> None:
    """U22."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=5, epoch="e")
    assert repr(publisher) == "<EventPublisher index=5 epoch='e' subscriptions=0 not started>"
    async with opened(index=5, epoch="e") as (_, publisher):
        subscriptions = [publisher.subscribe(SubscribeRequest(HEALTH, token=token)) for token in "aab"]
        publisher.publish([event(6, "web")])
        assert repr(publisher) == "<EventPublisher index=6 epoch='e' subscriptions=3 running>"
        subscriptions.pop().close()
        assert "subscriptions=2" in repr(publisher)
        publisher.close_subscriptions(["a"])
        assert "subscriptions=0" in repr(publisher)
    assert repr(publisher) == "<EventPublisher index=6 epoch='e' subscriptions=0 stopped>"
    assert repr(NoOpEventPublisher()) == "<NoOpEventPublisher>"


async def test_a_mistyped_attribute_of_a_subscription_is_refused() -> None:
    """U22: it would be kept, and nobody would look at it."""
    _, subscription = live()
    with pytest.raises(AttributeError):
        subscription.indxe = 1  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        subscription.index = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        _ = subscription.indxe  # type: ignore[attr-defined]
    assert not hasattr(subscription, "__dict__")


async def test_a_subscription_is_the_channel_and_the_resource_of_both_libraries() -> None:
    _, subscription = live()
    for kind in (
        trio.abc.ReceiveChannel,
        trio.abc.AsyncResource,
        anyio.abc.ObjectReceiveStream,
        anyio.abc.UnreliableObjectReceiveStream,
        anyio.abc.AsyncResource,
    ):
        assert isinstance(subscription, kind)
        assert issubclass(Subscription, kind)
        assert not isinstance(NoOpEventPublisher(), kind)
    assert not isinstance(subscription, anyio.abc.ObjectSendStream)
    assert not isinstance(subscription, trio.abc.SendChannel)


async def test_a_subscription_has_what_an_anyio_stream_inherits() -> None:
    """Every public member of the stream, and typed attributes: it has none, and says so as anyio does."""

    class Attributes(anyio.TypedAttributeSet):
        name: str = anyio.typed_attribute()

    _, subscription = live()
    for name in dir(anyio.abc.ObjectReceiveStream):
        assert hasattr(subscription, name) or name in {"__dict__", "_abc_impl"}, name
    assert subscription.extra_attributes == {}
    assert subscription.extra(Attributes.name, "none") == "none"
    with pytest.raises(anyio.TypedAttributeLookupError):
        subscription.extra(Attributes.name)


async def test_anyio_takes_a_subscription_for_a_stream() -> None:
    """As a part of what anyio itself builds on streams."""
    async with (
        open_publisher({HEALTH: Catalogue().snapshot}, index=5, epoch="e") as publisher,
        publisher.subscribe(SubscribeRequest(HEALTH, index=5)) as subscription,
    ):
        send, unused = anyio.create_memory_object_stream[Event[Health]](1)
        unused.close()
        stapled = StapledObjectStream(send, subscription)
        publisher.publish([event(6, "web")])
        assert await stapled.receive() == event(6, "web")
        assert dict(stapled.extra_attributes) == {}
        await stapled.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await subscription.receive()


async def test_a_subscription_can_be_referred_to_weakly() -> None:
    _, subscription = live()
    reference = weakref.ref(subscription)
    assert reference() is subscription
    subscription.close()
    del subscription
    gc.collect()
    assert reference() is None


async def test_figures_cannot_be_changed() -> None:
    async with opened() as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
        of_publisher = publisher.statistics()
        for figures in (of_publisher, of_publisher.topics["health"], subscription.statistics()):
            for name in type(figures).__slots__:
                with pytest.raises(AttributeError):
                    setattr(figures, name, 7)
            assert not hasattr(figures, "__dict__")
