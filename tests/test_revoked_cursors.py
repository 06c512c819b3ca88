"""D20: a cursor is good only under the rights that it was reached with."""

import gc
import weakref
from collections.abc import Callable
from typing import TypeAlias

import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready, until_live
from logged import Logged, logged
from marked import EPOCH, marked
from scenes import opened, settled
from stretches import stretches
from unions import BOTH, WORK

from trio_stream import (
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio

EVERYTHING = SubscribeRequest(HEALTH).interests

MOST_REVOKED = 65_536
Revoke: TypeAlias = Callable[[EventPublisher, list[str]], object]


def request(token: str, index: int, epoch: str | None = "e") -> SubscribeRequest[Health]:
    return SubscribeRequest(HEALTH, "web", token=token, index=index, epoch=epoch)


def begins(publisher: EventPublisher, asked: SubscribeRequest[Health]) -> str:
    """How a resume begins: "stale", by the marker, or its state."""
    reader = publisher.subscribe(asked)
    try:
        is_stale = any(received.is_new_snapshot_to_follow for received in ready(reader)[:1])
        return "stale" if is_stale else reader.state.value
    finally:
        reader.close()


def is_stale(publisher: EventPublisher, token: str, index: int, epoch: str | None = "e") -> bool:
    began = begins(publisher, request(token, index, epoch))
    assert began in ("stale", "live")
    return began == "stale"


# All leave the publisher at 5, and revoke at 5.


def by_call(publisher: EventPublisher, tokens: list[str]) -> None:
    publisher.publish([event(5, "web")])
    publisher.close_subscriptions(tokens)


def by_event_alone(publisher: EventPublisher, tokens: list[str]) -> None:
    publisher.publish([event(5, "web")])
    publisher.publish([close_subscription_event(tokens)])


def by_event_in_a_commit(publisher: EventPublisher, tokens: list[str]) -> None:
    publisher.publish([event(5, "web"), close_subscription_event(tokens)])


def by_event_in_a_commit_about_nothing(publisher: EventPublisher, tokens: list[str]) -> None:
    publisher.publish([close_subscription_event(tokens)], index=5)


def by_events_of_a_commit(publisher: EventPublisher, tokens: list[str]) -> None:
    """One for each token, in front of the rest and behind it."""
    closing = [close_subscription_event([token]) for token in tokens]
    publisher.publish([*closing[1:], event(5, "web"), event(5, "db"), *closing[:1]])


REVOKE: list[Revoke] = [
    by_call,
    by_event_alone,
    by_event_in_a_commit,
    by_event_in_a_commit_about_nothing,
    by_events_of_a_commit,
]
each_way = pytest.mark.parametrize("revoke", REVOKE, ids=lambda revoke: revoke.__name__)


@each_way
@pytest.mark.parametrize("epoch", ["e", None])
@pytest.mark.parametrize("is_used", [False, True])
async def test_a_cursor_up_to_the_revocation_is_stale_for_that_token_alone(
    revoke: Revoke, epoch: str | None, is_used: bool
) -> None:
    """At the very index too: nobody knows on which side of it the cursor was reached."""
    async with opened(index=1, epoch="e") as (_, publisher):
        for index in (2, 3, 4):
            publisher.publish([event(index, "web")])
        used = [publisher.subscribe(request(token, 4)) for token in ("t", "u")] if is_used else []
        revoke(publisher, ["t", "u", "t"])
        for each in used:
            with pytest.raises(SubscriptionForceClosed):
                each.receive_nowait()
        for index in (6, 7):
            publisher.publish([event(index, "web")])
        for token, stale in [("t", [1, 2, 3, 4, 5]), ("u", [1, 2, 3, 4, 5]), ("v", []), ("", [])]:
            found = [index for index in range(1, 8) if is_stale(publisher, token, index, epoch)]
            assert found == stale, token


async def test_the_empty_token_is_one_like_any_other() -> None:
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions([""])
        assert is_stale(publisher, "", 5)
        assert not is_stale(publisher, "t", 5)


@each_way
async def test_what_is_stale_begins_with_the_marker_and_a_new_snapshot(revoke: Revoke) -> None:
    """D5, D21: with reset, when that is whole."""
    async with opened(epoch="e") as (store, publisher):
        for value in "1234":
            store.commit(("web", value))
        store.publisher = None
        store.commit(("web", "ok"))
        revoke(publisher, ["t"])
        close, reset = (publisher.subscribe(request("t", 5), on_lag=on_lag) for on_lag in ("close", "reset"))
        assert kinds(ready(close)) == ["marker"]
        assert ready(reset) == []
        assert await settled(close) == ["5:web=ok", "eos@5"]
        assert await settled(reset) == ["marker", "5:web=ok", "eos@5"]
        assert publisher.statistics().opened["stale"] == 2


async def test_a_fresh_start_needs_no_cursor_and_reaches_a_new_one() -> None:
    """D7, D9: who was revoked comes back with the rights of now, and resumes with them."""
    async with opened(epoch="e") as (store, publisher):
        store.commit(("web", "a"))
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
        await until_live(reader)
        old = reader.resume_request()
        publisher.close_subscriptions(["t"])
        again = publisher.subscribe(reader.resume_request())
        assert kinds(await until_live(again)) == ["1:web=a", "eos@1"]
        # Its cursor is at the index of the revocation, of which nobody knows that it came after it.
        assert again.resume_request() == old
        assert begins(publisher, old) == "stale"
        store.commit(("db", "b"))
        assert again.resume_request().index == 2
        assert begins(publisher, again.resume_request()) == "live"


async def test_a_token_may_be_revoked_again_and_the_newest_time_counts() -> None:
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["t"])
        publisher.publish([event(6, "web")])
        publisher.publish([event(7, "web"), close_subscription_event(["t"])])
        publisher.publish([event(8, "web")])
        assert [is_stale(publisher, "t", index) for index in (5, 6, 7, 8)] == [True, True, True, False]


