"""C2, D19, D21: what conflates with an authorizer or a filter has the same state as who gets every event."""

from collections.abc import Sequence
from contextlib import nullcontext
from random import Random
from typing import Any, Self, cast

import pytest
from catalogue import HEALTH, Catalogue, Health, State, apply, event, kinds, until_live
from conflated import EVERY, by_row, live, replacing, taken
from scenes import settled
from typing_extensions import override
from unions import BOTH, fold, rows_at

from trio_stream import (
    BusyResourceError,
    ClosedResourceError,
    Event,
    EventPublisher,
    Payload,
    SubscribeRequest,
    Subscription,
    WouldBlock,
)

pytestmark = pytest.mark.anyio


def commit(store: Catalogue, *changes: tuple[str, str | None]) -> None:
    """One whose events say what they replace."""
    store.commit_events(replacing(store, *changes))


def is_low(payload: Health) -> bool:
    """A filter by the value: rows come and go."""
    return payload.value is None or int(payload.value) < 5


async def test_what_is_left_of_each_row_is_what_the_reader_may_see() -> None:
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, authorizer=frozenset("ab"))
        for key in "abcabc":
            commit(store, (key, f"{store.index}"))
        received = await subscription.receive()
        assert received.is_conflated
        assert kinds(received.events) == ["5:a=4", "6:b=5"]
        assert [each.previous for each in received.events] == [None, None]
        assert subscription.horizon == 7


async def test_the_first_previous_is_held_against_the_last_payload() -> None:
    """C2: the reader has the row, and of what replaced it nothing may be seen: the newest alone would say nothing."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, where=is_low)
        beside = publisher.subscribe(EVERY.after(publisher.cursor), where=is_low)
        commit(store, ("a", "1"))
        for each in (subscription, beside):
            assert kinds(taken(each)) == ["2:a=1"]
        commit(store, ("a", "6"))
        commit(store, ("a", "7"))
        assert kinds(taken(beside)) == ["3:a=None"]
        (received,) = taken(subscription)
        assert received.payloads == (Health("a", None),)
        assert subscription.horizon == 4


async def test_a_row_that_came_and_went_between_is_nothing() -> None:
    """C2: neither its first previous nor its last payload is for the reader."""
    async with by_row(index=1) as (store, publisher):
        commit(store, ("a", "6"), ("b", "1"))
        subscription = live(publisher, where=is_low)
        for value in ("1", "2", "8"):
            commit(store, ("a", value))
        assert taken(subscription) == []
        assert (subscription.horizon, subscription.statistics().lag) == (5, 0)
        commit(store, ("a", "9"))
        commit(store, ("b", "2"))
        commit(store, ("b", "3"))
        (received,) = taken(subscription)
        assert received.payloads == (Health("b", "3"),)


async def test_a_row_that_went_and_came_back_is_its_newest() -> None:
    async with by_row(index=1) as (store, publisher):
        commit(store, ("a", "1"))
        subscription = live(publisher, where=is_low)
        for value in ("6", "7", "2"):
            commit(store, ("a", value))
        assert kinds(taken(subscription)) == ["5:a=2"]


async def test_a_delete_is_for_those_who_had_the_row() -> None:
    """D19: by the first previous; what the row was in between does not matter."""
    async with by_row(index=1) as (store, publisher):
        commit(store, ("had", "1"), ("not", "6"))
        subscription = live(publisher, where=is_low)
        commit(store, ("had", "7"), ("not", "2"))
        commit(store, ("had", None), ("not", None))
        payloads = [payload for each in taken(subscription) for payload in each.payloads]
        assert payloads == [Health("had", None)]


async def test_what_is_ready_alone_is_what_others_get() -> None:
    """One delivery that is for the reader is not conflated, however many are hidden before it."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, SubscribeRequest(HEALTH, "a"), where=is_low)
        commit(store, ("a", "1"))
        (received,) = taken(subscription)
        assert not received.is_conflated
        assert kinds([received]) == ["2:a=1"]


