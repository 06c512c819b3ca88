"""D19: whoever had what was replaced, and may not have what replaces it, gets the withdrawal in its place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import anyio
import anyio.lowlevel
import pytest
from catalogue import HEALTH, JOBS, Health, kinds, ready, until_live
from conflated import by_row
from replaced import Asked, Replacing, change, changes, replacing
from scenes import quiet, settled
from typing_extensions import override
from unions import BOTH, Rows, both, fold, rows_at, shown

from trio_stream import (
    ALL,
    BusyResourceError,
    Cursor,
    Event,
    EventPublisher,
    Payload,
    PayloadEvents,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    Topic,
    close_subscription_event,
    open_publisher,
)

pytestmark = pytest.mark.anyio

WEB = SubscribeRequest(HEALTH, "web")
EVERY = SubscribeRequest(HEALTH)
W = SubscribeRequest(HEALTH, "w", prefix=True)
REQUESTS = {
    "a key": WEB,
    "every key": EVERY,
    "a prefix": W,
    "every namespace": SubscribeRequest(HEALTH, namespace=ALL),
    "a union": BOTH,
}
of_requests = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)

Means = Literal["authorizer", "where", "both"]
of_means = pytest.mark.parametrize("means", ["authorizer", "where", "both"])

# What is what: a value that has an "r" may be read, and one that has a "w" is let through.
VALUES = ("rw", "r", "w", "-")
SHOWN: dict[Means, tuple[str, ...]] = {"authorizer": ("rw", "r"), "where": ("rw", "w"), "both": ("rw",)}

# {(what was there, what is there now): what the reader gets}; None is nothing, and a delete is "delete".
TABLE = {
    (None, "shown"): "new",
    (None, "hidden"): None,
    ("shown", "shown"): "new",
    ("shown", "hidden"): "withdrawal",
    ("shown", "delete"): "delete",
    ("hidden", "shown"): "new",
    ("hidden", "hidden"): None,
    ("hidden", "delete"): None,
}


def rights(means: Means, asked: Asked | None = None) -> dict[str, Any]:
    """For `subscribe`."""
    asked = asked or Asked()
    given = {"authorizer": asked, "where": asked.where}
    return {name: given[name] for name in given if means in (name, "both")}


def live(
    publisher: EventPublisher, request: SubscribeRequest[Health] = EVERY, **options: Any
) -> Subscription[Health]:
    """A reader that has everything up to now, without a snapshot; the publisher's index is above 0."""
    return publisher.subscribe(request.after(publisher.cursor), **options)


def expected(means: Means, index: int, old: str | None, new: str | None, key: str = "web") -> list[str]:
    """What comes of one change, by the table."""
    was = None if old is None else "shown" if old in SHOWN[means] else "hidden"
    is_now = "delete" if new is None else "shown" if new in SHOWN[means] else "hidden"
    match TABLE[was, is_now]:
        case None:
            return []
        case "new":
            return [f"{index}:{key}={new}"]
        case _:
            return [f"{index}:{key}=None"]


CASES = [
    *product((None, *VALUES), VALUES),
    *product(VALUES, [None]),
]


@dataclass(frozen=True)
class Unsaid(Payload):
    """Inherits `withdrawn`."""

    value: int
    subject: str = "web"

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return True


async def test_a_payload_that_does_not_say_what_it_is_when_it_is_withdrawn_is_an_error() -> None:
    """D19: for readers with rights; others never ask."""
    topic = Topic[Unsaid]("unsaid")
    async with open_publisher({topic: Replacing().snapshot}, index=1) as publisher:
        request = SubscribeRequest(topic, index=1)
        plain, careful = publisher.subscribe(request), publisher.subscribe(request, where=lambda _: True)
        publisher.publish([Event(topic, 2, Unsaid(2), previous=Unsaid(1))])
        assert (await plain.receive()).payload == Unsaid(2)
        for _ in range(2):
            with pytest.raises(NotImplementedError, match="Unsaid"):
                await careful.receive()


