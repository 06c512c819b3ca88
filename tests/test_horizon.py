"""Up to which index a reader has everything, although the commits may not have touched its subject."""

import gc
from functools import partial

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready, until_live
from interruptions import ways
from scenes import opened, quiet
from stretches import stretches

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    Event,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    Topic,
)

pytestmark = pytest.mark.anyio

LIVE = SubscribeRequest(HEALTH, "web", token="t", index=1)


async def test_the_horizon_goes_on_with_commits_of_others_but_not_past_what_is_ready() -> None:
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        assert subscription.horizon == 1
        publisher.publish([event(2, "other")])
        publisher.publish([event(3, "web", topic=JOBS)])
        assert (subscription.horizon, subscription.index) == (3, 1)
        publisher.publish([event(4, "web")])
        assert subscription.horizon == 1  # 4 is ready: up to 3 it would be true, but is not known
        ready(subscription)
        assert (subscription.horizon, subscription.index) == (4, 4)


@pytest.mark.parametrize("from_thread", [False, True])
async def test_a_commit_that_is_about_nothing_here_is_past_when_its_index_is_published(
    from_thread: bool,
) -> None:
    """A store has more topics than one publisher; who waits for a commit of another must not wait for ever."""
    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(LIVE)
        tasks.start_soon(subscription.wait_published, 3)
        await quiet()
        if from_thread:
            await anyio.to_thread.run_sync(partial(publisher.publish_from_thread, [], index=3))
        else:
            publisher.publish([], index=3)
        await quiet()
        assert (publisher.index, subscription.horizon, subscription.index) == (3, 3, 1)
        assert not ready(subscription)
        publisher.publish([event(4, "web")], index=4)
        assert [each.index for each in ready(subscription)] == [4]


async def test_inside_a_snapshot_nothing_is_certain() -> None:
    async with opened(index=5) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH))
        assert subscription.horizon == 0
        await until_live(subscription)
        assert subscription.horizon == 5


@pytest.mark.parametrize("topic", [HEALTH, JOBS])
@pytest.mark.parametrize("watchers", [1, 40])
async def test_waiting_for_an_index_ends_with_the_commit_that_has_it_or_a_greater_one(
    topic: Topic[Health], watchers: int
) -> None:
    """D10: whatever it touches; the reader beside it is not disturbed."""
    passed: list[int] = []

    async def wait(index: int) -> None:
        await subscription.wait_published(index)
        passed.append(index)

    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(LIVE)
        for index in (1, 2, 4):
            for _ in range(watchers):
                tasks.start_soon(wait, index)
        await quiet()
        assert passed == [1] * watchers
        publisher.publish([event(3, "other", topic=topic)])
        await quiet()
        assert passed == [1] * watchers + [2] * watchers
        publisher.publish([event(4, "web")])
    assert passed[2 * watchers :] == [4] * watchers


@pytest.mark.parametrize("end", ["close", "token", "refresh", "stop"])
async def test_waiting_for_an_index_ends_as_the_subscription_does(end: str) -> None:
    """D16."""
    ends: list[Exception] = []

    async def wait(subscription: Subscription[Health]) -> None:
        try:
            await subscription.wait_published(100)
        except (ClosedResourceError, SubscriptionForceClosed) as error:
            ends.append(error)

    async with anyio.create_task_group() as tasks:
        async with opened(index=1) as (_, publisher):
            for _ in range(40):
                tasks.start_soon(wait, publisher.subscribe(LIVE))
            subscription = publisher.subscribe(LIVE)
            tasks.start_soon(wait, subscription)
            await quiet()
            match end:
                case "close":
                    subscription.close()
                    await quiet()
                    assert len(ends) == 1
                case "token":
                    publisher.close_subscriptions(["t"])
                case "refresh":
                    publisher.refresh()
                case _:
                    pass
    assert len(ends) == 41
    expected = {"token": CloseReason.TOKEN, "refresh": CloseReason.REFRESH}.get(end, CloseReason.STOPPED)
    reasons = {error.reason for error in ends if isinstance(error, SubscriptionForceClosed)}
    assert reasons == {expected}