async def test_without_previous_the_newest_of_a_row_counts() -> None:
    """Where the publisher does not say what an event replaces, there is no withdrawal, as without conflation."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, authorizer=frozenset({"a=1", "a=2", "b=1"}))
        for value in ("1", "2", "1"):
            store.commit(("a", value))
            store.commit(("b", "2"))
        (received,) = taken(subscription)
        assert received.payloads == (Health("a", "1"),)


async def test_a_filter_alone_is_asked_about_what_an_authorizer_lets_through() -> None:
    """D19: for what comes first of a row and for what comes last."""
    asked: list[Health] = []

    def where(payload: Health) -> bool:
        asked.append(payload)
        return is_low(payload)

    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, authorizer=frozenset("a"), where=where)
        for key in "abab":
            commit(store, (key, f"{store.index}"))
        assert kinds(taken(subscription)) == ["5:a=3"]
        assert {payload.key for payload in asked} == {"a"}


async def test_who_may_see_everything_need_not_be_asked_for_a_withdrawal() -> None:
    """Without rights no payload is asked anything but its row."""

    class Silent(Health):
        @override
        def withdrawn(self) -> Self:
            raise AssertionError("asked")

    async with by_row(index=1) as (_, publisher):
        subscription = live(publisher)
        before = None
        for index in (2, 3, 4):
            payload = Silent("a", f"{index}")
            publisher.publish([Event(HEALTH, index, payload, previous=before)])
            before = payload
        assert kinds(taken(subscription)) == ["4:a=4"]


@pytest.mark.parametrize("last", [None, "9"], ids=["delete", "hidden"])
async def test_the_first_previous_that_is_known_counts(last: str | None) -> None:
    """C2, D19: a publisher may not know what an update replaces, and still what is deleted: no stale row."""
    async with by_row(index=1) as (store, publisher):
        store.commit(("a", "1"))
        slow = live(publisher, where=is_low)
        quick = publisher.subscribe(EVERY.after(publisher.cursor), where=is_low)
        store.commit(("a", "2"))
        commit(store, ("a", last))
        for each in (slow, quick):
            assert [payload for received in taken(each) for payload in received.payloads][-1].value is None


async def test_what_is_counted_is_counted_once_although_it_raised() -> None:
    """D12: a call that raises has changed nothing."""
    is_broken = True

    def where(payload: Health) -> bool:
        if payload.key == "z" and is_broken:
            raise LookupError("who is that?")
        return is_low(payload)

    async with by_row(index=1) as (store, publisher):
        commit(store, ("a", "1"), ("b", "9"))
        subscription = live(publisher, where=where)
        commit(store, ("a", "8"))
        commit(store, ("b", "8"))
        commit(store, ("z", "1"))
        for _ in range(3):
            with pytest.raises(LookupError):
                await subscription.receive()
        is_broken = False
        (received,) = taken(subscription)
        assert {payload.key: payload.value for payload in received.payloads} == {"a": None, "z": "1"}
        figures = subscription.statistics()
        assert (figures.hidden, figures.withdrawn, figures.delivered) == (1, 1, 1)


@pytest.mark.parametrize(
    ("style", "is_shown"),
    [("receive_nowait", True), ("receive_nowait", False), ("receive_batch", True), ("horizon", False)],
)
async def test_one_call_asks_about_a_bounded_number_of_events(style: str, is_shown: bool) -> None:
    """D15: about 4,096, whatever comes of them."""
    asked = 0

    def where(payload: Health) -> bool:
        nonlocal asked
        asked += 1
        return is_shown

    async with by_row(index=1, history=30_000) as (_, publisher):
        subscription = live(publisher, where=where)
        for number in range(20_000):
            publisher.publish([event(number + 2, f"k{number}")])
        match style:
            case "receive_nowait":
                with nullcontext() if is_shown else pytest.raises(WouldBlock):
                    subscription.receive_nowait()
            case "receive_batch":
                await subscription.receive_batch()
            case _:
                assert subscription.horizon
        assert 0 < asked <= 4_096 + 256


class Follower:
    """Two readers of the same rights: one takes each commit as it comes, the other conflates now and then."""

    def __init__(
        self, publisher: EventPublisher, request: SubscribeRequest[Health], rights: dict[str, Any]
    ) -> None:
        start = request.after(publisher.cursor)
        self.quick: Subscription[Health] = publisher.subscribe(start, **rights)
        self.slow: Subscription[Health] = publisher.subscribe(
            start,
            on_lag="conflate",
            **rights,
        )
        self.rows_of_quick: State = {}
        self.rows_of_slow: State = {}
        self.compared = 0

    def keep_up(self) -> None:
        for received in taken(self.quick):
            assert not received.is_new_snapshot_to_follow
            apply(self.rows_of_quick, received)

    def catch_up(self) -> None:
        for received in taken(self.slow):
            assert not received.is_new_snapshot_to_follow
            subjects = [payload.subject for payload in received.payloads]
            indexes = [each.index for each in received.events]
            if received.is_conflated:
                assert len(set(subjects)) == len(subjects)
                assert indexes == sorted(indexes)
                assert received.index >= indexes[-1]
            apply(self.rows_of_slow, received)
            self.compared += 1
        assert self.rows_of_slow == self.rows_of_quick
        assert self.slow.horizon == self.quick.horizon


RIGHTS: dict[str, dict[str, Any]] = {
    "none": {},
    "authorizer": {
        "authorizer": frozenset({"a", *(f"{key}={value}" for key in "bcd" for value in range(5))})
    },
    "where": {"where": is_low},
    "both": {"authorizer": frozenset("abc"), "where": is_low},
}


@pytest.mark.parametrize("kind", RIGHTS)
@pytest.mark.parametrize("seed", range(20))
async def test_who_conflates_has_the_state_of_who_does_not(seed: int, kind: str) -> None:
    """C2, D1, D19: whatever the rights are, whatever is changed, whenever it reads."""
    random = Random(seed)
    rights = RIGHTS[kind]
    async with by_row(index=1) as (store, publisher):
        followers = [Follower(publisher, EVERY, rights) for _ in range(2)]
        followers.append(
            Follower(publisher, SubscribeRequest(HEALTH, "a") | SubscribeRequest(HEALTH, "b"), rights)
        )
        for _ in range(60):
            changes: dict[str, str | None] = {}
            for _ in range(random.choice([1, 1, 2, 3])):
                key = random.choice("abcd")
                gone = random.random() < 0.2 and f"{key}" in {
                    subject.key for subject in store.state_at(store.index, EVERY)
                }
                changes[key] = None if gone else str(random.randrange(9))
            commit(store, *changes.items())
            for each in followers:
                each.keep_up()
                if random.random() < 0.2:
                    each.catch_up()
        for each in followers:
            each.keep_up()
            each.catch_up()
            assert each.compared


@pytest.mark.parametrize("style", ["receive", "receive_batch", "receive_nowait", "receive_until_current"])
async def test_a_filter_that_closes_its_reader_has_nothing_returned(style: str) -> None:
    """D9: not even what it was asked about before."""

    def where(payload: Health) -> bool:
        if payload.value == "close":
            subscription.close()
        return True

    async with by_row(index=1) as (_, publisher):
        subscription = live(publisher, where=where)
        publisher.publish([event(2, "a", "1")])
        publisher.publish([event(3, "b", "close")])
        with pytest.raises(ClosedResourceError):
            await call(subscription, style)
        assert publisher.statistics().subscriptions == 0


@pytest.mark.parametrize("style", ["receive", "receive_batch", "receive_nowait", "receive_until_current"])
async def test_a_filter_that_is_asked_may_look_at_its_reader_and_not_receive(style: str) -> None:
    """D3: what is looked at now would come twice, or never."""
    horizons: list[int] = []

    def where(payload: Health) -> bool:
        if not horizons:
            horizons.append(subscription.horizon)
            with pytest.raises(BusyResourceError):
                subscription.receive_nowait()
        return payload.key != "a"

    async with by_row(index=1) as (_, publisher):
        subscription = live(publisher, where=where)
        for number, key in enumerate("abc", 2):
            publisher.publish([event(number, key, "1")])
        received = await call(subscription, style)
        assert kinds(each for whole in received for each in whole.events) == ["3:b=1", "4:c=1"]
        assert horizons == [1]
        assert taken(subscription) == []


async def call(subscription: Subscription[Health], style: str) -> Sequence[Event[Health]]:
    match style:
        case "receive":
            return [await subscription.receive()]
        case "receive_batch":
            return await subscription.receive_batch()
        case "receive_until_current":
            return await subscription.receive_until_current()
        case _:
            return [subscription.receive_nowait()]


async def test_more_events_than_one_call_looks_at_are_several_deliveries() -> None:
    """D15: at most 4,096 events in one; each stands for all up to its index."""
    async with by_row(index=1, history=10_000) as (_, publisher):
        subscription = live(publisher, authorizer=frozenset({"a", "b"}))
        for number in range(9_000):
            publisher.publish([event(number + 2, "ab"[number % 2], f"{number}")])
        state: State = {}
        deliveries = 0
        before = 1
        while subscription.index < publisher.index:
            received = await subscription.receive()
            deliveries += 1
            assert received.index - before <= 4_096
            before = received.index
            apply(state, received)
            assert {subject.key: value for subject, value in state.items()} == {
                "ab"[number % 2]: f"{number}" for number in (received.index - 3, received.index - 2)
            }
        assert deliveries >= 3


async def test_who_has_rights_and_was_passed_by_the_history_starts_again() -> None:
    """C2: what is kept by row does not know what the reader had; only the history does."""
    async with by_row(index=1, history=4) as (store, publisher):
        for key in "ab":
            store.commit((key, "1"))
        subscription = live(publisher, where=is_low)
        for number in range(9):
            commit(store, ("a", f"{number}"))
        got = [*await settled(subscription), *await settled(subscription)]
        assert got == ["marker", "3:b=1", "eos@12"]


async def test_in_a_snapshot_rights_are_as_always() -> None:
    """D5."""
    async with by_row() as (store, publisher):
        commit(store, ("a", "1"), ("b", "7"))
        subscription = publisher.subscribe(EVERY, on_lag="conflate", where=is_low)
        assert kinds(await until_live(subscription)) == ["1:a=1", "eos@1"]
        for value in ("8", "9"):
            commit(store, ("a", value), ("b", "2"))
        (received,) = taken(subscription)
        assert {payload.key: payload.value for payload in received.payloads} == {"a": None, "b": "2"}


async def test_a_union_with_rights_is_folded_from_its_own_events() -> None:
    """D22, C2."""
    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, BOTH, where=is_low)
        for number in range(8):
            commit(store, ("a", f"{number}"), ("b", f"{7 - number}"))
        rows = fold({}, taken(subscription))
        assert rows == {name: value for name, value in rows_at(store, 9, BOTH).items() if int(value) < 5}


@pytest.mark.parametrize("who", ["authorizer", "where", "withdrawn"])
async def test_what_raises_when_asked_is_raised_before_anything_is_taken(who: str) -> None:
    """D12, D19: and again; nobody else is concerned."""
    is_broken = True

    class Broken(Health):
        @override
        def has_read_permission(self, authorizer: frozenset[str], /) -> bool:
            self.fail("authorizer")
            return super().has_read_permission(authorizer)

        @override
        def withdrawn(self) -> Self:
            self.fail("withdrawn")
            return cast("Self", super().withdrawn())

        def fail(self, place: str) -> None:
            if is_broken and place == who:
                raise LookupError("who is that?")

    def where(payload: Health) -> bool:
        if isinstance(payload, Broken):
            payload.fail("where")
        return is_low(payload)

    async with by_row(index=1) as (store, publisher):
        subscription = live(publisher, authorizer=frozenset("ab"), where=where)
        beside = live(publisher)
        store.commit(("a", "1"))
        publisher.publish([Event(HEALTH, 3, Broken("b", "1"), previous=Broken("b", "0"))])
        publisher.publish([event(4, "a", "2")])
        for _ in range(2):
            with pytest.raises(LookupError, match="who is that"):
                while True:
                    received = await subscription.receive()
                    assert received.index < 3
            assert subscription.horizon < 3
        assert kinds(taken(beside)) == ["4:b=1+a=2"]
        is_broken = False
        state: State = {}
        for received in taken(subscription):
            apply(state, received)
        assert {subject.key: value for subject, value in state.items()}["b"] == "1"
        assert subscription.horizon == 4


class Owned(Payload):
    """What says that it is gone says whose it was."""

    def __init__(self, value: str | None, owner: str) -> None:
        self.value, self.owner = value, owner

    subject = "a"

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Owned) and (self.value, self.owner) == (other.value, other.owner)

    __hash__ = None  # type: ignore[assignment]

    @override
    def has_read_permission(self, authorizer: str, /) -> bool:
        return self.owner == authorizer

    @override
    def withdrawn(self) -> "Owned":
        return Owned(None, self.owner)


@pytest.mark.parametrize("on_lag", ["close", "conflate"])
async def test_the_delete_of_what_was_never_shown_is_not_shown_either(on_lag: Any) -> None:
    """D19: the reader learns that its own row is gone, and nothing of the one that came after."""
    mine, theirs = Owned("1", "me"), Owned("2", "boss")
    async with by_row(lambda _: "a", index=1) as (_, publisher):
        subscription = publisher.subscribe(EVERY.after(publisher.cursor), authorizer="me", on_lag=on_lag)
        publisher.publish([Event(HEALTH, 2, mine)])
        taken(subscription)
        publisher.publish([Event(HEALTH, 3, theirs, previous=mine)])
        publisher.publish([Event(HEALTH, 4, theirs.withdrawn(), previous=theirs)])
        got = [each.payload for received in taken(subscription) for each in received.events]
        assert got == [mine.withdrawn()]