@pytest.mark.parametrize(
    "commit",
    [
        [event(5, "web")],
        [event(6, "web"), event(7, "web")],
        [event(6, "web"), Event(HEALTH, 6, object())],
    ],
)
async def test_a_commit_that_is_refused_revokes_nothing(commit: list[Event[object]]) -> None:
    """D18."""
    async with opened(index=5, epoch="e") as (_, publisher):
        reader = publisher.subscribe(request("t", 5))
        with pytest.raises(InvalidCommitError):
            publisher.publish([close_subscription_event(["t"]), *commit])
        assert reader.state is SubscriptionState.LIVE
        assert not is_stale(publisher, "t", 5)


async def test_what_is_no_token_is_refused_and_revokes_nothing() -> None:
    """D18."""
    async with opened(index=5, epoch="e") as (_, publisher):
        for tokens in ("t", ["t", 7]):
            with pytest.raises(TypeError):
                publisher.close_subscriptions(tokens)  # type: ignore[arg-type]
        assert not is_stale(publisher, "t", 5)


async def test_other_topics_and_unions_go_by_the_same_token() -> None:
    """D22: a revocation is of a token, whatever it was used for."""
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["t"])
        publisher.publish([event(6, "a", topic=JOBS)])
        for asked in (BOTH, WORK, SubscribeRequest(HEALTH, "w", prefix=True)):
            for token, index, began in [("t", 5, "stale"), ("t", 6, "live"), ("u", 5, "live")]:
                again = SubscribeRequest(interests=asked.interests, token=token, index=index, epoch="e")
                assert begins(publisher, again) == began


async def test_an_index_that_is_not_published_yet_was_not_reached_before() -> None:
    """D7: without a mark it waits there, as ever."""
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["t"])
        ahead = publisher.subscribe(request("t", 7))
        assert ahead.state is SubscriptionState.LIVE
        for index in (6, 7, 8):
            publisher.publish([event(index, "web")])
        assert kinds(ready(ahead)) == ["8:web=ok"]
        assert begins(publisher, request("t", 9, None)) == "stale"  # nobody can know whose it is


@each_way
async def test_a_cursor_of_a_snapshot_that_was_ahead_is_stale_too(revoke: Revoke) -> None:
    """D2: the store had committed what was published later, and the reader had it before its rights were taken."""

    async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return 7

    async with opened(ahead, index=4, epoch="e") as (_, publisher):
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
        await until_live(reader)
        cursor = reader.resume_request()
        assert cursor.index == 7
        revoke(publisher, ["t"])
        assert begins(publisher, cursor) == "stale"
        for index in (6, 7, 8):
            publisher.publish([event(index, "db")])
        assert [is_stale(publisher, "t", index) for index in (6, 7, 8)] == [True, True, False]
        assert not is_stale(publisher, "u", 7)