@pytest.mark.parametrize("on_lag", ["close", "conflate"])
async def test_of_a_key_that_comes_again_the_delete_before_was_nothing(
    on_lag: Literal["close", "conflate"],
) -> None:
    """D19: nobody is asked who may see a `previous` that says itself that something is gone."""
    asked = Asked()
    gone = Health("web", None)
    async with by_row(index=1) as (_, publisher):
        reader = live(publisher, WEB, on_lag=on_lag, **rights("both", asked))
        publisher.publish([Event(HEALTH, 2, Health("web", "-"), previous=gone)])
        publisher.publish([Event(HEALTH, 3, gone, previous=gone)])
        publisher.publish([Event(HEALTH, 4, Health("db", "rw"))])
        assert kinds(ready(reader)) == []
        assert reader.horizon == 4
        publisher.publish([Event(HEALTH, 5, Health("web", "rw"), previous=gone)])
        assert kinds(ready(reader)) == ["5:web=rw"]
    assert not any("None" in each for each in asked.log), asked.log


@of_means
@of_requests
async def test_each_change_is_new_a_withdrawal_or_nothing(
    request_: SubscribeRequest[Health], means: Means
) -> None:
    """D19: for a reader that is live, one that comes back, and one that finds all of it in the history."""
    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, request_, **rights(means))
        everything: list[str] = []
        for index, (old, new) in enumerate(CASES, 2):
            back = live(publisher, request_, **rights(means))
            publisher.publish([change(index, old, new)])
            due = expected(means, index, old, new)
            everything += due
            assert kinds(ready(reader)) == due, (old, new)
            assert reader.horizon == index
            assert await settled(back) == due, (old, new)
            back.close()
        late = publisher.subscribe(request_.after(Cursor(1, publisher.epoch)), **rights(means))
        await quiet()
        assert kinds(await late.receive_batch()) == everything


@of_means
@pytest.mark.parametrize("request_", [EVERY, W, BOTH], ids=["every key", "a prefix", "a union"])
async def test_of_a_batch_each_change_is_treated_by_itself(
    request_: SubscribeRequest[Health], means: Means
) -> None:
    """D4, D19: in order, and as a batch also if it is one."""
    async with replacing(index=1) as (_, publisher):
        index = 1
        for first, second in product(CASES, CASES[::3]):
            index += 1
            reader = live(publisher, request_, **rights(means))
            publisher.publish(changes((HEALTH, "web", *first), (HEALTH, "we", *second), index=index))
            due = [*expected(means, index, *first), *expected(means, index, *second, key="we")]
            received = await settled(reader)
            assert received == (
                [f"{index}:" + "+".join(each.partition(":")[2] for each in due)] if due else []
            )
            reader.close()


@of_requests
async def test_without_rights_everything_comes_and_no_payload_is_asked(
    request_: SubscribeRequest[Health],
) -> None:
    class Unasked(Health):
        @override
        def withdrawn(self) -> Any:
            raise AssertionError

        @override
        def has_read_permission(self, authorizer: object, /) -> bool:
            raise AssertionError

    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, request_)
        publisher.publish([Event(HEALTH, 2, Unasked("web", "new"), previous=Unasked("web", "old"))])
        publisher.publish([change(3, "new", None)])
        assert kinds(ready(reader)) == ["2:web=new", "3:web=None"]


async def test_a_withdrawal_has_the_topic_index_and_mark_of_what_it_stands_for() -> None:
    """D7: its reader can go on behind it."""
    async with replacing(index=1, mark="a1", epoch="e") as (_, publisher):
        reader = live(publisher, BOTH, **rights("where"))
        publisher.publish(changes((JOBS, "web", "w", "-"), index=2), mark="a2")
        publisher.publish(changes((HEALTH, "a", "w", "-"), (JOBS, "b", "w", "-"), index=3), mark="a3")
        single, batch = ready(reader)
        assert (single.topic, single.index, single.mark, single.payload) == (
            JOBS,
            2,
            "a2",
            Health("web", None),
        )
        assert (batch.index, batch.mark) == (3, "a3")
        assert shown([batch]) == ["3:health/a=None+jobs/b=None"]
        assert [each.mark for each in batch.events] == ["a3", "a3"]
        assert reader.cursor == Cursor(3, "e", "a3")


