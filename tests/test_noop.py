"""A publisher for where events are not wanted."""

from dataclasses import asdict

import anyio
import pytest
from catalogue import HEALTH, Catalogue, event

from trio_stream import NoOpEventPublisher, PublisherDisabledError, SubscribeRequest, close_subscription_event

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
    assert (publisher.index, publisher.statistics().subscriptions) == (0, 0)
    assert publisher.epoch == publisher.statistics().epoch
    with pytest.raises(PublisherDisabledError):
        publisher.subscribe(SubscribeRequest(HEALTH))


async def test_it_says_that_there_is_nothing() -> None:
    publisher = NoOpEventPublisher()
    assert (publisher.index, publisher.epoch) == (0, "")
    statistics = asdict(publisher.statistics())
    assert statistics == {**dict.fromkeys(statistics, 0), "epoch": "", "topics": {}}


async def test_its_run_is_a_checkpoint() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await NoOpEventPublisher().run()
    assert scope.cancelled_caught
