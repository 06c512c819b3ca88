"""How far a reader has come is one value, with a text form, that a request goes on after."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, event, kinds, until_live
from hypothesis import given, strategies as st
from marked import EPOCH, marked
from scenes import WEB, Held, opened, quiet, settled

from trio_stream import (
    CloseReason,
    Cursor,
    Event,
    EventPublisher,
    Payload,
    SnapshotAppender,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    Topic,
    open_publisher,
)

pytestmark = pytest.mark.anyio

texts = st.text(st.characters(exclude_categories=()), max_size=12)
TOKEN = replace(WEB, token="t")


@given(st.integers(min_value=0), texts.filter(bool), texts)
def test_a_text_gives_the_cursor_that_it_is_of(index: int, epoch: str, mark: str) -> None:
    """D7: whatever the store writes, also what is special in a cursor, a URL or a header."""
    cursor = Cursor(index, epoch, mark)
    text = str(cursor)
    assert Cursor.parse(text) == cursor
    assert text.isascii()
    assert text.isprintable()
    assert not set(text) & set(" \"#&+,/:;<=>?[\\]^`{|}'")
    assert text.count("@") == 1
    assert text.count(".") == bool(mark)


@given(st.integers(min_value=0, max_value=10**9), st.text("0123456789abcdef", min_size=1), st.text("xyz_-"))
def test_simple_names_are_in_it_as_they_are(index: int, epoch: str, mark: str) -> None:
    """D7: it can be read, and typed."""
    assert str(Cursor(index, epoch, mark)) == f"{index}@{epoch}" + (f".{mark}" if mark else "")


@given(st.one_of(st.text(), st.from_regex(r"[0-9]*@[^@]*", fullmatch=True), texts.map("7@e.{}".format)))
def test_any_text_is_a_cursor_or_a_value_error(text: str) -> None:
    """D18: and what is one has the same meaning when it was written again."""
    try:
        cursor = Cursor.parse(text)
    except ValueError as error:
        assert str(error).startswith("not a cursor: ")
    else:
        assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "17",
        "@",
        "17@",
        "@e",
        "17@.m",
        "17@e.",
        "17@e.m.n",
        "17@e@f",
        "-1@e",
        "+1@e",
        " 17@e",
        "1_7@e",
        "1.5@e",
        "\u0661@e",
        "x@e",
        "17@e%",
        "17@e%2",
        "17@e%zz",
        "17@e%FF",
        "9" * 5000 + "@e",
    ],
)
def test_a_bad_text_is_a_value_error(text: str) -> None:
    """D18: it may come from anywhere."""
    with pytest.raises(ValueError, match="not a cursor: ") as caught:
        Cursor.parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((-1, "e"), ValueError, "an index is not negative"),
        ((True, "e"), TypeError, "an index is an integer"),
        ((1.0, "e"), TypeError, "an index is an integer"),
        ((1, ""), ValueError, "epoch of a cursor must not be empty"),
        ((1, None), TypeError, "epoch is a string"),
        ((1, "e", None), TypeError, "mark is a string"),
    ],
    ids=repr,
)
def test_a_cursor_has_an_index_an_epoch_and_perhaps_a_mark(
    arguments: Any, kind: type[Exception], message: str
) -> None:
    """D18."""
    with pytest.raises(kind, match=message):
        Cursor(*arguments)


@pytest.mark.parametrize("text", [None, 17, b"17@e", Cursor(17, "e")], ids=repr)
def test_only_a_text_is_parsed(text: Any) -> None:
    """D18."""
    with pytest.raises(TypeError, match="the text of a cursor is a string"):
        Cursor.parse(text)


def test_a_cursor_is_a_value() -> None:
    """U22."""
    cursor = Cursor(17, "e", "m")
    for again in (copy.copy(cursor), copy.deepcopy(cursor), pickle.loads(pickle.dumps(cursor))):
        assert again == cursor
    assert {cursor, Cursor(17, "e", "m")} == {cursor}
    assert len({cursor, Cursor(18, "e", "m"), Cursor(17, "f", "m"), Cursor(17, "e")}) == 4
    assert replace(cursor, mark="") == Cursor(17, "e") == eval(repr(Cursor(17, "e")), {"Cursor": Cursor})
    with pytest.raises(AttributeError):
        cursor.index = 18  # type: ignore[misc]


@pytest.mark.parametrize("request_", [TOKEN, replace(TOKEN, index=3, epoch="f", mark="n")], ids=repr)
def test_a_request_goes_on_after_a_cursor(request_: SubscribeRequest[Health]) -> None:
    """D7: it asks for the same, with the same rights."""
    assert request_.after(Cursor(17, "e", "m")) == replace(TOKEN, index=17, epoch="e", mark="m")
    assert request_.after(Cursor(17, "e")) == replace(TOKEN, index=17, epoch="e")
    assert request_.after(None) == TOKEN
    assert request_.after(Cursor(0, "e", "m")) == TOKEN  # nothing was had, so there is nothing to drop
    both = request_.after(None) | SubscribeRequest(JOBS, token="t")
    assert both.after(Cursor(17, "e")).interests == both.interests


@pytest.mark.parametrize("cursor", ["17@e", 17, (17, "e"), False], ids=repr)
def test_only_a_cursor_can_be_gone_on_after(cursor: Any) -> None:
    """D18: a text is parsed first."""
    with pytest.raises(TypeError, match="a cursor is a Cursor or None"):
        WEB.after(cursor)


async def test_a_publisher_has_the_cursor_of_its_newest_commit() -> None:
    """D7: whatever the commit is about, and without a mark if it has none."""
    async with opened(epoch="e", index=3, mark="m3") as (_, publisher):
        assert publisher.cursor == Cursor(3, "e", "m3")
        publisher.publish([event(4, "web")], mark="m4")
        assert publisher.cursor == Cursor(4, "e", "m4")
        publisher.publish((), index=6, mark="m6")
        assert publisher.cursor == Cursor(6, "e", "m6")
        publisher.refresh(index=2, epoch="f", mark="n2")
        assert publisher.cursor == Cursor(2, "f", "n2")
        publisher.refresh(HEALTH)
        assert publisher.cursor == Cursor(2, "f", "n2")
    assert publisher.cursor == Cursor(2, "f", "n2")


async def test_inside_a_snapshot_a_cursor_is_at_the_beginning() -> None:
    """D7: part of a snapshot is no state."""
    async with opened(epoch="e") as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        assert subscription.cursor == Cursor(0, "e")
        assert kinds([await subscription.receive()]) == ["1:web=1"]
        assert subscription.cursor == Cursor(0, "e")
        assert kinds([await subscription.receive()]) == ["eos@1"]
        assert subscription.cursor == Cursor(1, "e")


async def test_with_nothing_ready_a_cursor_is_at_the_newest_commit() -> None:
    """U9, D7: although that was about something else; with something ready it is before that."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        assert subscription.cursor == Cursor(1, EPOCH, "a1")
        store.commit(("db", "2"))
        store.commit(("a", "3"), topic=JOBS)
        assert subscription.cursor == Cursor(3, EPOCH, "a3")
        store.commit(("web", "4"))
        store.commit(("db", "5"))
        assert subscription.cursor == Cursor(1, EPOCH, "a1")
        assert kinds([await subscription.receive()]) == ["4:web=4"]
        assert subscription.cursor == Cursor(5, EPOCH, "a5")