async def test_what_nothing_is_taken_from_is_shared_and_the_rest_is_not() -> None:
    """D10: of two readers with the same rights, and of one without."""
    async with replacing(index=1) as (_, publisher):
        plain = live(publisher)
        first, second = (live(publisher, **rights("both")) for _ in range(2))
        publisher.publish(changes((HEALTH, "a", "-", "rw"), (HEALTH, "b", None, "rw"), index=2))
        publisher.publish(changes((HEALTH, "a", "rw", None), (HEALTH, "b", "rw", "rw"), index=3))
        publisher.publish(changes((HEALTH, "b", "rw", "-"), index=4))
        shared = ready(plain)
        for mine, its, others in zip(ready(first), ready(second), shared, strict=True):
            assert (mine is others) == (mine.index < 4)
            assert mine is its
        assert kinds(shared) == ["2:a=rw+b=rw", "3:a=None+b=rw", "4:b=-"]


async def test_of_a_batch_one_event_is_still_a_batch() -> None:
    """D4."""
    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, **rights("where"))
        publisher.publish(changes((HEALTH, "a", "w", "-"), (HEALTH, "b", "-", "-"), index=2))
        publisher.publish([change(3, "w", "-")])
        several, one = ready(reader)
        assert isinstance(several.payload, PayloadEvents)
        assert (len(several.events), several.payloads) == (1, (Health("a", None),))
        assert not isinstance(one.payload, PayloadEvents)


@pytest.mark.parametrize(
    ("values", "comes"),
    [
        (["w", "-", "w2"], ["web=None", "web=w2"]),
        (["-", "w", "-"], ["web=w", "web=None"]),
        (["w", "-", "-"], ["web=None"]),
        (["w", "-", None], ["web=None"]),
        (["-", "w", None], ["web=w", "web=None"]),
        (["w", None, "-"], ["web=None"]),
        (["w", None, "w2"], ["web=None", "web=w2"]),
        (["-", None, "-"], []),
        ([None, "w", "-"], ["web=w", "web=None"]),
        ([None, "-", "w"], ["web=w"]),
    ],
)
@of_requests
async def test_two_changes_of_one_row_in_one_commit_follow_one_another(
    request_: SubscribeRequest[Health], values: list[str | None], comes: list[str]
) -> None:
    """D4, D19: what the second one replaces is the first one."""
    async with replacing(index=1) as (store, publisher):
        if values[0] is not None:
            store.commit(("web", values[0]))
        reader = live(publisher, request_, **rights("where"))
        index = store.commit(("web", values[1]), ("web", values[2]))
        assert await settled(reader) == ([f"{index}:" + "+".join(comes)] if comes else [])


async def test_a_delete_of_what_is_not_known_to_have_been_there_is_asked_about_itself() -> None:
    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, where=lambda payload: payload.value is None)
        publisher.publish([change(2, None, None)])
        assert kinds(ready(reader)) == ["2:web=None"]


async def test_a_payload_may_say_itself_what_is_a_delete() -> None:
    """Whatever is equal to what `withdrawn` gives."""

    class Tombstone(Health):
        @override
        def withdrawn(self) -> Any:
            return Health(self.key, "gone")

    async with replacing(index=1) as (_, publisher):
        reader = live(publisher, where=lambda payload: payload.value == "here")
        publisher.publish([Event(HEALTH, 2, Health("web", "gone"), previous=Tombstone("web", "here"))])
        publisher.publish([Event(HEALTH, 3, Health("web", "gone"), previous=Tombstone("web", "hidden"))])
        publisher.publish([Event(HEALTH, 4, Health("web", "other"), previous=Tombstone("web", "here"))])
        received = ready(reader)
        assert kinds(received) == ["2:web=gone", "4:web=gone"]


# Who is asked what, and when:


