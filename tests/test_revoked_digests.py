"""D9, D20: tokens that are known by their digests, and revocations from before a publisher."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready
from scenes import opened, quiet
from stretches import stretches
from typing_extensions import override

from trio_stream import (
    ClosedResourceError,
    CloseReason,
    EndOfSubject,
    EventPublisher,
    NoOpEventPublisher,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

MOST_REVOKED = 65_536


class Salted:
    """A function for `token_digest` whose salt may change."""

    def __init__(self, salt: bytes = b"salt") -> None:
        self.salt = salt

    def __call__(self, token: str) -> str:
        return blake2b(token.encode(), digest_size=16, key=self.salt).hexdigest()


digest = Salted()


def request(token: str, index: int, epoch: str | None = "e") -> SubscribeRequest[Health]:
    return SubscribeRequest(HEALTH, "web", token=token, index=index, epoch=epoch)


def is_stale(publisher: EventPublisher, token: str, index: int, epoch: str | None = "e") -> bool:
    reader = publisher.subscribe(request(token, index, epoch))
    is_marked = kinds(ready(reader))[:1] == ["marker"]
    reader.close()
    return is_marked


def stale(publisher: EventPublisher, token: str, indexes: range) -> list[int]:
    """At which of these indexes a cursor of the token is no good."""
    return [index for index in indexes if is_stale(publisher, token, index)]


async def is_closed(subscription: Subscription[Health]) -> bool:
    """Whether its token was revoked."""
    if subscription.state is not SubscriptionState.FORCE_CLOSED:
        return False
    with pytest.raises(SubscriptionForceClosed) as closed:
        await subscription.receive()
    return closed.value.reason is CloseReason.TOKEN


# Who is closed.


@pytest.mark.parametrize("by", ["a call", "an event", "an event of a commit"])
async def test_a_digest_closes_what_was_made_with_its_token(by: str) -> None:
    """D9: and a token closes nothing, unless it is the digest of another."""
    async with opened(index=1, epoch="e", token_digest=digest) as (_, publisher):
        mine, also_mine, other = (publisher.subscribe(request(token, 1)) for token in ("t", "t", "u"))
        named = publisher.subscribe(request(digest("t"), 1))
        assert publisher.close_subscriptions(["t", "u", digest("w")]) == 0
        match by:
            case "a call":
                assert publisher.close_subscriptions([digest("t"), digest("t")]) == 2
            case "an event":
                publisher.publish([close_subscription_event([digest("t")])])
            case _:
                publisher.publish([close_subscription_event([digest("t")]), event(2, "web")])
        assert [await is_closed(each) for each in (mine, also_mine, other, named)] == [
            True,
            True,
            False,
            False,
        ]
        assert publisher.statistics().tokens == publisher.statistics().subscriptions == 2


async def test_who_waits_is_closed_by_the_digest() -> None:
    """D9."""
    closed: list[CloseReason] = []

    async def wait(subscription: Subscription[Health]) -> None:
        with pytest.raises(SubscriptionForceClosed) as ended:
            await subscription.receive()
        closed.append(ended.value.reason)

    async with opened(index=1, epoch="e", token_digest=digest) as (_, publisher):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, publisher.subscribe(request("t", 1)))
            await quiet()
            publisher.close_subscriptions([digest("t")])
        assert closed == [CloseReason.TOKEN]


async def test_the_empty_token_has_a_digest_like_any_other() -> None:
    async with opened(index=1, epoch="e", token_digest=digest) as (_, publisher):
        reader = publisher.subscribe(request("", 1))
        assert publisher.close_subscriptions([""]) == 0
        assert publisher.close_subscriptions([digest("")]) == 1
        assert await is_closed(reader)


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_after_the_stop_a_digest_closes_who_still_reads() -> None:
    """D5, D9: those who leave before that are not there any more."""
    async with opened(index=1, epoch="e", token_digest=digest) as (_, publisher):
        readers = [publisher.subscribe(request("t", 1)) for _ in range(4)]
        publisher.publish([event(2, "web")])
    readers[0].unsubscribe()
    assert kinds([await readers[1].receive()]) == ["2:web=ok"]
    assert publisher.close_subscriptions([digest("t")]) == 3
    assert [await is_closed(each) for each in readers] == [False, True, True, True]
    assert publisher.statistics().tokens == publisher.statistics().subscriptions == 0


async def test_nothing_is_left_of_a_token_that_is_not_used_any_more() -> None:
    """D13: however its subscriptions end."""
    async with opened(index=1, epoch="e", token_digest=digest) as (_, publisher):
        for end in ("leave", "close", "finish", "refresh a topic"):
            reader = publisher.subscribe(SubscribeRequest(HEALTH, end, token=end, index=publisher.index))
            match end:
                case "leave":
                    reader.unsubscribe()
                case "close":
                    publisher.close_subscriptions([digest(end)])
                case "finish":
                    publisher.publish((), index=publisher.next_index, finish=[(HEALTH, end)])
                    with pytest.raises(EndOfSubject):
                        await reader.receive()
                case _:
                    publisher.refresh(HEALTH)
            await quiet()
            assert publisher.statistics().tokens == publisher.statistics().subscriptions == 0


# Cursors.


async def test_a_cursor_is_stale_under_the_token_of_a_digest_that_was_revoked() -> None:
    async with opened(index=1, epoch="e", token_digest=digest) as (_, publisher):
        publisher.publish([event(2, "web")])
        publisher.close_subscriptions([digest("t"), "u"])
        publisher.publish([event(3, "web")])
        found = {token: stale(publisher, token, range(1, 4)) for token in ("t", "u", digest("t"))}
        assert found == {"t": [1, 2], "u": [], digest("t"): []}


async def test_another_epoch_may_come_with_another_salt() -> None:
    """Whatever was made under the old one has ended, and ends by nothing else."""
    salted = Salted()
    async with opened(index=5, epoch="e", token_digest=salted) as (_, publisher):
        readers = [publisher.subscribe(request("t", 5)) for _ in range(100)]
        publisher.close_subscriptions([salted("v")])
        old = salted("t")
        salted.salt = b"another"
        publisher.refresh(index=3, epoch="f")
        publisher.remember_revocations({salted("u"): 3})
        again = publisher.subscribe(request("t", 3, "f"))
        for reader in readers:
            with pytest.raises(SubscriptionForceClosed) as closed:
                reader.receive_nowait()
            assert closed.value.reason is CloseReason.REFRESH
            reader.unsubscribe()
        await quiet()
        assert publisher.close_subscriptions([old]) == 0
        assert publisher.close_subscriptions([salted("t")]) == 1
        assert await is_closed(again)
        assert [is_stale(publisher, token, 3, "f") for token in ("t", "u", "v")] == [True, True, False]


# The function.


async def test_what_the_function_raises_is_raised_to_who_subscribes_and_nothing_is_left() -> None:
    """D18."""

    def broken(token: str) -> str:
        if token == "bad":
            raise UnicodeError("no text")
        return token

    async with opened(index=1, epoch="e", token_digest=broken) as (_, publisher):
        before = publisher.statistics()
        for index in (0, 1):
            with pytest.raises(UnicodeError):
                publisher.subscribe(SubscribeRequest(HEALTH, "web", token="bad", index=index))
        assert publisher.statistics() == before
        assert publisher.subscribe(request("t", 1)).state is SubscriptionState.LIVE


@pytest.mark.parametrize("given", [None, 7, b"digest"])
async def test_a_digest_is_a_string(given: Any) -> None:
    """D18."""
    async with opened(index=1, token_digest=lambda token: given) as (_, publisher):
        before = publisher.statistics()
        with pytest.raises(TypeError, match="string"):
            publisher.subscribe(SubscribeRequest(HEALTH, token="t"))
        assert publisher.statistics() == before


@pytest.mark.parametrize("given", ["sha256", 7, True])
async def test_what_is_no_function_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="token_digest"):
        EventPublisher(token_digest=given)
    with pytest.raises(TypeError, match="token_digest"):
        async with open_publisher(token_digest=given):
            pass


async def test_a_publisher_can_be_made_with_the_function_itself() -> None:
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1, epoch="e", token_digest=digest)
    reader = publisher.subscribe(request("t", 1))
    assert publisher.close_subscriptions([digest("t")]) == 1
    assert await is_closed(reader)


# Revocations from before.


@pytest.mark.parametrize("function", [None, digest], ids=["tokens", "digests"])
async def test_a_cursor_up_to_a_revocation_from_before_is_stale(function: Salted | None) -> None:
    """D20: at its very index too, for its token alone."""
    named = function or str
    async with opened(index=8, epoch="e", token_digest=function) as (_, publisher):
        publisher.remember_revocations({named("t"): 3, named("u"): 5, named("v"): 5, named("w"): 8})
        publisher.publish([event(9, "web")])
        # Below where it has begun, the publisher resumes nobody.
        found = {token: stale(publisher, token, range(8, 10)) for token in ("t", "u", "v", "w", "x")}
        assert found == {"t": [], "u": [], "v": [], "w": [8], "x": []}


@pytest.mark.parametrize("portions", [1, 2, 5])
async def test_revocations_from_before_come_in_portions(portions: int) -> None:
    revoked = {f"t{number}": 1 + number // 2 for number in range(10)}
    async with opened(index=0, epoch="e") as (store, publisher):
        for value in "12345":
            store.commit(("web", value))
        names = list(revoked)
        size = len(names) // portions
        for begin in range(0, len(names), size):
            publisher.remember_revocations({name: revoked[name] for name in names[begin : begin + size]})
        publisher.remember_revocations({})
        for name, index in revoked.items():
            assert stale(publisher, name, range(1, 6)) == list(range(1, index + 1))
        assert stale(publisher, "other", range(1, 6)) == []


async def test_a_floor_from_before_is_one_of_every_token_and_never_falls() -> None:
    async with opened(epoch="e") as (store, publisher):
        for value in "12345":
            store.commit(("web", value))
        publisher.remember_revocations({"t": 4}, floor=2)
        assert stale(publisher, "t", range(1, 6)) == [1, 2, 3, 4]
        assert stale(publisher, "other", range(1, 6)) == [1, 2]
        publisher.remember_revocations({}, floor=1)
        publisher.remember_revocations({"u": 4})
        assert stale(publisher, "other", range(1, 6)) == [1, 2]
        publisher.remember_revocations({}, floor=3)
        assert stale(publisher, "other", range(1, 6)) == [1, 2, 3]
        assert stale(publisher, "t", range(1, 6)) == [1, 2, 3, 4]
        publisher.remember_revocations({"v": 4}, floor=5)
        assert stale(publisher, "t", range(1, 6)) == stale(publisher, "other", range(1, 6)) == [1, 2, 3, 4, 5]


async def test_a_token_that_is_remembered_again_counts_with_the_newer_index() -> None:
    async with opened(epoch="e") as (store, publisher):
        for value in "12345":
            store.commit(("web", value))
        publisher.remember_revocations({"t": 1, "u": 2})
        publisher.remember_revocations({"t": 3})
        assert stale(publisher, "t", range(1, 6)) == [1, 2, 3]
        assert stale(publisher, "u", range(1, 6)) == [1, 2]


async def test_what_is_revoked_later_counts_as_ever() -> None:
    async with opened(index=4, epoch="e") as (_, publisher):
        publisher.remember_revocations({"t": 2, "u": 3})
        publisher.publish([event(5, "web")])
        publisher.close_subscriptions(["t"])
        publisher.publish([event(6, "web")])
        found = {token: stale(publisher, token, range(4, 7)) for token in ("t", "u", "v")}
        assert found == {"t": [4, 5], "u": [], "v": []}


async def test_a_store_may_have_revoked_what_is_published_later() -> None:
    """D20: what comes meanwhile takes none of that back."""
    async with opened(index=4, epoch="e") as (_, publisher):
        publisher.remember_revocations({"t": 6}, floor=0)
        publisher.publish([event(5, "web"), close_subscription_event(["t", "u"])])
        assert is_stale(publisher, "t", 6)
        publisher.publish([event(6, "web"), close_subscription_event(["t"])])
        publisher.publish([event(7, "web")])
        assert stale(publisher, "t", range(4, 8)) == [4, 5, 6]
        assert is_stale(publisher, "u", 5)
        assert not is_stale(publisher, "u", 7)
        assert stale(publisher, "v", range(4, 8)) == []


async def test_a_floor_above_what_is_published_is_not_lowered_by_tokens_that_are_too_many() -> None:
    async with opened(index=4, epoch="e") as (_, publisher):
        publisher.remember_revocations({}, floor=6)
        publisher.close_subscriptions(f"{number}" for number in range(MOST_REVOKED + 1))
        for index in (5, 6, 7):
            publisher.publish([event(index, "web")])
        assert stale(publisher, "other", range(4, 8)) == [4, 5, 6]


async def test_nobody_is_closed_by_what_is_remembered() -> None:
    async with opened(index=4, epoch="e") as (_, publisher):
        reader = publisher.subscribe(request("t", 4))
        publisher.remember_revocations({"t": 4}, floor=4)
        publisher.publish([event(5, "web")])
        assert kinds(ready(reader)) == ["5:web=ok"]


async def test_another_epoch_forgets_what_was_remembered() -> None:
    async with opened(index=5, epoch="e") as (_, publisher):
        publisher.remember_revocations({"t": 5}, floor=4)
        publisher.refresh(index=3, epoch="f")
        assert not is_stale(publisher, "t", 3, "f")
        publisher.remember_revocations({"t": 2})  # which is older than what is forgotten
        assert not is_stale(publisher, "t", 3, "f")


async def test_the_newest_from_before_are_remembered_and_a_floor_of_the_others() -> None:
    """D11: by one call, or by several."""
    for size in (MOST_REVOKED + 3, MOST_REVOKED, 40_000):
        async with opened(epoch="e") as (store, publisher):
            for value in "1234":
                store.commit(("web", value))
            revoked = dict.fromkeys(("a", "b"), 1) | {"c": 2}
            revoked |= {f"x{number}": 3 for number in range(MOST_REVOKED)}
            items = list(revoked.items())
            for begin in range(0, len(items), size):
                publisher.remember_revocations(dict(items[begin : begin + size]))
            found = {name: stale(publisher, name, range(1, 5)) for name in ("a", "other", "x0", "x65535")}
            assert found == {"a": [1, 2], "other": [1, 2], "x0": [1, 2, 3], "x65535": [1, 2, 3]}
            publisher.close_subscriptions(["one more"])
            assert stale(publisher, "other", range(1, 5)) == [1, 2, 3]
            assert stale(publisher, "one more", range(1, 5)) == [1, 2, 3, 4]


async def test_a_forgotten_one_does_not_lower_the_floor_that_was_given() -> None:
    async with opened(epoch="e") as (store, publisher):
        for value in "1234":
            store.commit(("web", value))
        publisher.remember_revocations({"a": 1, "b": 2}, floor=3)
        publisher.close_subscriptions(f"{number}" for number in range(MOST_REVOKED))
        assert stale(publisher, "other", range(1, 5)) == [1, 2, 3]


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
async def test_to_remember_ten_thousand_takes_no_step_for_each_of_them() -> None:
    """D15."""
    async with opened(index=5, epoch="e") as (_, publisher):
        revoked = {f"t{number}": 1 + number // 5_000 for number in range(10_000)}
        with stretches() as seen:
            publisher.remember_revocations(revoked)
        assert 0 < seen.calls < 100
        assert not is_stale(publisher, "t0", 5)


# What is refused.


class Broken(Mapping[str, int]):
    """Cannot be read to its end."""

    @override
    def __getitem__(self, key: str) -> int:
        raise OSError("disk")

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(["x", "y"])

    @override
    def __len__(self) -> int:
        return 2


WRONG: dict[str, tuple[object, object, type[Exception]]] = {
    "no mapping": ([("x", 3)], 3, TypeError),
    "a string": ("x", 3, TypeError),
    "None": (None, 3, TypeError),
    "no string": ({"x": 3, 7: 4}, 3, TypeError),
    "bytes": ({b"x": 3}, 3, TypeError),
    "no index": ({"x": 3, "y": "4"}, 3, TypeError),
    "no whole number": ({"x": 3.0}, 3, TypeError),
    "True": ({"x": 3, "y": True}, 3, TypeError),
    "below 0": ({"x": -1, "y": 4}, 3, ValueError),
    "not in order": ({"x": 4, "y": 3}, 3, ValueError),
    "older than what is known": ({"x": 2, "y": 4}, 3, ValueError),
    "a floor below 0": ({"x": 4}, -1, ValueError),
    "a floor that is no index": ({"x": 4}, "3", TypeError),
    "a floor of True": ({"x": 4}, True, TypeError),
    "what cannot be read": (Broken(), 3, OSError),
}


@pytest.mark.parametrize(("revoked", "floor", "error"), WRONG.values(), ids=WRONG)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    revoked: Any, floor: Any, error: type[Exception]
) -> None:
    """D18."""
    async with opened(epoch="e") as (store, publisher):
        for value in "12345":
            store.commit(("web", value))
        publisher.remember_revocations({"t": 3}, floor=1)
        with pytest.raises(error):
            publisher.remember_revocations(revoked, floor=floor)
        found = {token: stale(publisher, token, range(1, 6)) for token in ("t", "x", "y")}
        assert found == {"t": [1, 2, 3], "x": [1], "y": [1]}
        publisher.remember_revocations({"x": 3})
        assert stale(publisher, "x", range(1, 6)) == [1, 2, 3]


async def test_an_index_may_be_of_a_kind_of_its_own() -> None:
    """A store's indexes are."""

    class Index(int):
        pass

    async with opened(index=4, epoch="e") as (_, publisher):
        publisher.remember_revocations({"t": Index(4)}, floor=Index(2))
        assert is_stale(publisher, "t", 4)
        assert not is_stale(publisher, "u", 4)


async def test_another_thread_cannot_say_what_was_revoked() -> None:
    """D18."""
    async with opened(index=5, epoch="e") as (_, publisher):
        with pytest.raises(RuntimeError, match="thread"):
            await anyio.to_thread.run_sync(publisher.remember_revocations, {"t": 5})
        assert not is_stale(publisher, "t", 5)


async def test_after_the_stop_nothing_more_is_remembered() -> None:
    """D18: also while somebody still reads."""
    async with opened(index=1, epoch="e") as (_, publisher):
        reader = publisher.subscribe(SubscribeRequest(JOBS, index=1))
        publisher.publish([event(2, "a", topic=JOBS)])
    with pytest.raises(ClosedResourceError):
        publisher.remember_revocations({})
    assert kinds([await reader.receive()]) == ["2:a=ok"]


async def test_a_publisher_that_does_nothing_remembers_nothing() -> None:
    NoOpEventPublisher().remember_revocations({"t": 1}, floor=1)