async def test_a_cursor_knows_the_mark_of_what_was_received_when_nobody_else_does() -> None:
    """D7, D24: it is older than what the timeline keeps, and of a snapshot that a function has given a mark."""
    async with marked(history=2) as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        store.commit(("web", "2"))
        for _ in range(5):
            store.commit(("a", "1"), topic=JOBS)
        assert subscription.cursor == Cursor(1, EPOCH, "a1")
        assert kinds([await subscription.receive()]) == ["2:web=2"]
        assert subscription.cursor == Cursor(7, EPOCH, "a7")
        store.commit(("web", "8"))
        store.commit(("web", "9"))
        await subscription.receive()
        for _ in range(5):
            store.commit(("a", "1"), topic=JOBS)
        assert subscription.cursor == Cursor(8, EPOCH, "a8")


class Raising(Payload):
    subject = "web"

    def has_read_permission(self, authorizer: object, /) -> bool:
        raise LookupError("no rights today")


async def test_a_cursor_stands_before_what_raises() -> None:
    """D7, D12: to ask for it raises nothing, and takes nothing."""
    topic = Topic[Raising]("raising")

    async def empty(_: SubscribeRequest[Raising], snapshot: SnapshotAppender[Raising]) -> int:
        return 0

    async with open_publisher({topic: empty}, epoch="e") as publisher:
        subscription = publisher.subscribe(SubscribeRequest(topic), authorizer=object())
        assert (await subscription.receive()).is_end_of_snapshot
        publisher.publish((), index=1)
        publisher.publish([Event(topic, 2, Raising())])
        assert subscription.cursor == Cursor(0, "e")
        with pytest.raises(LookupError):
            await subscription.receive()
        assert subscription.resume_request().index == 0


