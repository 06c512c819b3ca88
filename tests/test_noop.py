"""A publisher for where events are not wanted."""

import inspect
from dataclasses import asdict

import anyio
import pytest
from catalogue import HEALTH, Catalogue, event

from trio_stream import (
    EventPublisher,
    NoOpEventPublisher,
    PublisherDisabledError,
    Subscribable,
    SubscribeRequest,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio


async def test_a_publisher_that_does_nothing_takes_everything() -> None:
    publisher = NoOpEventPublisher()
    publisher.register_handler(HEALTH, Catalogue().snapshot)
    async with anyio.create_task_group() as tasks:
        await tasks.start(publisher.run)
    await publisher.run()
    publisher.publish([event(1, "web"), event(7, "db")])
    publisher.publish([], index=8)
    publisher.publish_from_thread([close_subscription_event(["t"])])
    await anyio.to_thread.run_sync(publisher.publish_from_thread, [event(1, "web")])
    publisher.refresh()
    publisher.refresh(HEALTH)
    assert publisher.close_subscriptions(["t"]) == 0
    assert (publisher.index, publisher.next_index, publisher.statistics().subscriptions) == (0, 1, 0)
    assert publisher.epoch == publisher.statistics().epoch
    with pytest.raises(PublisherDisabledError):
        publisher.subscribe(SubscribeRequest(HEALTH))


MEMBERS = [name for name in dir(EventPublisher) if not name.startswith("_")]


@pytest.mark.parametrize("name", MEMBERS)
def test_it_has_every_public_member_of_the_real_one(name: str) -> None:
    """U22: with the same parameters, so that one can stand for the other."""
    real, disabled = (
        inspect.getattr_static(publisher, name) for publisher in (EventPublisher, NoOpEventPublisher)
    )
    assert type(disabled) is type(real)
    assert inspect.getdoc(disabled)
    if isinstance(real, property):
        with pytest.raises(AttributeError):
            setattr(NoOpEventPublisher(), name, 7)
        return
    assert inspect.iscoroutinefunction(disabled) == inspect.iscoroutinefunction(real)
    assert described(disabled) == described(real)


def described(function: object) -> list[tuple[object, ...]]:
    """Its parameters; type variables of the same name are the same."""
    assert callable(function)
    parameters = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default, str(each.annotation)) for each in parameters]


@pytest.mark.parametrize("publisher", [EventPublisher, NoOpEventPublisher])
def test_what_readers_use_is_the_same_in_both(publisher: type[object]) -> None:
    """U22: `Subscribable`; that both satisfy it statically is in tests/typing."""
    for name in (name for name in vars(Subscribable) if not name.startswith("_")):
        assert described(getattr(publisher, name)) == described(getattr(Subscribable, name))


async def test_it_says_that_there_is_nothing() -> None:
    publisher = NoOpEventPublisher()
    assert (publisher.index, publisher.epoch, str(publisher.cursor)) == (0, "", "0@")
    statistics = asdict(publisher.statistics())
    nothing: dict[str, object] = {name: {} for name in ("topics", "opened", "snapshots", "ends")}
    assert statistics == {**dict.fromkeys(statistics, 0), "epoch": "", "feed_age": None, **nothing}


def test_it_has_no_subscriptions() -> None:
    assert list(NoOpEventPublisher().subscriptions()) == []


async def test_its_run_is_a_checkpoint() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await NoOpEventPublisher().run()
    assert scope.cancelled_caught
