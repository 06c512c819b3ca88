"""What an event replaces is for the publisher only: it is checked when it is given, and nobody is handed it."""

import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType, FunctionType, ModuleType
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, ready
from replaced import change, changes, replacing
from scenes import opened, quiet, settled
from typing_extensions import override
from unions import BOTH

from trio_stream import (
    ALL,
    ClosedResourceError,
    Cursor,
    Event,
    EventPublisher,
    Framing,
    InvalidCommitError,
    Payload,
    PayloadEvents,
    SnapshotAppender,
    SnapshotFailed,
    Subject,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    Topic,
    UnknownTopicError,
    WouldBlock,
    close_subscription_event,
)

pytestmark = pytest.mark.anyio

SECRET = "what was there"
WEB = SubscribeRequest(HEALTH, "web")
REQUESTS = {
    "a key": WEB,
    "every key": SubscribeRequest(HEALTH),
    "a prefix": SubscribeRequest(HEALTH, "w", prefix=True),
    "every namespace": SubscribeRequest(HEALTH, namespace=ALL),
    "a union": BOTH,
}
of_requests = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)

Received: TypeAlias = list[Event[Health]]


# How a reader comes to what is ready:


async def by_receive(subscription: Subscription[Health], until: int) -> Received:
    got = [await subscription.receive()]
    while got[-1].index < until or got[-1].is_end_of_snapshot:
        got.append(await subscription.receive())
    return got


async def by_receive_nowait(subscription: Subscription[Health], until: int) -> Received:
    await quiet()
    return ready(subscription)


async def by_receive_batch(subscription: Subscription[Health], until: int) -> Received:
    await quiet()
    got = list(await subscription.receive_batch())
    while got[-1].index < until:
        got += await subscription.receive_batch()
    return got


async def by_async_for(subscription: Subscription[Health], until: int) -> Received:
    got: Received = []
    async for received in subscription:
        got.append(received)
        if received.index >= until and not received.is_end_of_snapshot:
            break
    return got


async def by_receive_until_current(subscription: Subscription[Health], until: int) -> Received:
    return list(await subscription.receive_until_current())


CALLS: list[Callable[[Subscription[Health], int], Awaitable[Received]]] = [
    by_receive,
    by_receive_nowait,
    by_receive_batch,
    by_async_for,
    by_receive_until_current,
]
of_calls = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)

_NO_DATA = (type, ModuleType, FunctionType, FrameType)


def reached(*roots: object) -> list[object]:
    """Everything that these refer to, and what that refers to."""
    found: dict[int, object] = {}
    more = list(roots)
    while more:
        each = more.pop()
        if id(each) not in found and not isinstance(each, _NO_DATA):
            found[id(each)] = each
            more += gc.get_referents(each)
    return list(found.values())


def assert_without_previous(received: Sequence[Event[Health]]) -> None:
    """Neither the events nor what they refer to have anything of it."""
    assert received
    for each in received:
        assert each.previous is None
        assert [single.previous for single in each.events] == [None] * len(each.events)
    texts = [each for each in reached(*received) if isinstance(each, str)]
    assert "web" in texts  # they were looked at
    assert SECRET not in texts


