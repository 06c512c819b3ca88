"""Read permissions: what an authorizer hides is never returned, and never holds a reader up."""

from collections.abc import Callable, Generator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from scenes import opened, quiet
from typing_extensions import override

from trio_stream import (
    CloseReason,
    Event,
    EventPublisher,
    Payload,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionLagged,
    Topic,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

ALL = SubscribeRequest(HEALTH, index=1)  # every key, without a snapshot


@dataclass
class Authority:
    """An authorizer that runs code while it is asked; what it is asked for is `key` and then `key=value`."""

    answer: Callable[[str], bool]

    def __contains__(self, asked: object) -> bool:
        return self.answer(str(asked))


@dataclass(frozen=True)
class Undecided(Payload):
    """Inherits the permission of `Payload`."""

    @property
    @override
    def subject(self) -> str:
        return "web"


UNDECIDED = Topic[Undecided]("undecided")
UNSAID = Undecided()  # type: ignore[abstract]  # mypy sees what was forgotten; not everybody runs it


def publisher_at_1() -> EventPublisher:
    return EventPublisher({HEALTH: Catalogue().snapshot, UNDECIDED: Catalogue().snapshot}, index=1)


async def receive(subscription: Subscription[Health], got: list[Event[Health]]) -> None:
    got.append(await subscription.receive())


async def receive_batch(subscription: Subscription[Health], got: list[Event[Health]]) -> None:
    got.extend(await subscription.receive_batch())


async def test_of_a_batch_half_readable_the_readable_half_arrives_in_order() -> None:
    """C16, D1: a filtered batch stays a batch, also of one."""
    publisher = publisher_at_1()
    some = publisher.subscribe(ALL, authorizer=frozenset({"a", "c"}))
    one = publisher.subscribe(ALL, authorizer=frozenset({"b=ok"}))
    everything = publisher.subscribe(ALL)
    publisher.publish([event(2, key) for key in "abcd"])
    assert kinds([received := await some.receive()]) == ["2:a=ok+c=ok"]
    assert [len(received.events), received.index] == [2, 2]
    assert kinds(await one.receive_batch()) == ["2:b=ok"]
    assert kinds([await everything.receive()]) == ["2:a=ok+b=ok+c=ok+d=ok"]


async def test_filtering_for_one_reader_leaves_the_shared_event_as_it_is() -> None:
    """D10: two readers with the same rights share the whole batch."""
    publisher = publisher_at_1()
    first, second = (publisher.subscribe(ALL, authorizer=frozenset({"a", "b"})) for _ in range(2))
    less = publisher.subscribe(ALL, authorizer=frozenset({"a"}))
    publisher.publish([event(2, "a"), event(2, "b")])
    assert kinds(ready(less)) == ["2:a=ok"]
    assert first.receive_nowait() is second.receive_nowait()


@pytest.mark.parametrize("commit", [["secret"], ["secret", "secret"]])
async def test_where_nothing_is_readable_nothing_arrives_and_the_index_advances(commit: list[str]) -> None:
    """C16, D7: what was hidden is not asked about again after a resume."""
    publisher = publisher_at_1()
    subscription = publisher.subscribe(ALL, authorizer=frozenset({"web"}))
    publisher.publish([event(2, key) for key in commit])
    with pytest.raises(WouldBlock):
        subscription.receive_nowait()
    assert (subscription.index, subscription.resume_request().index) == (2, 2)
    assert subscription.statistics().lag == 0
    publisher.publish([event(3, "web")])
    assert kinds(ready(publisher.subscribe(subscription.resume_request()))) == ["3:web=ok"]


@pytest.mark.parametrize("hidden", [1, 255, 256, 257, 700])
async def test_a_waiting_reader_passes_over_whatever_is_hidden(hidden: int) -> None:
    """D3, C16: also over more than the loop is kept busy with in one go."""
    async with open_publisher({HEALTH: Catalogue().snapshot}, index=1) as publisher:
        for read in (receive, receive_batch):
            subscription = publisher.subscribe(
                SubscribeRequest(HEALTH, index=publisher.index), authorizer=frozenset({"web"})
            )
            got: list[Event[Health]] = []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, subscription, got)
                await quiet()
                for _ in range(hidden):
                    publisher.publish([event(publisher.index + 1, "secret")])
                await quiet()
                assert (got, subscription.index) == ([], publisher.index)
                publisher.publish([event(publisher.index + 1, "web")])
            assert kinds(got) == [f"{publisher.index}:web=ok"]