async def test_with_the_right_mark_a_cursor_is_stale_too() -> None:
    """D24: that it is of this copy says nothing about its rights."""
    async with marked() as (store, publisher):
        for value in "12345":
            store.commit(("web", value))
        publisher.close_subscriptions(["t"])
        store.commit(("web", "6"))
        for token, index, began in [("t", 5, "stale"), ("t", 6, "live"), ("u", 5, "live"), ("t", 1, "stale")]:
            asked = SubscribeRequest(HEALTH, "web", token=token).after(store.cursor(index))
            assert begins(publisher, asked) == began


async def test_a_cursor_that_is_judged_later_is_judged_by_its_index_too() -> None:
    """D7, D24: one ahead of the newest was not reached before the revocation; the one at it was."""
    async with marked() as (store, publisher):
        for value in "12345":
            store.commit(("web", value))
        publisher.close_subscriptions(["t"])
        ahead = SubscribeRequest(HEALTH, "web", token="t", index=6, epoch=EPOCH, mark="a6")
        waits = publisher.subscribe(ahead)
        assert waits.state is SubscriptionState.RESUMING
        publisher.publish([close_subscription_event(["t"])])
        with pytest.raises(SubscriptionForceClosed) as closed:
            waits.receive_nowait()
        assert closed.value.reason is CloseReason.TOKEN
        waits = publisher.subscribe(ahead)
        store.commit(("web", "6"))
        store.commit(("web", "7"))
        assert kinds(ready(waits)) == ["7:web=7"]
        publisher.publish([close_subscription_event(["t"])])
        assert begins(publisher, ahead) == "stale"


async def test_a_revocation_in_the_commit_that_a_cursor_waits_for_ends_it() -> None:
    """D9, D20: and the cursor is at the very index."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        ahead = SubscribeRequest(HEALTH, "web", token="t", index=2, epoch=EPOCH, mark="a2")
        waits = publisher.subscribe(ahead)
        publisher.publish([close_subscription_event(["t"]), event(2, "web")], mark="a2")
        with pytest.raises(SubscriptionForceClosed):
            waits.receive_nowait()
        assert begins(publisher, ahead) == "stale"


async def test_what_is_stale_for_its_token_is_not_replayed() -> None:
    """D7: however far back the store's log reaches."""
    store = Logged()
    store.fill(8)
    async with logged(store) as (_, publisher):
        publisher.close_subscriptions(["t"])
        store.fill(8)
        for token, index, began in [
            ("t", 3, "stale"),
            ("t", 8, "stale"),
            ("u", 3, "resuming"),
            ("t", 9, "resuming"),
        ]:
            reader = publisher.subscribe(SubscribeRequest(HEALTH, token=token, index=index, epoch=EPOCH))
            assert reader.state.value == ("snapshot" if began == "stale" else "resuming")
            received = await reader.receive()
            assert received.is_new_snapshot_to_follow == (began == "stale")
            reader.close()
        assert store.asked == [3, 9]


async def test_a_new_epoch_forgets_who_was_revoked_in_the_old_one() -> None:
    """Its cursors are others, and those of the old one are stale anyway."""
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["t"])
        publisher.refresh(index=3, epoch="f")
        assert is_stale(publisher, "t", 5)
        assert not is_stale(publisher, "t", 3, "f")
        publisher.publish([event(4, "web")])
        publisher.close_subscriptions(["u"])
        publisher.publish([event(5, "web")])
        assert [is_stale(publisher, "t", index, "f") for index in (3, 4, 5)] == [False] * 3
        assert [is_stale(publisher, "u", index, "f") for index in (3, 4, 5)] == [True, True, False]


async def test_a_new_epoch_forgets_the_floor_too() -> None:
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(f"{number}" for number in range(MOST_REVOKED + 1))
        assert is_stale(publisher, "t", 5)
        publisher.refresh(index=3, epoch="f")
        assert not is_stale(publisher, "t", 3, "f")


@pytest.mark.parametrize("how", ["the same epoch", "its topic", "another topic"])
async def test_a_refresh_that_goes_on_with_the_epoch_remembers(how: str) -> None:
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["t"])
        match how:
            case "the same epoch":
                publisher.refresh(index=5, epoch="e")
            case "its topic":
                publisher.refresh(HEALTH)
            case _:
                publisher.refresh(JOBS)
        # A topic that was refreshed has no cursor up to now that is good.
        floor = 6 if how == "its topic" else 5
        publisher.publish([event(6, "web")])
        assert is_stale(publisher, "t", 5)
        assert is_stale(publisher, "u", 5) == (floor == 6)
        assert not is_stale(publisher, "t", 6)