async def snapshot_of_changes(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
    """A snapshot function that says of each event what it replaced, one by one and together."""
    await snapshot.append([change(1, SECRET, "1")])
    await snapshot.append(
        changes(
            (HEALTH, "web", SECRET, "2"), (HEALTH, "web", "2", "3"), (HEALTH, "we", SECRET, None), index=1
        )
    )
    return 1


def publish_changes(publisher: EventPublisher, *indexes: int) -> None:
    """Commits of one event and of several, over one topic and two."""
    for index in indexes:
        match index % 3:
            case 0:
                publisher.publish([change(index, SECRET, f"{index}")])
            case 1:
                publisher.publish(
                    changes(
                        (HEALTH, "web", SECRET, f"{index}"), (HEALTH, "we", SECRET, f"{index}"), index=index
                    )
                )
            case _:
                publisher.publish(
                    changes((JOBS, "web", SECRET, f"{index}"), (HEALTH, "web", SECRET, None), index=index)
                )


def lets_most_through(payload: Health) -> bool:
    """Some of what comes is a withdrawal."""
    return payload.value != "4"


@of_calls
@of_requests
@pytest.mark.parametrize("where", [None, lets_most_through])
async def test_what_was_replaced_is_never_handed_out(
    call: Callable[[Subscription[Health], int], Awaitable[Received]],
    request_: SubscribeRequest[Health],
    where: Any,
) -> None:
    """D19: in no snapshot, batch or union, whichever way it is received; nor is a reference to it."""
    async with replacing(snapshot_of_changes, index=1) as (_, publisher):
        fresh = publisher.subscribe(request_, where=where)
        await quiet()
        publish_changes(publisher, 2, 3, 4, 5)
        assert_without_previous(await call(fresh, 5))
        # What is older than a wide feed is filled in from the histories.
        resumed = publisher.subscribe(request_.after(Cursor(2, publisher.epoch)), where=where)
        assert_without_previous(await call(resumed, 5))
        cached = publisher.subscribe(request_, where=where)
        assert_without_previous(await call(cached, 5))


async def test_what_was_replaced_is_not_in_the_snapshot_behind_a_marker() -> None:
    """D19, D21."""

    async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        await snapshot_of_changes(request, snapshot)
        return publisher.index

    async with replacing(handler, index=1, history=1) as (_, publisher):
        slow = publisher.subscribe(WEB.after(publisher.cursor), on_lag="reset", where=lets_most_through)
        publish_changes(publisher, 2, 3)
        with pytest.raises(WouldBlock):
            slow.receive_nowait()
        await quiet()
        publish_changes(publisher, 4)
        received = ready(slow)
        assert [each.index for each in received] == [0, 1, 1, 3, 4]
        assert_without_previous(received)


async def test_the_event_that_was_published_is_left_as_it_is() -> None:
    async with opened(index=1) as (_, publisher):
        published = change(2, SECRET, "new")
        reader = publisher.subscribe(WEB.after(publisher.cursor))
        publisher.publish([published])
        received = reader.receive_nowait()
        assert published.previous == Health("web", SECRET)
        assert received == published
        assert received.previous is None


def test_what_was_replaced_is_not_shown_or_compared() -> None:
    """So a test that compares what it received with what it published goes on to work."""
    one, other = change(2, SECRET, "new"), change(2, None, "new")
    assert (one, hash(one)) == (other, hash(other))
    assert SECRET not in repr(one)
    with pytest.raises(TypeError):
        Event(HEALTH, 2, Health("web"), Health("web", SECRET))  # type: ignore[call-arg]


class Old(Payload):
    """Can be referred to weakly."""

    subject = "web"

    @override
    def has_read_permission(self, authorizer: object, /) -> bool:
        return True

    @override
    def withdrawn(self) -> "Old":
        return self


def replacing_old(index: int) -> tuple[Event[Any], "weakref.ref[Old]"]:
    old = Old()
    return Event(HEALTH, index, Old(), previous=old), weakref.ref(old)


@pytest.mark.parametrize("how", ["dropped", "refresh a topic", "refresh", "stop"])
@pytest.mark.parametrize("several", [False, True])
async def test_what_was_replaced_is_forgotten_with_its_commit(how: str, several: bool) -> None:
    """D11: also while somebody who has not received the event stays."""
    references: list[weakref.ref[Old]] = []
    async with opened(index=1, history=1) as (_, publisher):
        readers = [
            publisher.subscribe(request.after(publisher.cursor), where=lambda _: True)
            for request in (WEB, SubscribeRequest(HEALTH, "w", prefix=True), BOTH)
        ]
        pairs = [replacing_old(2) for _ in range(1 + several)]
        references += [reference for _, reference in pairs]
        publisher.publish([each for each, _ in pairs])
        del pairs
        gc.collect()
        assert None not in [reference() for reference in references]
        match how:
            case "dropped":
                publisher.publish([event(3, "other")])
            case "refresh a topic":
                publisher.refresh(HEALTH)
            case "refresh":
                publisher.refresh()
        if how == "stop":
            for reader in readers:
                reader.close()
        await quiet()
        if how != "stop":
            gc.collect()
            assert [reference() for reference in references] == [None] * len(references)
    gc.collect()
    assert [reference() for reference in references] == [None] * len(references)


@pytest.mark.parametrize("request_", [WEB, BOTH], ids=["a key", "a union"])
async def test_what_was_replaced_in_a_snapshot_is_freed_with_it(request_: SubscribeRequest[Health]) -> None:
    """D11: when the history has passed it, although a reader that stalls inside it stays."""
    references: list[weakref.ref[Old]] = []

    async def handler(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        for _ in range(2):
            changed, reference = replacing_old(1)
            references.append(reference)
            await snapshot.append([changed])
        return 1

    async with replacing(handler, index=1, history=1) as (_, publisher):
        stalled = publisher.subscribe(request_, where=lambda _: True)
        await stalled.receive()
        gc.collect()
        assert None not in [reference() for reference in references]
        for index in (2, 3):
            publisher.publish([event(index, "web"), event(index, "web", topic=JOBS)])
        await quiet()
        gc.collect()
        assert [reference() for reference in references] == [None, None]
        with pytest.raises(SubscriptionLagged):
            stalled.receive_nowait()


@pytest.mark.parametrize("when", ["nobody reads it", "it was passed", "its function has returned"])
async def test_what_is_appended_too_late_is_not_remembered(when: str) -> None:
    """D11: by a function that does not let itself be cancelled, or has returned."""
    appenders: list[SnapshotAppender[Any]] = []
    go, has_ended = anyio.Event(), anyio.Event()

    async def handler(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        appenders.append(snapshot)
        if when == "its function has returned":
            return 1
        with anyio.CancelScope(shield=True):
            await go.wait()
            await snapshot.append([first[0]])
            has_ended.set()
        return 1

    changed, reference = replacing_old(1)
    first = [changed]
    del changed
    async with opened(handler, index=1, history=1, snapshot_cache_ttl=3600) as (_, publisher):
        reader = publisher.subscribe(WEB)
        await quiet()
        if when == "its function has returned":
            with pytest.raises(ClosedResourceError):
                await appenders[0].append([first[0]])
        else:
            if when == "nobody reads it":
                reader.close()
            else:
                publisher.refresh()
            go.set()
            await has_ended.wait()
        first.clear()
        gc.collect()
        assert reference() is None


# What cannot be a `previous`:


class Silent:
    """Has a subject, and does not say what it is when it is withdrawn."""

    subject = "web"


class Flagged(Silent):
    """What it has under the name is no method."""

    withdrawn = True


class Homeless:
    """Has no subject."""

    def withdrawn(self) -> "Homeless":
        return self


class Elsewhere(Homeless):
    """Is in another partition."""

    subject = Subject("web", partition="elsewhere")


class Lost(Homeless):
    """Its subject is none."""

    subject = 7


BAD = {
    "another key": Health("we"),
    "another namespace": Health("web", namespace="eu"),
    "another partition": Elsewhere(),
    "an event": event(1, "web"),
    "an event without a payload of its own": Event(HEALTH, 0, Framing.END_OF_SNAPSHOT),
    "framing": Framing.END_OF_SNAPSHOT,
    "a batch": PayloadEvents([event(1, "web")]),
    "no withdrawn": Silent(),
    "a withdrawn that is no method": Flagged(),
    "a type": Health,
    "no subject": Homeless(),
    "a subject that is none": Lost(),
    "a text": "web",
    "a number": 7,
    "False": False,
}
of_bad = pytest.mark.parametrize("bad", BAD.values(), ids=BAD)


def with_previous(index: int, previous: object) -> Event[Any]:
    return Event(HEALTH, index, Health("web", "new"), previous=previous)


@of_bad
@pytest.mark.parametrize("beside", ["alone", "in a batch", "beside a close event"])
async def test_what_cannot_have_been_replaced_is_refused_and_nothing_has_changed(
    bad: object, beside: str
) -> None:
    """D18, D19: neither for readers nor for the cursors that they go on with."""
    async with opened(index=1) as (_, publisher):
        readers = [
            publisher.subscribe(request.after(publisher.cursor), where=where)
            for request in (*REQUESTS.values(), SubscribeRequest(HEALTH, "web", token="t"))
            if request is not REQUESTS["every namespace"]
            for where in (None, lambda _: True)
        ]
        before = publisher.statistics()
        commit = [with_previous(2, bad)]
        if beside == "in a batch":
            commit = [change(2, "old", "new"), *commit, event(2, "we"), event(2, "x", topic=JOBS)]
        elif beside == "beside a close event":
            commit = [close_subscription_event(["t"]), *commit]
        with pytest.raises(InvalidCommitError) as refused:
            publisher.publish(commit)
        assert str(refused.value)
        assert publisher.statistics() == before
        again = SubscribeRequest(HEALTH, "web", token="t", index=1, epoch=publisher.epoch)
        readers.append(publisher.subscribe(again))
        assert [await settled(reader) for reader in readers] == [[]] * len(readers)
        publisher.publish([change(2, "old", "good")])
        assert [kinds(ready(reader)) for reader in readers] == [["2:web=good"]] * len(readers)


@of_bad
async def test_a_snapshot_refuses_it_too_and_only_those_who_wait_for_that_are_told(bad: object) -> None:
    """D18, D10: whatever the snapshot function makes of the error."""
    refused: list[InvalidCommitError] = []

    async def handler(request: SubscribeRequest[Any], snapshot: SnapshotAppender[Any]) -> int:
        if request.key != "other":
            try:
                await snapshot.append([change(1, "old", "good"), with_previous(1, bad)])
            except InvalidCommitError as error:
                refused.append(error)
                if not request.key:
                    raise
        await snapshot.append([event(1, request.key, "after")])
        return 1

    async with opened(handler, index=1) as (_, publisher):
        web = publisher.subscribe(WEB)
        every = publisher.subscribe(SubscribeRequest(HEALTH))
        other = publisher.subscribe(SubscribeRequest(HEALTH, "other"))
        assert await settled(web) == ["1:web=after", "eos@1"]
        assert await settled(other) == ["1:other=after", "eos@1"]
        with pytest.raises(SnapshotFailed) as failed:
            await every.receive()
        assert failed.value.__cause__ in refused
        assert len(refused) == 2


async def test_a_thread_that_publishes_is_told_too() -> None:
    async with opened(index=1) as (_, publisher):
        with pytest.raises(InvalidCommitError):
            await anyio.to_thread.run_sync(publisher.publish_from_thread, [with_previous(2, Silent())])
        assert publisher.index == 1


async def test_what_a_payload_raises_for_its_subject_passes_through() -> None:
    """D18."""

    class Broken(Homeless):
        @property
        def subject(self) -> str:
            raise RuntimeError("broken")

    async with opened(index=1) as (_, publisher):
        with pytest.raises(RuntimeError, match="broken"):
            publisher.publish([with_previous(2, Broken())])
        assert publisher.index == 1


async def test_an_unknown_topic_is_one_with_a_previous_too() -> None:
    async with opened(index=1) as (_, publisher):
        topic = Topic[Health]("unknown")
        with pytest.raises(UnknownTopicError):
            publisher.publish([Event(topic, 2, Health("web"), previous=Health("web", "old"))])
        publisher.publish([event(2, "web")])


async def test_payloads_that_are_never_replaced_need_not_say_what_they_are_when_withdrawn() -> None:
    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(WEB.after(publisher.cursor), where=lambda _: True)
        publisher.publish([Event(HEALTH, 2, Silent())])
        assert isinstance(reader.receive_nowait().payload, Silent)


async def test_the_types_of_what_was_and_what_is_may_differ() -> None:
    """What is asked to withdraw is the old one."""
    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(
            WEB.after(publisher.cursor), where=lambda payload: type(payload) is Health
        )
        publisher.publish([Event(HEALTH, 2, Silent(), previous=Health("web", "old"))])
        assert kinds(ready(reader)) == ["2:web=None"]


@pytest.mark.parametrize("key", ["web", Subject("web"), Subject("web", "default", "default")])
async def test_the_subject_of_both_may_be_written_in_other_ways(key: Any) -> None:
    class Named(Homeless):
        subject = key

    async with opened(index=1) as (_, publisher):
        reader = publisher.subscribe(WEB.after(publisher.cursor))
        publisher.publish([with_previous(2, Named())])
        assert kinds(ready(reader)) == ["2:web=new"]