async def test_waiting_for_an_index_can_be_cancelled_and_begun_again() -> None:
    """D12."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        for interrupt in ways():
            for at in range(2):
                assert await interrupt(lambda: subscription.wait_published(50), at, lambda _: None)
            assert not await interrupt(lambda: subscription.wait_published(1), 1, lambda _: None)
        publisher.publish([event(2, "web")])
        await subscription.wait_published(2)
        assert len(ready(subscription)) == 1


async def test_thousands_that_give_up_waiting_for_an_index_leave_nothing() -> None:
    """D13: counted by the objects that there are."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)

        async def give_up(times: int) -> int:
            for _ in range(times):
                await ways()[0](lambda: subscription.wait_published(2), 1, lambda _: None)
            gc.collect()
            return len(gc.get_objects())

        before = await give_up(10)
        assert await give_up(1000) < before + 500


async def test_the_horizon_passes_over_what_the_reader_may_not_see() -> None:
    """D3: they are as good as had, and the next visible one still comes."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE, authorizer=frozenset({"web=shown"}))
        publisher.publish([event(2, "web", "hidden")])
        publisher.publish([event(3, "other")])
        assert (subscription.horizon, subscription.index) == (3, 2)
        publisher.publish([event(4, "web", "shown")])
        assert (subscription.horizon, subscription.index) == (2, 2)
        assert [received.index for received in ready(subscription)] == [4]
        assert subscription.statistics().delivered == 1


async def test_the_horizon_passes_over_late_events_that_the_reader_has_had() -> None:
    """D2, D7: a reader that has come back with an index ahead of what is published."""
    async with opened(index=1) as (_, publisher):
        request = SubscribeRequest(HEALTH, "web", index=5, epoch=publisher.epoch)
        subscription = publisher.subscribe(request)
        publisher.publish([event(3, "web")])
        assert subscription.horizon == 5
        publisher.publish([event(6, "other")])
        assert (subscription.horizon, subscription.index) == (6, 5)
        assert ready(subscription) == []


async def test_a_client_of_a_quiet_subject_resumes_where_the_publisher_was() -> None:
    """U9, D7: everything up to there it has had; the history may have dropped all that it ever received."""
    async with opened(history=4, index=1) as (store, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web"))
        await until_live(subscription)
        for index in range(2, 302):
            publisher.publish([event(index, "other")])
        request = subscription.resume_request()
        assert (subscription.index, request.index, request.epoch) == (1, 301, publisher.epoch)
        again = publisher.subscribe(request)
        assert store.runs == 1
        publisher.publish([event(302, "web")])
        assert [each.index for each in ready(again)] == [302]
        assert subscription.resume_request().index == 1  # 302 is ready, and so it stands before it


async def test_a_client_that_may_not_see_what_comes_resumes_behind_it() -> None:
    """U9."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE, authorizer=frozenset({"db"}))
        publisher.publish([event(2, "web", "hidden")])
        publisher.publish([event(3, "other")])
        assert subscription.resume_request().index == 3


async def test_the_horizon_stands_before_a_payload_that_raises() -> None:
    """D7: who asks how far it is does not get the error; who receives does, again and again."""

    class Moody(Health):
        def has_read_permission(self, authorizer: object, /) -> bool:
            raise LookupError("no such rule")

    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE, authorizer=frozenset({"db"}))
        publisher.publish([event(2, "web", "hidden")])
        publisher.publish([Event(HEALTH, 3, Moody("web"))])
        for _ in range(2):
            assert (subscription.horizon, subscription.resume_request().index) == (2, 2)
            with pytest.raises(LookupError):
                subscription.receive_nowait()
        assert subscription.statistics().state is SubscriptionState.LIVE


async def test_the_horizon_of_an_ended_subscription_stays_where_it_was() -> None:
    """U25: the publisher goes on without it."""
    async with opened(index=1) as (_, publisher):
        closed, revoked = publisher.subscribe(LIVE), publisher.subscribe(LIVE)
        publisher.publish([event(2, "web")])
        for subscription in (closed, revoked):
            ready(subscription)
        publisher.publish([event(3, "other")])
        closed.unsubscribe()
        publisher.close_subscriptions(["t"])
        publisher.publish([event(4, "other")])
        assert [closed.horizon, revoked.horizon] == [2, 2]
        assert [closed.resume_request().index, revoked.resume_request().index] == [2, 0]