async def test_hidden_events_are_behind_a_cursor() -> None:
    """D7, U9."""
    async with marked() as (store, publisher):
        subscription = publisher.subscribe(SubscribeRequest(HEALTH), authorizer=frozenset({"web"}))
        await until_live(subscription)
        store.commit(("db", "1"))
        store.commit(("db", "2"))
        assert subscription.cursor == Cursor(2, EPOCH, "a2")
        store.commit(("web", "3"))
        store.commit(("db", "4"))
        assert subscription.cursor == Cursor(2, EPOCH, "a2")


def lag(publisher: EventPublisher, _: Subscription[Health]) -> None:
    for index in range(3, 10):
        publisher.publish([event(index, "web")], mark=f"a{index}")


ENDS: dict[str, tuple[Callable[[EventPublisher, Subscription[Health]], object], CloseReason | None]] = {
    "own": (lambda _, subscription: subscription.unsubscribe(), None),
    "token": (lambda publisher, _: publisher.close_subscriptions(["t"]), CloseReason.TOKEN),
    "refresh": (lambda publisher, _: publisher.refresh(index=9, mark="b9"), CloseReason.REFRESH),
    "refresh of the topic": (lambda publisher, _: publisher.refresh(HEALTH), CloseReason.REFRESH),
    "lagged": (lag, CloseReason.LAGGED),
}


@pytest.mark.parametrize(("end", "reason"), ENDS.values(), ids=ENDS)
async def test_after_an_end_a_cursor_is_at_the_last_event(
    end: Callable[[EventPublisher, Subscription[Health]], object], reason: CloseReason | None
) -> None:
    """D5, D7: with the epoch and the mark that this event had, and it stays there."""
    async with marked(history=4) as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(TOKEN)
        await until_live(subscription)
        store.commit(("db", "2"))
        end(publisher, subscription)
        if reason is CloseReason.LAGGED:
            with pytest.raises(SubscriptionForceClosed):
                subscription.receive_nowait()
        await quiet()
        assert subscription.cursor.index == subscription.index == 1
        assert subscription.cursor.epoch == EPOCH
        stays = reason in (None, CloseReason.LAGGED)
        assert subscription.resume_request() == TOKEN.after(subscription.cursor if stays else None)