# How many are remembered:


def revoke_many(publisher: EventPublisher, count: int, name: str = "x") -> None:
    publisher.close_subscriptions(f"{name}{number}" for number in range(count))


async def test_the_newest_tokens_are_remembered_and_a_floor_of_the_others() -> None:
    """D11: one that is forgotten takes everybody's cursor along that is not newer."""
    async with opened(index=3, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["oldest"])
        publisher.publish([event(4, "web")])
        publisher.close_subscriptions(["second"])
        publisher.publish([event(5, "web")])
        revoke_many(publisher, MOST_REVOKED - 2)
        publisher.publish([event(6, "web")])

        def stale() -> dict[str, list[int]]:
            """Of each token, the indexes at which a cursor of it is no good."""
            return {
                token: [index for index in range(3, 7) if is_stale(publisher, token, index)]
                for token in ("oldest", "second", "x0", "other")
            }

        full = {"oldest": [3], "second": [3, 4], "x0": [3, 4, 5], "other": []}
        assert stale() == full
        publisher.close_subscriptions(["x0", "oldest", "second", "x1"][:1])
        assert stale() == {**full, "x0": [3, 4, 5, 6]}  # one that is remembered takes no more room
        publisher.close_subscriptions(["one more"])
        assert stale() == {**full, "x0": [3, 4, 5, 6], "other": [3]}
        publisher.close_subscriptions(["another"])
        assert stale() == {
            "oldest": [3, 4],
            "second": [3, 4],
            "x0": [3, 4, 5, 6],
            "other": [3, 4],
        }


async def test_what_is_revoked_again_is_the_last_to_be_forgotten() -> None:
    """D11: the floor rises to what was really forgotten."""
    async with opened(index=3, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["oldest"])
        publisher.publish([event(4, "web")])
        revoke_many(publisher, MOST_REVOKED - 1)
        publisher.publish([event(5, "web")])
        publisher.close_subscriptions(["oldest"])
        publisher.close_subscriptions(["one more"])
        publisher.publish([event(6, "web")])
        assert [is_stale(publisher, "other", index) for index in (4, 5)] == [True, False]
        assert [is_stale(publisher, "oldest", index) for index in (5, 6)] == [True, False]


async def test_the_floor_is_not_raised_by_what_is_revoked_again() -> None:
    """The same few tokens may be revoked for ever."""
    async with opened(index=5, epoch="e") as (_, publisher):
        revoke_many(publisher, MOST_REVOKED)
        for _ in range(3):
            publisher.publish([event(publisher.next_index, "web")])
            revoke_many(publisher, 1_000)
        assert not is_stale(publisher, "other", 5)
        assert is_stale(publisher, "x0", publisher.index)
        assert not is_stale(publisher, "x1000", 6)


@pytest.mark.parametrize("more", [0, 1, 1_000])
async def test_as_many_may_be_revoked_by_one_call(more: int) -> None:
    """Those that are too many for it raise the floor to its own index."""
    async with opened(index=5, epoch="e") as (_, publisher):
        revoke_many(publisher, MOST_REVOKED + more)
        publisher.publish([event(6, "web")])
        assert is_stale(publisher, "x0", 5)
        assert is_stale(publisher, f"x{MOST_REVOKED + more - 1}", 5)
        assert is_stale(publisher, "other", 5) == (more > 0)
        assert not is_stale(publisher, "x0", 6)
        assert not is_stale(publisher, "other", 6)


async def test_the_floor_never_falls() -> None:
    async with opened(index=5, epoch="e") as (_, publisher):
        revoke_many(publisher, MOST_REVOKED + 1)
        publisher.publish([event(6, "web")])
        publisher.close_subscriptions(["t"])
        revoke_many(publisher, 10)
        publisher.publish([event(7, "web")])
        assert [is_stale(publisher, "other", index) for index in (5, 6, 7)] == [True, False, False]
        assert [is_stale(publisher, "t", index) for index in (5, 6, 7)] == [True, True, False]


class Token(str):
    """Can be referred to weakly."""

    __slots__ = ("__weakref__",)