async def test_only_those_are_woken_whose_index_has_come() -> None:
    """U30, D10: a publish costs nothing for thousands that wait for another index."""
    woken: list[int] = []

    async def wait(index: int) -> None:
        await subscription.wait_published(index)
        woken.append(index)

    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(LIVE)
        for index in range(2, 402):
            tasks.start_soon(wait, index)
        await quiet()
        with stretches() as seen:
            publisher.publish([event(2, "other", topic=JOBS)])
            await quiet()
        assert woken == [2]
        assert seen.calls < 1_000
        publisher.publish([event(200, "other", topic=JOBS)])
        await quiet()
        assert sorted(woken) == list(range(2, 201))
        tasks.cancel_scope.cancel()


async def test_a_subscription_that_ends_wakes_only_who_waits_for_it() -> None:
    """U30, D10."""
    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        others = publisher.subscribe(LIVE)
        for _ in range(400):
            tasks.start_soon(others.wait_published, 9)
        await quiet()
        with stretches() as seen:
            for _ in range(10):
                publisher.subscribe(LIVE).unsubscribe()
            await quiet()
        assert seen.calls < 4_000
        publisher.publish([event(9, "other")])


@pytest.mark.parametrize("end", ["close", "token"])
async def test_what_comes_after_the_end_is_not_told_of(end: str) -> None:
    """D9, D16: what is published from now on, it is not told of."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE)
        if end == "close":
            subscription.unsubscribe()
        else:
            publisher.close_subscriptions(["t"])
        publisher.publish([event(2, "other")])
        publisher.publish([event(3, "web")])
        assert (subscription.horizon, subscription.index) == (1, 1)


@pytest.mark.parametrize("end", ["unsubscribe", "token", "refresh"])
@pytest.mark.parametrize("ask", ["horizon", "resume_request"])
async def test_a_rule_that_ends_the_subscription_while_the_horizon_is_asked_for_hides_nothing(
    ask: str, end: str
) -> None:
    """D6, D7: what the reader has not had is still ahead of it."""

    class Ending(Health):
        def has_read_permission(self, authorizer: object, /) -> bool:
            match end:
                case "unsubscribe":
                    subscription.unsubscribe()
                case "token":
                    publisher.close_subscriptions(["t"])
                case _:
                    publisher.refresh(HEALTH)
            return False

    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(LIVE, authorizer="me")
        publisher.publish([Event(HEALTH, 2, Ending("web"))])
        publisher.publish([event(3, "web")])
        if ask == "horizon":
            assert subscription.horizon == 1
        else:
            assert subscription.resume_request().index == (1 if end == "unsubscribe" else 0)
        assert subscription.index == 1


async def test_everybody_who_waits_for_an_index_at_one_subscription_is_told_of_its_end() -> None:
    """D16."""
    told = 0

    async def wait(subscription: Subscription[Health], index: int) -> None:
        nonlocal told
        with pytest.raises(ClosedResourceError):
            await subscription.wait_published(index)
        told += 1

    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        subscription = publisher.subscribe(LIVE)
        for index in (5, 7, 7):
            tasks.start_soon(wait, subscription, index)
        await quiet()
        subscription.unsubscribe()
        await quiet()
        assert told == 3


async def test_one_of_several_that_wait_for_the_same_index_may_give_up() -> None:
    """D12: the others are woken by it."""
    woken = 0

    async def wait(subscription: Subscription[Health]) -> None:
        nonlocal woken
        await subscription.wait_published(5)
        woken += 1

    async with opened(index=1) as (_, publisher), anyio.create_task_group() as tasks:
        for _number in range(2):
            tasks.start_soon(wait, publisher.subscribe(LIVE))
        async with anyio.create_task_group() as given_up:
            given_up.start_soon(wait, publisher.subscribe(LIVE))
            await quiet()
            given_up.cancel_scope.cancel()
        publisher.publish([], index=5)
        await quiet()
        assert woken == 2


async def test_who_asks_for_the_horizon_inside_a_snapshot_loses_nothing_of_it() -> None:
    """D3: what is hidden in the history is not passed over yet."""
    async with opened() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("db", "2"))
        store.commit(("web", None))
        subscription = publisher.subscribe(SubscribeRequest(HEALTH), authorizer=frozenset({"db"}))
        await quiet()
        assert (subscription.horizon, subscription.index) == (0, 0)
        store.commit(("web", "4"))
        assert subscription.resume_request().index == 0
        assert kinds(ready(subscription)) == ["2:db=2", "eos@3"]
        assert subscription.horizon == 4