@pytest.mark.parametrize(
    ("old", "new", "log"),
    [
        ("rw", "rw2", ["read rw2", "where rw2"]),
        ("rw", "-", ["read -", "read rw", "where rw"]),
        ("rw", "w", ["read w", "read rw", "where rw"]),
        ("rw", "r", ["read r", "where r", "read rw", "where rw"]),
        ("w", "r", ["read r", "where r", "read w"]),
        ("w", "-", ["read -", "read w"]),
        ("r", "w", ["read w", "read r", "where r"]),
        (None, "-", ["read -"]),
        (None, "r", ["read r", "where r"]),
        ("rw", None, ["read rw", "where rw"]),
        ("w", None, ["read w"]),
        ("r", None, ["read r", "where r"]),
    ],
)
async def test_a_filter_is_asked_about_what_may_be_read_only(
    old: str | None, new: str | None, log: list[str]
) -> None:
    """D19: the authorizer first, of old and new alike; a delete and a withdrawal are asked about by nobody."""
    async with replacing(index=1) as (_, publisher):
        asked = Asked()
        single, batched = (live(publisher, request, **rights("both", asked)) for request in (WEB, EVERY))
        publisher.publish([change(2, old, new)])
        ready(single)
        assert asked.log == log
        asked.log.clear()
        ready(batched)
        assert asked.log == log


@pytest.mark.parametrize("call", ["receive", "receive_batch", "receive_until_current"])
async def test_a_filter_is_asked_once_about_what_comes(call: str) -> None:
    async with replacing(index=1) as (_, publisher):
        asked = Asked()
        reader = live(publisher, **rights("where", asked))
        publisher.publish(changes((HEALTH, "a", "-", "w"), (HEALTH, "b", "w", "-"), index=2))
        await getattr(reader, call)()
        assert asked.log == ["where w", "where -", "where w"]


# Snapshots:


@of_requests
@of_means
async def test_what_is_hidden_behind_a_snapshot_is_withdrawn(
    request_: SubscribeRequest[Health], means: Means
) -> None:
    """D1, D19: in the snapshot its reader has seen it."""
    async with replacing() as (store, publisher):
        store.commit(("web", "rw"), ("we", "-"))
        reader = publisher.subscribe(request_, **rights(means))
        await until_live(reader)
        store.commit(("web", "-"), ("we", "-"))
        assert kinds([await reader.receive()]) == ["2:web=None"]
        store.commit(("we", "rw"))
        if request_ is not WEB:
            assert kinds([await reader.receive()]) == ["3:we=rw"]


async def test_readers_of_one_snapshot_get_what_their_own_rights_are() -> None:
    """D14, D19: a cached one, with changes behind it that hide some of it again."""
    async with replacing(snapshot_cache_ttl=3600) as (store, publisher):
        store.commit(("web", "rw"), ("we", "r"), ("db", "w"))
        await until_live(publisher.subscribe(EVERY))
        store.commit(("web", "w"))
        store.commit(("we", "w"))
        store.commit(("db", "r"))
        due: dict[Means, list[str]] = {
            "authorizer": ["1:web=rw", "1:we=r", "eos@1", "2:web=None", "3:we=None", "4:db=r"],
            "where": ["1:web=rw", "1:db=w", "eos@1", "2:web=w", "3:we=w", "4:db=None"],
            "both": ["1:web=rw", "eos@1", "2:web=None"],
        }
        for means, comes in due.items():
            reader = publisher.subscribe(EVERY, **rights(means))
            assert kinds(await reader.receive_until_current()) == comes
        assert store.runs == 1