async def test_tokens_are_not_kept() -> None:
    """D13: what is remembered of a secret does not tell it, and is small."""
    async with opened(index=5, epoch="e") as (_, publisher):
        token = Token("a secret")
        reference = weakref.ref(token)
        publisher.close_subscriptions([token])
        del token
        gc.collect()
        assert reference() is None
        assert is_stale(publisher, "a secret", 5)


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.parametrize("by_event", [False, True])
async def test_to_revoke_ten_thousand_tokens_that_nobody_uses_costs_next_to_nothing(by_event: bool) -> None:
    """D15: in one stretch no call of the library for each of them, and none is left for later."""
    async with opened(index=5, epoch="e") as (_, publisher):
        revoke_many(publisher, MOST_REVOKED, "before")
        readers = [publisher.subscribe(request(f"r{number}", 5)) for number in range(20)]
        tokens = [f"x{number}" for number in range(10_000)]
        with stretches() as seen:
            if by_event:
                publisher.publish([close_subscription_event(tokens)])
            else:
                assert publisher.close_subscriptions(tokens) == 0
        assert 0 < seen.calls < 100
        assert all(each.state is SubscriptionState.LIVE for each in readers)


async def test_what_is_remembered_is_told_nowhere() -> None:
    """Neither by the publisher nor by its figures."""
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["a secret"])
        assert publisher.statistics().tokens == 0
        assert "secret" not in f"{publisher!r} {publisher.statistics()!r}"


async def test_while_somebody_still_reads_a_stopped_publisher_revokes() -> None:
    """D5, D9: there is nobody left whom it could refuse a resume."""
    reader: Subscription[Health] | None = None
    async with opened(index=5, epoch="e") as (_, publisher):
        reader = publisher.subscribe(request("t", 5))
        publisher.publish([event(6, "web")])
    assert publisher.close_subscriptions(["t"]) == 1
    with pytest.raises(SubscriptionForceClosed) as closed:
        reader.receive_nowait()
    assert closed.value.reason is CloseReason.TOKEN


async def test_a_cursor_as_one_value_is_no_better() -> None:
    """As text that went over a wire."""
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.close_subscriptions(["t"])
        asked = SubscribeRequest(HEALTH, "web", token="t")
        assert begins(publisher, asked.after(Cursor.parse("5@e"))) == "stale"
        assert begins(publisher, asked.after(Cursor.parse("6@e"))) == "live"


@pytest.mark.parametrize("by", ["call", "event", "commit"])
@pytest.mark.parametrize("replayed", [False, True], ids=["snapshot", "replay"])
async def test_a_cursor_that_was_ahead_of_the_publisher_when_its_token_was_revoked_is_stale(
    by: str, replayed: bool
) -> None:
    """D20: it was reached under the old rights, although its index is greater than that of the revocation."""
    store = Logged(size=20)
    store.fill(9)
    async with logged(store) as (_, publisher):
        store.publisher = None
        store.fill(5)
        asked = request("t", 2 if replayed else 0)
        reader = publisher.subscribe(SubscribeRequest(interests=EVERYTHING, token="t", index=asked.index))
        while reader.index < 14:
            await reader.receive()
        await settled(reader)
        cursor = reader.cursor
        assert cursor.index == 14
        reader.close()
        if by == "call":
            publisher.close_subscriptions(["t"])
        else:
            publisher.publish([close_subscription_event(["t"])], index=10 if by == "commit" else None)
        for token, began in [("t", "stale"), ("u", "live")]:
            again = SubscribeRequest(interests=EVERYTHING, token=token).after(cursor)
            assert begins(publisher, again) == began


async def test_a_cursor_that_a_client_has_made_up_makes_no_revocation_newer() -> None:
    """Whoever has it is ahead of everything, and a replay function may have nothing to say against it."""

    async def replay(_: SubscribeRequest[Health], cursor: Cursor, page: SnapshotAppender[Health]) -> Cursor:
        return cursor

    store = Logged(copy="a")
    store.fill(5)
    async with logged(store, replay=replay) as (_, publisher):
        made_up = SubscribeRequest(HEALTH, token="t").after(Cursor(1_000_000, EPOCH, "made up"))
        async with publisher.subscribe(made_up) as subscription:
            await settled(subscription)
            publisher.close_subscriptions(["t"])
        store.fill(2)
        later = SubscribeRequest(HEALTH, token="t").after(store.cursor(6))
        async with publisher.subscribe(later) as subscription:
            assert [received.index for received in ready(subscription)] == [7]