async def test_after_a_failed_snapshot_a_cursor_is_at_the_beginning() -> None:
    """D5, D16."""

    async def failing(_: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        await snapshot.append([event(1, "web")])
        raise LookupError

    async with opened(failing, epoch="e") as (_, publisher):
        subscription = publisher.subscribe(WEB)
        with pytest.raises(SubscriptionForceClosed):
            await until_live(subscription)
        assert subscription.cursor == Cursor(0, "e")
        assert subscription.resume_request() == WEB


@pytest.mark.parametrize("left", [True, False], ids=["something left", "all received"])
async def test_after_stop_a_cursor_is_at_the_horizon(left: bool) -> None:
    """D5, U9: so that the next publisher of the same store goes on there."""
    async with marked() as (store, publisher):
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        store.commit(("web", "1"))
        if not left:
            await subscription.receive()
        store.commit(("db", "2"))
    if left:
        assert subscription.cursor == Cursor(0, EPOCH)
        assert kinds([await subscription.receive()]) == ["1:web=1"]
    with pytest.raises(SubscriptionForceClosed) as caught:
        await subscription.receive()
    assert caught.value.reason is CloseReason.STOPPED
    assert subscription.cursor == Cursor(2, EPOCH, "a2")
    assert subscription.resume_request() == WEB.after(Cursor(2, EPOCH, "a2"))
    async with marked(store) as (store, publisher):
        again = publisher.subscribe(subscription.resume_request())
        store.commit(("web", "3"))
        assert await settled(again) == ["3:web=3"]


async def test_inside_a_snapshot_that_stop_ends_a_cursor_is_at_the_beginning() -> None:
    """D5."""
    held = Held()
    async with opened(held, epoch="e") as (_, publisher):
        subscription = publisher.subscribe(WEB)
        await quiet()
    with pytest.raises(SubscriptionForceClosed):
        await subscription.receive()
    assert subscription.cursor == Cursor(0, "e")


@pytest.mark.parametrize("end", ["own", "token", "refresh", "stop"])
async def test_a_cursor_that_was_never_judged_is_still_that_of_the_request(end: str) -> None:
    """D7: nothing came in between. With a token or a refresh the client drops what it has, and begins anew."""
    asked = TOKEN.after(Cursor(7, EPOCH, "a7"))
    async with marked() as (_, publisher):
        subscription = publisher.subscribe(asked)
        assert subscription.state is SubscriptionState.RESUMING
        assert subscription.cursor == Cursor(7, EPOCH, "a7")
        assert (subscription.index, subscription.horizon) == (0, 0)
        assert subscription.resume_request() == asked
        if end != "stop":
            ENDS[end][0](publisher, subscription)
            await quiet()
            stays = end == "own"
            assert subscription.resume_request() == (asked if stays else TOKEN)
            assert subscription.cursor.epoch == EPOCH
    if end == "stop":
        with anyio.fail_after(5), pytest.raises(SubscriptionForceClosed) as caught:
            await subscription.receive()
        assert caught.value.reason is CloseReason.STOPPED
        assert subscription.resume_request() == asked


WAYS_TO_ASK = {
    "key": WEB,
    "prefix": SubscribeRequest(HEALTH, "w", prefix=True),
    "union": WEB | SubscribeRequest(JOBS),
}


@pytest.mark.parametrize("request_", WAYS_TO_ASK.values(), ids=WAYS_TO_ASK)
async def test_what_a_cursor_says_can_be_gone_on_after(request_: SubscribeRequest[Health]) -> None:
    """D3, D7: at every point, as text, and nothing is lost and nothing comes twice."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"), ("db", "1"))
        subscription = publisher.subscribe(request_)
        received = kinds(await until_live(subscription))
        expected = ["1:web=1", "eos@1"]
        for index in range(2, 12):
            key = "web" if index % 3 else "db"
            store.commit((key, str(index)))
            if key == "web":
                expected.append(f"{index}:web={index}")
            if index % 2:
                received += await settled(subscription)
            text = str(subscription.cursor)
            subscription.unsubscribe()
            subscription = publisher.subscribe(request_.after(Cursor.parse(text)))
        received += await settled(subscription)
        assert received == expected
        assert store.runs == len(request_.interests)