async def test_a_snapshot_is_filtered_too_and_its_end_is_not() -> None:
    """C16, D1, D5: also one from the cache that others have seen whole."""
    catalogue = Catalogue()
    async with open_publisher({HEALTH: catalogue.snapshot}) as publisher:
        catalogue.publisher = publisher
        catalogue.commit(("web", "a"), ("secret", "b"))
        catalogue.commit(("secret", "c"))
        asked = SubscribeRequest(HEALTH)
        assert kinds(await until_live(publisher.subscribe(asked))) == ["1:web=a", "2:secret=c", "eos@2"]
        shown = publisher.subscribe(asked, authorizer=frozenset({"web"}))
        assert kinds(await until_live(shown)) == ["1:web=a", "eos@2"]
        nothing = publisher.subscribe(asked, authorizer=frozenset())
        assert kinds(await until_live(nothing)) == ["eos@2"]
        assert catalogue.runs == 1


async def test_without_an_authorizer_nobody_is_asked() -> None:
    publisher = publisher_at_1()
    subscription = publisher.subscribe(SubscribeRequest(UNDECIDED, index=1))
    publisher.publish([Event(UNDECIDED, 2, UNSAID)])
    assert (await subscription.receive()).payload is UNSAID


async def test_a_payload_that_has_not_decided_refuses_loudly_and_the_cursor_stays() -> None:
    """C16: it must not leak, and it must not be lost without a word."""
    publisher = publisher_at_1()
    subscription = publisher.subscribe(SubscribeRequest(UNDECIDED, index=1), authorizer=object())
    publisher.publish([Event(UNDECIDED, 2, UNSAID)])
    for _ in range(2):
        with pytest.raises(NotImplementedError):
            await subscription.receive()
        with pytest.raises(NotImplementedError):
            await subscription.receive_batch()
        with pytest.raises(NotImplementedError):
            await anext(subscription)
        with pytest.raises(NotImplementedError):
            subscription.receive_nowait()
    assert (subscription.index, subscription.statistics().lag) == (1, 1)


@pytest.mark.parametrize("bad", [2, 3, 4])
async def test_a_permission_that_raises_inside_a_batch_loses_nothing_and_repeats_nothing(bad: int) -> None:
    """D3, D12: what was found before it is returned, whether or not the error is then raised again."""
    broken = True

    def answer(asked: str) -> bool:
        nonlocal broken
        if asked == f"key-{bad}" and broken:
            broken = False
            raise PermissionError(asked)
        return asked.startswith("key-")

    publisher = publisher_at_1()
    subscription = publisher.subscribe(ALL, authorizer=Authority(answer))
    for index in range(2, 5):
        publisher.publish([event(index, f"key-{index}")])
    got: list[int] = []
    while len(got) < 3:
        with suppress(PermissionError):
            got += [received.index for received in await subscription.receive_batch()]
    assert got == [2, 3, 4]


async def test_an_error_that_stays_is_raised_again_and_the_events_before_it_are_not() -> None:
    """D3."""

    def answer(asked: str) -> bool:
        if asked == "key-3":
            raise PermissionError(asked)
        return True

    publisher = publisher_at_1()
    subscription = publisher.subscribe(ALL, authorizer=Authority(answer))
    for index in range(2, 5):
        publisher.publish([event(index, f"key-{index}")])
    assert kinds(await subscription.receive_batch()) == ["2:key-2=ok"]
    for _ in range(2):
        with pytest.raises(PermissionError):
            await subscription.receive_batch()
    assert subscription.index == 2


@pytest.mark.parametrize("call", ["receive", "receive_batch", "anext", "nowait"])
@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.parametrize("by_owner", [True, False])
async def test_an_authorizer_that_closes_the_subscription_while_it_is_asked_is_obeyed(
    call: str, at: int, by_owner: bool
) -> None:
    """D9: when the close has returned, this very call returns no event either, not even those before it."""
    publisher = publisher_at_1()

    def answer(asked: str) -> bool:
        if asked == f"key-{at}":
            if by_owner:
                subscription.unsubscribe()
            else:
                assert publisher.close_subscriptions(["t"]) == 1
        return True

    request = SubscribeRequest(HEALTH, token="t", index=1)
    subscription = publisher.subscribe(request, authorizer=Authority(answer))
    for index in range(2, 5):
        publisher.publish([event(index, f"key-{index}")])
    got: list[Event[Health]] = []
    with pytest.raises(anyio.ClosedResourceError if by_owner else SubscriptionForceClosed):
        for _ in range(2):
            match call:
                case "receive":
                    got.append(await subscription.receive())
                case "receive_batch":
                    got.extend(await subscription.receive_batch())
                case "anext":
                    got.append(await anext(subscription))
                case _:
                    got.append(subscription.receive_nowait())
    # One by one, the events before the close were returned before it; a batch was still being made.
    assert [received.index for received in got] == ([] if call == "receive_batch" else list(range(2, at)))
    assert publisher.statistics().subscriptions == publisher.statistics().tokens == 0


