"""D15: however far behind readers are, and however many of them are replayed, the event loop has its turn in between.

A test counts calls of the library's functions, or what others are asked, in one stretch between two turns of the loop.
"""

from collections.abc import Hashable
from itertools import islice
from typing import ClassVar

import anyio
import pytest
from catalogue import HEALTH, Health, event
from conflated import EVERY, by_row, by_subject, live
from logged import after, filled, logged
from scenes import opened, quiet
from stretches import stretches
from typing_extensions import override

from trio_stream import (
    Event,
    Payload,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    WouldBlock,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])]

MANY = 2_000
FEW = 8_300  # calls in one stretch, of which what concerns the many takes many more
HALF = 1_000
PAGE = 1_024


async def test_a_catch_up_of_very_many_rows_takes_few_calls() -> None:
    """D21: one delivery, of as many events as there are rows."""
    rows, each = 20_000, 1_000
    async with by_row(index=1) as (_, publisher):
        subscription = live(publisher)
        for first in range(0, rows, each):
            publisher.publish([event(publisher.next_index, f"{first + number}") for number in range(each)])
        with stretches() as seen:
            received = subscription.receive_nowait()
        assert len(received.events) == rows
        assert received.is_conflated
        assert seen.calls < 100


@pytest.mark.parametrize("each", [1, 8])
async def test_one_call_folds_no_more_than_so_many_events(each: int) -> None:
    """D15: and the next one goes on from there, whether they came one by one or many in a commit."""
    many, most = 10_000, 4_096
    asked = 0

    def row(payload: Health) -> Hashable:
        nonlocal asked
        asked += 1
        return by_subject(payload)

    async with by_row(row, index=1, history=many) as (_, publisher):
        hidden = live(publisher, where=lambda payload: payload.value == "shown")
        for first in range(0, many, each):
            publisher.publish([event(publisher.next_index, f"{first + number}") for number in range(each)])
        seen: list[int] = []
        for _ in range(4):
            before = asked
            with pytest.raises(WouldBlock):
                hidden.receive_nowait()
            seen.append(asked - before)
        assert seen == [most, most, many - 2 * most, 0]
        assert hidden.index == publisher.index


class Asked(Payload):
    """Counts how often one of them is asked for its subject, and for its withdrawal."""

    __slots__ = ("_key",)
    subjects: ClassVar[int] = 0
    withdrawals: ClassVar[int] = 0

    def __init__(self, key: str) -> None:
        self._key = key

    @property
    @override
    def subject(self) -> str:
        type(self).subjects += 1
        return self._key

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return True

    @override
    def withdrawn(self) -> "Asked":
        type(self).withdrawals += 1
        return self


async def test_a_commit_of_a_thousand_that_say_what_they_replace_is_looked_at_once() -> None:
    """D15: in proportion to its events, and nothing is withdrawn before somebody reads it."""
    many = 1_000
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, index=1), authorizer="me")
        commit = [Event(HEALTH, 2, Asked(f"{number}"), previous=Asked(f"{number}")) for number in range(many)]
        subjects, withdrawals = Asked.subjects, Asked.withdrawals
        with stretches() as seen:
            publisher.publish(commit)
        assert Asked.subjects - subjects == 3 * many  # of what replaces, of what is replaced, and to route it
        assert withdrawals == Asked.withdrawals
        assert seen.calls < 25 * many
        assert len(subscription.receive_nowait().events) == many


async def received(subscription: Subscription[Health], indexes: list[int]) -> None:
    try:
        indexes.append((await subscription.receive()).index)
    except SubscriptionForceClosed:
        indexes.append(0)


async def test_thousands_that_wait_in_one_page_are_woken_in_portions() -> None:
    """D21: and one run of the function is for all of them."""
    store = filled(20)
    gate = store.hold()
    indexes: list[int] = []
    async with logged(store, history=2) as (_, publisher), anyio.create_task_group() as tasks:
        with stretches() as seen:
            for _ in range(MANY):
                tasks.start_soon(received, publisher.subscribe(after(store, 3)), indexes)
            seen.cut()
            seen.longest = 0
            await quiet()
            gate.set()
            await quiet()
        assert indexes == [4] * MANY
        assert store.asked == [3]
        assert seen.calls > MANY
        assert seen.longest < FEW


async def test_thousands_that_fall_off_at_once_are_replayed_by_one_page() -> None:
    """D10, D21: a commit that the history forgets costs the publisher nothing for them."""
    indexes: list[int] = []
    store = filled(20)
    async with logged(store, history=2) as (_, publisher), anyio.create_task_group() as tasks:
        readers = [publisher.subscribe(after(store, 20)) for _ in range(MANY)]
        with stretches() as seen:
            store.fill(3)
        assert seen.calls < MANY // 4
        for subscription in readers:
            tasks.start_soon(received, subscription, indexes)
        with stretches() as seen:
            await quiet()
        assert indexes == [21] * MANY
        assert store.asked == [20]
        assert seen.calls > FEW > seen.longest


@pytest.mark.parametrize("how", ["close_subscriptions", "refresh"])
async def test_a_thousand_that_are_replayed_from_places_of_their_own_are_let_go_of_in_portions(
    how: str,
) -> None:
    """D9, D13: with the functions that read for them."""
    store = filled(HALF + 20)
    store.hold()
    indexes: list[int] = []
    async with logged(store, history=2) as (_, publisher), anyio.create_task_group() as tasks:
        for place in range(HALF):
            tasks.start_soon(received, publisher.subscribe(after(store, 1 + place)), indexes)
        await quiet()
        assert len(store.pages) == HALF
        with stretches() as seen:
            if how == "refresh":
                publisher.refresh(HEALTH)
            else:
                assert publisher.close_subscriptions([""]) == HALF
            await quiet()
        assert indexes == [0] * HALF
        assert all(page.is_cancelled for page in store.pages)
        assert seen.calls > FEW > seen.longest


async def test_a_page_of_many_commits_is_read_in_portions() -> None:
    """D15: by the function, which has a checkpoint for each of them, and by who takes all that is there."""
    store = filled(3 * PAGE)
    store.size = 2 * PAGE
    async with logged(store, history=2) as (_, publisher):
        subscription = publisher.subscribe(after(store, 3, EVERY))
        with stretches() as seen:
            assert len(await subscription.receive_until_current()) == 3 * PAGE - 3
        assert [len(page.appended) for page in store.pages[:2]] == [PAGE, PAGE]
        assert seen.calls > FEW > seen.longest


async def test_subscriptions_are_looked_at_one_by_one() -> None:
    """D15: whoever looks at very many gives way in between."""
    async with opened(index=1) as (_, publisher):
        readers = [
            publisher.subscribe(SubscribeRequest(HEALTH, index=1), label=f"{number}")
            for number in range(MANY)
        ]
        with stretches() as seen:
            labels = [each.label for each in islice(publisher.subscriptions(), 10)]
        assert labels == [each.label for each in readers[:10]]
        assert seen.calls < MANY // 4


@pytest.mark.parametrize("count", [60_000, 70_000])
async def test_tokens_that_are_revoked_cost_few_calls(count: int) -> None:
    """D20: as many as are remembered, and more."""
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, token="t", index=1))
        with stretches() as seen:
            for _ in range(2):
                publisher.close_subscriptions([f"{number}" for number in range(count)])
        assert seen.calls < 100
        assert subscription.statistics().lag == 0