@of_requests
async def test_a_snapshot_function_may_append_changes_that_say_what_they_replace(
    request_: SubscribeRequest[Health],
) -> None:
    """D19: as a log would have them."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot.append([change(1, None, "w"), change(1, None, "-", key="we")])
        await snapshot.append([change(2, "w", "-")])
        await snapshot.append([change(3, "-", "w"), change(3, "-", None, key="we")])
        await snapshot.append([change(4, "w", "-")])
        return 4

    async with replacing(handler, index=4) as (_, publisher):
        reader = publisher.subscribe(request_, **rights("where"))
        received = await until_live(reader)
        assert kinds(received) == ["1:web=w", "2:web=None", "3:web=w", "4:web=None", "eos@4"]


def restricted(rows: Rows, means: Means) -> Rows:
    return {row: value for row, value in rows.items() if value in SHOWN[means]}


@of_means
async def test_what_changes_while_a_union_is_composed_is_right_in_its_state(means: Means) -> None:
    """D19, D22: the part that is whole goes on with changes, and these say what they replace too."""
    go = anyio.Event()

    async def slow(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await go.wait()
        return await store.snapshot(request, snapshot)

    async with replacing(slow) as (store, publisher):
        both(store, *[(JOBS, f"{old}-{new}", old) for old, new in CASES if old is not None])
        reader, plain = publisher.subscribe(BOTH, **rights(means)), publisher.subscribe(BOTH)
        await quiet()
        early = ready(reader)
        assert fold({}, early) == restricted(rows_at(store, 1, BOTH), means)
        for old, new in CASES:
            both(store, (HEALTH, f"{old}-{new}", new or "rw"), (JOBS, f"{old}-{new}", new))
        late = publisher.subscribe(BOTH, **rights(means))
        go.set()
        state = early + await until_live(reader)
        assert reader.index == store.index
        assert fold({}, state) == restricted(rows_at(store, store.index, BOTH), means)
        assert fold({}, await until_live(late)) == fold({}, state)
        assert fold({}, await until_live(plain)) == rows_at(store, store.index, BOTH)


@of_means
async def test_what_brings_a_part_to_the_index_of_another_is_right_in_its_state(means: Means) -> None:
    """D19, D22: one part is of a commit that is published later; the other one gets what is up to there."""

    async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        return 2

    async with replacing(ahead) as (store, publisher):
        both(store, *[(JOBS, f"{old}-{new}", old) for old, new in CASES if old is not None])
        reader = publisher.subscribe(BOTH, **rights(means))
        await quiet()
        early = ready(reader)
        assert not any(each.is_end_of_snapshot for each in early)
        both(store, *[(JOBS, f"{old}-{new}", new) for old, new in CASES])
        state = fold({}, early + await until_live(reader))
        assert reader.index == 2
        assert state == restricted(rows_at(store, 2, BOTH), means)


@of_means
@pytest.mark.parametrize("held", [0, 1])
async def test_where_the_parts_of_a_union_overlap_a_row_that_became_hidden_is_gone(
    means: Means, held: int
) -> None:
    """D19, D22: whichever part is the last to say what it has of the row."""
    request = SubscribeRequest(HEALTH, "web", namespace=ALL) | EVERY
    go = anyio.Event()

    async def slow(part: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        if part.interests == request.interests[held : held + 1]:
            await go.wait()
        return await store.snapshot(part, snapshot)

    async with replacing(slow) as (store, publisher):
        for old, new in CASES:
            await anyio.lowlevel.checkpoint()
            go = anyio.Event()
            publisher.refresh(HEALTH)
            if old is None:
                store.commit(("web", None))
            else:
                store.commit(("web", old))
            reader = publisher.subscribe(request, **rights(means))
            await quiet()
            early = ready(reader)
            store.commit(("web", new))
            await quiet()
            go.set()
            state = fold({}, early + await until_live(reader))
            assert state == restricted(rows_at(store, reader.index, request), means), (old, new)


# What is asked may fail, or do something else:


class Promise:
    """What an async function returns, without the warning that nobody awaits it."""

    def __await__(self) -> Any:
        raise AssertionError


@dataclass(frozen=True)
class Asking(Health):
    """Its authorizer is a function of its value."""

    @override
    def has_read_permission(self, authorizer: Any, /) -> Any:
        return authorizer(self.value)

    @override
    def withdrawn(self) -> Any:
        return Asking(self.key, None)


@dataclass(frozen=True)
class Ending(Asking):
    """Does something when it is asked for its withdrawal."""

    end: Callable[[], None] = field(default=lambda: None, compare=False)

    @override
    def withdrawn(self) -> Any:
        self.end()
        return super().withdrawn()


@dataclass(frozen=True)
class Failing(Asking):
    """Its withdrawal fails as long as `how` says so."""

    how: list[str] = field(default_factory=list, compare=False)

    @override
    def withdrawn(self) -> Any:
        if self.how == ["raises"]:
            raise ZeroDivisionError
        return Promise() if self.how == ["async"] else Asking(self.key, None)


async def received(reader: Subscription[Health], call: str) -> list[Event[Health]]:
    """What one such call returns."""
    match call:
        case "receive":
            return [await reader.receive()]
        case "receive_batch":
            return list(await reader.receive_batch())
        case "anext":
            return [await anext(reader)]
        case "receive_until_current":
            return list(await reader.receive_until_current())
        case _:
            return [reader.receive_nowait()]


@pytest.mark.parametrize("call", ["receive", "receive_batch", "anext", "receive_until_current", "nowait"])
@pytest.mark.parametrize("how", ["raises", "async"])
@pytest.mark.parametrize("what", ["authorizer", "where", "withdrawn"])
@pytest.mark.parametrize("several", [False, True])
async def test_what_fails_is_raised_to_the_call_that_stands_before_it_and_loses_nothing(
    call: str, how: str, what: str, several: bool
) -> None:
    """D12, D19, D10: it is not consumed, and nobody else is concerned."""
    failing = [how]

    def answer(value: str) -> Any:
        if failing and value == "old" and what != "withdrawn":
            if how == "raises":
                raise ZeroDivisionError
            return Promise()
        return value in ("old", "good")

    async with replacing(index=1) as (_, publisher):
        given: dict[str, Any] = {"where": lambda payload: answer(payload.value)}
        if what == "authorizer":
            given = {"authorizer": answer}
        reader, plain = live(publisher, **given), live(publisher)
        publisher.publish([Event(HEALTH, 2, Asking("web", "good"))])
        old = Failing("web", "old", how=failing if what == "withdrawn" else [])
        commit = [Event(HEALTH, 3, Asking("web", "new"), previous=old)]
        if several:
            commit = [Event(HEALTH, 3, Asking("a", "good")), *commit, Event(HEALTH, 3, Asking("b", "good"))]
        publisher.publish(commit)
        got = [] if call == "receive_until_current" else kinds(await received(reader, call))
        for _ in range(2):
            with pytest.raises(ZeroDivisionError if how == "raises" else TypeError):
                await received(reader, call)
            assert reader.state is SubscriptionState.LIVE
            at = {reader.index, reader.horizon, reader.cursor.index, reader.resume_request().index}
            assert at == {1 + len(got)}
        assert len(ready(plain)) == 2
        failing.clear()
        got += kinds(await received(reader, call))
        due = "3:a=good+web=None+b=good" if several else "3:web=None"
        assert got == ["2:web=good", due]


@pytest.mark.parametrize("call", ["receive", "receive_batch", "nowait"])
@pytest.mark.parametrize("by", ["authorizer", "where", "withdrawn"])
@pytest.mark.parametrize("how", ["unsubscribe", "close_subscriptions", "a close event", "refresh"])
async def test_who_ends_the_subscription_while_it_is_asked_is_obeyed(call: str, by: str, how: str) -> None:
    """D9: this very call returns no event, also not those before it."""

    def end() -> None:
        match how:
            case "unsubscribe":
                reader.unsubscribe()
            case "close_subscriptions":
                assert publisher.close_subscriptions(["t"]) == 1
            case "a close event":
                publisher.publish([close_subscription_event(["t"])])
            case _:
                publisher.refresh()

    def answer(value: str | None) -> bool:
        if value == "old" and by != "withdrawn":
            end()
        return value != "new"

    async with replacing(index=1) as (_, publisher):
        given: dict[str, Any] = {"where": lambda p: answer(p.value)}
        if by == "authorizer":
            given = {"authorizer": answer}
        request = SubscribeRequest(HEALTH, token="t")
        reader = live(publisher, request, **given)
        old = Ending("web", "old", end=end) if by == "withdrawn" else Asking("web", "old")
        publisher.publish([Event(HEALTH, 2, Asking("a", "good"))])
        publisher.publish(
            [Event(HEALTH, 3, Asking("web", "new"), previous=old), Event(HEALTH, 3, Asking("b", "good"))]
        )
        got: list[Event[Health]] = []
        with pytest.raises(anyio.ClosedResourceError if how == "unsubscribe" else SubscriptionForceClosed):
            for _ in range(2):
                got += await received(reader, call)
        assert kinds(got) == ([] if call == "receive_batch" else ["2:a=good"])
        assert publisher.statistics().subscriptions == publisher.statistics().tokens == 0


@pytest.mark.parametrize("by", ["authorizer", "where", "withdrawn"])
@pytest.mark.parametrize("request_", [EVERY, W, BOTH], ids=["every key", "a prefix", "a union"])
async def test_who_is_asked_may_publish_and_nothing_of_the_commit_is_lost(
    request_: SubscribeRequest[Health], by: str
) -> None:
    """D4, D6, D19: the history drops the commit meanwhile, and what its events replace with it."""
    has_published = False

    def publish() -> None:
        nonlocal has_published
        if not has_published:
            has_published = True
            publisher.publish([Event(HEALTH, 3, Asking("web", "later"))])

    def answer(value: str | None) -> bool:
        if by != "withdrawn":
            publish()
        return value != "new"

    async with replacing(index=1, history=1) as (_, publisher):
        given: dict[str, Any] = {"where": lambda p: answer(p.value)}
        if by == "authorizer":
            given = {"authorizer": answer}
        reader = live(publisher, request_, **given)
        one = Ending("we", "old", end=publish) if by == "withdrawn" else Asking("we", "old")
        publisher.publish(
            [
                Event(HEALTH, 2, Asking("we", "new"), previous=one),
                Event(HEALTH, 2, Asking("web", "new"), previous=Asking("web", "old")),
                Event(HEALTH, 2, Asking("wex", None), previous=Asking("wex", "new")),
            ]
        )
        assert await settled(reader) == ["2:we=None+web=None", "3:web=later"]


@pytest.mark.parametrize("by", ["authorizer", "where", "row"])
async def test_who_is_asked_for_a_conflated_delivery_may_publish_too(by: str) -> None:
    """C2, D19: what the first event of a row replaced is known before anybody is asked."""
    is_asked = False

    def publish() -> None:
        if is_asked and publisher.index < 5:
            for index in (5, 6):
                publisher.publish([Event(HEALTH, index, Asking("web", "later"))])

    def answer(value: str | None) -> bool:
        if by != "row":
            publish()
        return value != "new"

    def row(payload: Health) -> str:
        if by == "row":
            publish()
        return payload.key

    async with by_row(row, index=1, history=3) as (_, publisher):
        given: dict[str, Any] = {"where": lambda payload: answer(payload.value)}
        if by == "authorizer":
            given = {"authorizer": answer}
        reader = live(publisher, on_lag="conflate", **given)
        for index, key in [(2, "a"), (3, "b"), (4, "c")]:
            publisher.publish([Event(HEALTH, index, Asking(key, "new"), previous=Asking(key, "old"))])
        is_asked = True
        (received,) = [reader.receive_nowait()]
        assert kinds([received]) == ["4:a=None+b=None+c=None"]
        assert received.is_conflated
        assert kinds(ready(reader)) == ["6:web=later"]


async def test_who_is_asked_cannot_receive() -> None:
    """D18: the event is between its place and its reader."""
    async with replacing(index=1) as (_, publisher):

        def where(payload: Health) -> bool:
            with pytest.raises(BusyResourceError):
                reader.receive_nowait()
            return payload.value != "-"

        reader = live(publisher, where=where)
        publisher.publish([change(2, "w", "-")])
        assert kinds(ready(reader)) == ["2:web=None"]


@pytest.mark.parametrize("several", [False, True])
async def test_hidden_and_withdrawn_events_are_counted(several: bool) -> None:
    """Those of a batch one by one; an open subscription's too, and once."""
    async with replacing(index=1) as (_, publisher):
        reader, plain = live(publisher, **rights("where")), live(publisher)
        rows = [("a", "w", "-"), ("b", "-", "r"), ("c", "-", "w"), ("d", "w", None), ("e", "-", None)]
        events = [(HEALTH, *row) for row in rows]
        if several:
            publisher.publish(changes(*events, index=2))
        else:
            for number, each in enumerate(events):
                publisher.publish(changes(each, index=2 + number))
        assert len(ready(plain)) == (1 if several else 5)
        assert len(ready(reader)) == (1 if several else 3)
        for _ in range(2):
            figures = publisher.statistics()
            assert (figures.hidden, figures.withdrawn) == (2, 1)
            assert (reader.statistics().hidden, reader.statistics().withdrawn) == (2, 1)
            assert (plain.statistics().hidden, plain.statistics().withdrawn) == (0, 0)
            reader.close()