async def test_an_authorizer_that_refreshes_the_publisher_ends_a_reader_in_its_snapshot() -> None:
    """D9, D6: in the middle of the snapshot that it is asked about."""
    catalogue = Catalogue()
    async with open_publisher({HEALTH: catalogue.snapshot}) as publisher:
        catalogue.publisher = publisher
        catalogue.commit(("a", "ok"))
        catalogue.commit(("b", "ok"))

        def answer(asked: str) -> bool:
            if asked == "b":
                publisher.refresh(HEALTH)
            return True

        subscription = publisher.subscribe(SubscribeRequest(HEALTH), authorizer=Authority(answer))
        assert kinds([await subscription.receive()]) == ["1:a=ok"]
        with pytest.raises(SubscriptionForceClosed) as caught:
            await subscription.receive()
        assert (caught.value.reason, caught.value.index) == (CloseReason.REFRESH, 0)


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("call", ["receive", "receive_batch", "nowait"])
@pytest.mark.parametrize("commits", [1, 2, 3, 200])
async def test_an_authorizer_may_publish_while_it_is_asked(shown: bool, call: str, commits: int) -> None:
    """D3, D6: and what the history drops meanwhile is not passed over in silence."""
    publisher = EventPublisher({HEALTH: Catalogue().snapshot}, index=1, history=2)
    asked_once = False

    def answer(asked: str) -> bool:
        nonlocal asked_once
        if asked.startswith("a"):
            if not asked_once:
                asked_once = True
                for _ in range(commits):
                    publisher.publish([event(publisher.index + 1, "b")])
            return shown
        return True

    subscription = publisher.subscribe(ALL, authorizer=Authority(answer))
    publisher.publish([event(2, "a")])
    publisher.publish([event(3, "b")])
    got: list[int] = [] if shown else [2]  # what it must not miss
    with pytest.raises(SubscriptionLagged) if commits > 1 else nullcontext():
        while subscription.index < publisher.index:
            match call:
                case "receive":
                    got.append((await subscription.receive()).index)
                case "receive_batch":
                    got.extend(received.index for received in await subscription.receive_batch())
                case _:
                    got.append(subscription.receive_nowait().index)
    assert got == list(range(2, (2 if commits > 1 else publisher.index) + 1))


@pytest.mark.parametrize("shown", [True, False])
async def test_an_authorizer_may_publish_while_it_is_asked_about_a_snapshot(shown: bool) -> None:
    """D6, D11: if the history passes the snapshot meanwhile, that is what the reader is told."""
    async with open_publisher({}, history=2) as publisher:

        async def handler(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
            for key in "abc":
                await snapshot.append([event(1, key)])
            return 1

        def answer(asked: str) -> bool:
            if asked.startswith("a"):
                for _ in range(4):
                    publisher.publish([event(publisher.index + 1, "later")])
            return shown

        publisher.register_handler(HEALTH, handler)
        publisher.publish([event(1, "a")])
        subscription = publisher.subscribe(SubscribeRequest(HEALTH), authorizer=Authority(answer))
        await quiet()
        with pytest.raises(SubscriptionLagged):
            while True:
                await subscription.receive()


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(
    ("answer", "shown"), [(1, True), ("yes", True), (0, False), ("", False), (None, False)]
)
async def test_an_answer_that_is_no_bool_counts_as_what_it_is_worth(
    answer: object, shown: bool, batched: bool
) -> None:
    class Answers(Payload):
        subject = "web"

        def has_read_permission(self, authorizer: Any, /) -> Any:
            return answer

    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        publisher.publish([Event(HEALTH, 2, Answers())] * (1 + batched))
        assert len(ready(subscription)) == shown


@pytest.mark.parametrize("batched", [False, True])
async def test_an_answer_that_is_to_be_awaited_is_refused_by_its_name(batched: bool) -> None:
    """D18: it would always be true."""

    class Later:
        def __await__(self) -> Generator[None, None, bool]:
            yield
            return False

    class Asks(Payload):
        subject = "web"

        def has_read_permission(self, authorizer: Any, /) -> Any:
            return Later()

    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=1), authorizer="me")
        publisher.publish([Event(HEALTH, 2, Asks())] * (1 + batched))
        with pytest.raises(TypeError, match=r"^has_read_permission of Asks is not to be async"):
            ready(subscription)


async def test_what_is_left_of_a_batch_is_of_the_same_topic_and_commit() -> None:
    async with opened(index=1) as (_, publisher):
        subscription = publisher.subscribe(SubscribeRequest(JOBS, index=1), authorizer=frozenset({"a", "b"}))
        publisher.publish([event(2, key, topic=JOBS) for key in "abc"])
        (received,) = ready(subscription)
        assert (received.topic, received.index, len(received.events)) == (JOBS, 2, 2)
