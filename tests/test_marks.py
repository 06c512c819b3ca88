"""A commit's mark says which copy of the store it is of: an index alone does not, when nobody knew of a restore."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import anyio
import pytest
from catalogue import HEALTH, JOBS, Health, apply, event, kinds, ready, until_live
from marked import EPOCH, Marked, marked
from scenes import WEB, opened, quiet

from trio_stream import (
    Cursor,
    Event,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    SnapshotFailed,
    SnapshotFunc,
    SubscribeRequest,
    Subscription,
    SubscriptionLagged,
    SubscriptionState,
    open_publisher,
)

pytestmark = pytest.mark.anyio

WEBS = SubscribeRequest(HEALTH, "w", prefix=True)
BOTH = WEB | SubscribeRequest(JOBS)
every_request = pytest.mark.parametrize("request_", [WEB, WEBS, BOTH], ids=["key", "prefix", "union"])
every_policy = pytest.mark.parametrize("on_lag", ["close", "reset"])
OnLag = Literal["close", "reset"]


async def everything(subscription: Subscription[Health]) -> list[Event[Health]]:
    """All that comes if nothing else happens; a look may ask for a snapshot, which the next one finds."""
    events: list[Event[Health]] = []
    looks = 2
    while looks:
        await quiet()
        more = ready(subscription)
        looks = 2 if more else looks - 1
        events += more
    return events


async def all_of(subscription: Subscription[Health]) -> list[str]:
    return kinds(await everything(subscription))


async def eight_commits(store: Marked) -> None:
    for index in range(1, 9):
        store.commit(("web", str(index)))


@every_request
@pytest.mark.parametrize(
    ("cursor", "received"),
    [
        (Cursor(6, EPOCH, "a6"), ["7:web=7", "8:web=8"]),
        (Cursor(5, EPOCH, "a5"), ["6:web=6", "7:web=7", "8:web=8"]),
        (Cursor(8, EPOCH, "a8"), []),
        (Cursor(6, EPOCH, "b6"), ["marker", "8:web=8", "eos@8"]),
        (Cursor(6, EPOCH, "a7"), ["marker", "8:web=8", "eos@8"]),
        (Cursor(6, EPOCH), ["marker", "8:web=8", "eos@8"]),
        (Cursor(8, EPOCH), ["marker", "8:web=8", "eos@8"]),
        (Cursor(4, EPOCH, "a4"), ["marker", "8:web=8", "eos@8"]),
        (Cursor(6, "f", "a6"), ["marker", "8:web=8", "eos@8"]),
        (Cursor(9, EPOCH), ["marker", "8:web=8", "eos@8"]),
        (Cursor(9, "f", "a9"), ["marker", "8:web=8", "eos@8"]),
    ],
    ids=[
        "right",
        "the oldest that is kept",
        "the newest",
        "wrong",
        "of another commit",
        "missing",
        "missing, the newest",
        "below what is kept",
        "of another epoch",
        "ahead without a mark",
        "ahead of another epoch",
    ],
)
async def test_a_cursor_with_the_right_mark_resumes_and_another_is_stale(
    request_: SubscribeRequest[Health], cursor: Cursor, received: list[str]
) -> None:
    """D7, D24: at once, where the timeline knows the commit."""
    async with marked(history=4) as (store, publisher):
        await eight_commits(store)
        again = publisher.subscribe(request_.after(cursor))
        assert again.state is not SubscriptionState.RESUMING
        assert await all_of(again) == received
        store.commit(("web", "9"))
        assert kinds([await again.receive()]) == ["9:web=9"]


@pytest.mark.parametrize(
    ("index", "mark", "received"),
    [
        (6, "", ["7:web=7", "8:web=8"]),
        (6, "a6", ["7:web=7", "8:web=8"]),
        (6, "b6", ["marker", "8:web=8", "eos@8"]),
        (9, "", ["marker", "8:web=8", "eos@8"]),
        (9, "a9", ["marker", "8:web=8", "eos@8"]),
        (0, "a9", ["8:web=8", "eos@8"]),
    ],
)
async def test_without_an_epoch_an_index_is_trusted_unless_its_mark_is_wrong(
    index: int, mark: str, received: list[str]
) -> None:
    """D7: and unless it is ahead. What has neither an epoch nor a mark is no cursor of anybody."""
    async with marked(history=4) as (store, publisher):
        await eight_commits(store)
        again = publisher.subscribe(replace(WEB, index=index, mark=mark))
        assert await all_of(again) == received


@pytest.mark.parametrize("index", [3, 4])
async def test_on_a_timeline_without_marks_one_that_has_a_mark_is_stale(index: int) -> None:
    """D7, D24: it is of a store that writes them."""
    async with opened(epoch=EPOCH) as (store, publisher):
        for value in "1234":
            store.commit(("web", value))
        again = publisher.subscribe(WEB.after(Cursor(index, EPOCH, f"a{index}")))
        assert await all_of(again) == ["marker", "4:web=4", "eos@4"]
        assert await all_of(publisher.subscribe(WEB.after(Cursor(3, EPOCH)))) == ["4:web=4"]


async def test_where_a_publisher_begins_its_mark_counts() -> None:
    """D7: a cursor at that commit is good or not, and so is one that comes when there are others."""
    async with opened(index=5, mark="a5", epoch=EPOCH) as (_, publisher):
        good = WEB.after(Cursor(5, EPOCH, "a5"))
        bad = WEB.after(Cursor(5, EPOCH, "b5"))
        assert await all_of(publisher.subscribe(good)) == []
        assert await all_of(publisher.subscribe(bad)) == ["marker", "eos@5"]
        publisher.publish([event(6, "web")], mark="a6")
        assert await all_of(publisher.subscribe(good)) == ["6:web=ok"]
        assert (await all_of(publisher.subscribe(bad)))[0] == "marker"


async def test_the_timeline_knows_the_marks_of_commits_about_whatever() -> None:
    """D7: as many as the history has commits, of any topic and of none."""
    async with marked(history=4) as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("a", "1"), topic=JOBS)
        publisher.publish((), index=3, mark="a3")
        for index in (1, 2, 3):
            again = publisher.subscribe(WEB.after(Cursor(index, EPOCH, f"a{index}")))
            assert await all_of(again) == []
            assert again.state is SubscriptionState.LIVE
        store.index = 3
        for value in "45":
            store.states[store.index] = store.states[max(store.states)]
            store.commit(("a", value), topic=JOBS)
        stale = publisher.subscribe(WEB.after(Cursor(1, EPOCH, "a1")))
        assert (await all_of(stale))[0] == "marker"
        assert await all_of(publisher.subscribe(WEB.after(Cursor(2, EPOCH, "a2")))) == []


# What is published when a reader waits whose cursor is at 10 of "a10", and what it gets.
LATER: dict[str, tuple[list[tuple[int, str]], list[str]]] = {
    "the same commit": ([(9, "a9"), (10, "a10"), (11, "a11")], ["11:web=11"]),
    "another commit": ([(9, "b9"), (10, "b10"), (11, "b11")], ["marker", "11:web=11", "eos@11"]),
    "passed over": ([(9, "a9"), (11, "a11")], ["marker", "11:web=11", "eos@11"]),
    "passed over at once": ([(12, "a12")], ["marker", "12:web=12", "eos@12"]),
}


def publish(publisher: EventPublisher, *commits: tuple[int, str]) -> None:
    for index, mark in commits:
        publisher.publish([event(index, "web", str(index))], mark=mark)


@every_request
@every_policy
@pytest.mark.parametrize("how", ["late", "waiting", "until current"])
@pytest.mark.parametrize(("commits", "received"), LATER.values(), ids=LATER)
async def test_a_cursor_that_is_ahead_is_judged_when_its_index_is_reached(
    commits: list[tuple[int, str]],
    received: list[str],
    how: str,
    on_lag: OnLag,
    request_: SubscribeRequest[Health],
) -> None:
    """D2, D7, D24: nothing comes until then, and never what is older."""
    got: list[Event[Health]] = []

    async def newest(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        await snapshot.append(
            [event(publisher.index, "web", str(publisher.index))] * (request.topic == HEALTH)
        )
        return publisher.cursor

    async def take() -> None:
        if how == "until current":
            got.extend(await again.receive_until_current())
        while True:
            got.append(await again.receive())

    async with (
        open_publisher({HEALTH: newest, JOBS: newest}, index=8, mark="a8", epoch=EPOCH) as publisher,
        anyio.create_task_group() as tasks,
    ):
        again = publisher.subscribe(request_.after(Cursor(10, EPOCH, "a10")), on_lag=on_lag)
        if how != "late":
            tasks.start_soon(take)
        await quiet()
        publish(publisher, *[each for each in commits if each[0] < 10])
        await quiet()
        assert (again.state, again.horizon, got) == (SubscriptionState.RESUMING, 0, [])
        assert again.cursor == Cursor(10, EPOCH, "a10")
        assert again.resume_request() == request_.after(again.cursor)
        publish(publisher, *[each for each in commits if each[0] >= 10])
        if how == "late":
            tasks.start_soon(take)
        await quiet()
        assert kinds(got) == received
        assert again.state is SubscriptionState.LIVE
        assert again.cursor == publisher.cursor
        tasks.cancel_scope.cancel()


async def test_a_cursor_that_is_ahead_is_judged_by_the_next_commit_of_a_timeline_without_marks() -> None:
    """D7: it has none, so it is another commit."""
    async with opened(epoch=EPOCH) as (store, publisher):
        store.commit(("web", "1"))
        again = publisher.subscribe(WEB.after(Cursor(2, EPOCH, "a2")))
        assert again.state is SubscriptionState.RESUMING
        store.commit(("web", "2"))
        assert await all_of(again) == ["marker", "2:web=2", "eos@2"]


async def test_older_events_cannot_make_a_reader_lag_that_is_not_judged_yet() -> None:
    """D6, D7: what it never was to get cannot have been missed."""
    async with marked(history=2) as (store, publisher):
        ahead = publisher.subscribe(WEB.after(Cursor(20, EPOCH, "a20")))
        for index in range(1, 22):
            store.commit(("web", str(index)))
        assert await all_of(ahead) == ["21:web=21"]


async def test_a_read_that_was_given_up_leaves_a_cursor_to_be_judged() -> None:
    """D7, D12: although another part of the same call waited for its commit too."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB.after(Cursor(2, EPOCH, "a2")))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(subscription.receive_until_current)
            await quiet()
            tasks.cancel_scope.cancel()
        store.commit(("web", "2"))
        store.commit(("web", "3"))
        await quiet()
        assert kinds(ready(subscription)) == ["3:web=3"]


async def test_a_mark_counts_for_its_own_commit_only() -> None:
    """D7, D24: not for one before it, and not for one after it that has none."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        passed_over = publisher.subscribe(WEB.after(Cursor(2, EPOCH, "a3")))
        publisher.publish([event(3, "web")], mark="a3")
        assert (await passed_over.receive()).is_new_snapshot_to_follow
        subscription = publisher.subscribe(WEB.after(Cursor(1, EPOCH, "a1")))
        assert kinds(ready(subscription)) == ["3:web=ok"]
        publisher.publish((), index=4)
        assert subscription.cursor == Cursor(4, EPOCH)


async def test_a_reader_that_is_judged_when_the_history_has_passed_it_is_stale() -> None:
    """D7: although it was right about its commit."""
    async with marked(history=2) as (store, publisher):
        ahead = publisher.subscribe(WEB.after(Cursor(2, EPOCH, "a2")))
        for index in range(1, 6):
            store.commit(("web", str(index)))
        assert await all_of(ahead) == ["marker", "5:web=5", "eos@5"]


async def test_a_reader_may_be_judged_when_the_timeline_no_longer_knows_its_commit() -> None:
    """D7: it is known as long as somebody waits for it; commits of other topics do no harm."""
    async with marked(history=2) as (store, publisher):
        good = publisher.subscribe(WEB.after(Cursor(2, EPOCH, "a2")))
        bad = publisher.subscribe(WEB.after(Cursor(2, EPOCH, "b2")))
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        for index in range(3, 9):
            store.commit(("a", str(index)), topic=JOBS)
        store.commit(("web", "9"))
        assert await all_of(good) == ["9:web=9"]
        assert await all_of(bad) == ["marker", "9:web=9", "eos@9"]


@pytest.mark.parametrize("when", ["before", "between", "after"])
@pytest.mark.parametrize("index", range(1, 11))
@every_request
async def test_a_client_is_told_when_an_older_copy_has_taken_the_place_of_its_store(
    request_: SubscribeRequest[Health], index: int, when: str
) -> None:
    """D1, D24, U12: whoever was ahead of the copy, at whatever time it comes back; nobody knew of the restore."""
    slice_ = WEB if request_ == BOTH else request_
    keys = [f"web{at}" if request_ == WEBS else "web" for at in range(20)]
    async with marked() as (store, publisher):
        for at in range(1, 11):
            store.commit((keys[at], f"a{at}"))
    state = store.state_at(index, slice_)
    copy = store.as_of(5)
    async with marked(copy) as (_, publisher):
        seen = {"before": 5, "between": 7, "after": 11}[when]
        for at in range(6, seen + 1):
            copy.commit((keys[at + 1], f"b{at}"))
        again = publisher.subscribe(request_.after(store.cursor(index)))
        received = await everything(again)
        for at in range(seen + 1, 12):
            copy.commit((keys[at + 1], f"b{at}"))
        received += await everything(again)
        assert [each.is_new_snapshot_to_follow for each in received].count(True) == (index != 5)
        for each in received:
            apply(state, each)
        assert state == copy.state_at(11, slice_)
        assert again.cursor == copy.cursor()


async def test_a_store_restored_twice_from_one_backup_has_three_timelines() -> None:
    """D24, U12: a client of the first restore is ahead of the second, and may have the same index."""
    original = Marked()
    async with marked(original):
        original.commit(("web", "1"))
    first = original.as_of(1)
    second = original.as_of(1)
    second.copy = "c"
    async with marked(first) as (_, publisher):
        subscription = publisher.subscribe(WEB)
        first.commit(("web", "of the first"))
        await until_live(subscription)
        cursor = subscription.cursor
        assert cursor == Cursor(2, EPOCH, "b2")
    async with marked(second) as (_, publisher):
        second.commit(("web", "of the second"))
        again = publisher.subscribe(WEB.after(cursor))
        assert await all_of(again) == ["marker", "2:web=of the second", "eos@2"]


def returning(cursor: Any) -> SnapshotFunc[Health]:
    """A snapshot function with one row, which says this of where it is."""

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
        await snapshot.append([event(1, "web")])
        return cursor

    return snapshot_of


@pytest.mark.parametrize(
    ("returned", "cause"),
    [
        (Cursor(8, EPOCH, "b8"), ValueError),
        (Cursor(7, EPOCH, "b7"), ValueError),
        (Cursor(8, "f", "a8"), ValueError),
        (Cursor(8, "f"), ValueError),
        (Cursor(3, EPOCH, "a3"), ValueError),
        ("8@e.a8", TypeError),
        ((8, EPOCH), TypeError),
        (None, TypeError),
    ],
    ids=["newest", "older", "epoch", "epoch without mark", "before the history", "text", "pair", "nothing"],
)
async def test_a_snapshot_of_another_timeline_fails(returned: Any, cause: type[Exception]) -> None:
    """D1, D24: instead of showing a state that never was; the next one may be right."""
    answers = [returned, Cursor(8, EPOCH, "a8")]

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Any:
        await snapshot.append([event(8, "web")])
        return answers.pop(0)

    async with open_publisher({HEALTH: snapshot_of}, history=4, epoch=EPOCH) as publisher:
        for index in range(1, 9):
            publisher.publish([event(index, "web")], mark=f"a{index}")
        with pytest.raises(SnapshotFailed) as caught:
            await until_live(publisher.subscribe(WEB))
        assert type(caught.value.__cause__) is cause
        assert kinds(await until_live(publisher.subscribe(WEB))) == ["8:web=ok", "eos@8"]


@pytest.mark.parametrize("mark", ["", "a7"])
async def test_a_snapshot_may_be_older_than_the_newest_commit(mark: str) -> None:
    """D1, D3: with its mark, or if the function does not say it."""
    async with open_publisher({HEALTH: returning(Cursor(7, EPOCH, mark))}, epoch=EPOCH) as publisher:
        publisher.publish([event(7, "web")], mark="a7")
        publisher.publish([event(8, "web")], mark="a8")
        subscription = publisher.subscribe(WEB)
        events = await until_live(subscription)
        assert kinds(events) == ["1:web=ok", "eos@7"]
        assert events[-1].mark == "a7"
        assert subscription.cursor == Cursor(7, EPOCH, "a7")
        assert kinds(ready(subscription)) == ["8:web=ok"]


async def test_a_union_is_not_composed_of_a_part_that_was_contradicted() -> None:
    """D1, D24: it had seen a commit that was never published, when all parts were whole."""
    values = ["never", "published"]
    cursors = [Cursor(3, EPOCH, "a3"), Cursor(3, EPOCH, "b3")]

    async def ahead(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        await snapshot.append([event(3, "web", values.pop(0))])
        return cursors.pop(0)

    async def empty(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        return Cursor(2, EPOCH, "a2")

    async with open_publisher({HEALTH: ahead, JOBS: empty}, epoch=EPOCH, index=2, mark="a2") as publisher:
        subscription = publisher.subscribe(WEB | SubscribeRequest(JOBS, "none"))
        await quiet()
        publisher.publish([event(3, "web", "published")], mark="b3")
        with pytest.raises(SubscriptionLagged):
            await until_live(subscription)
        again = publisher.subscribe(subscription.resume_request())
        assert kinds(await until_live(again)) == ["3:web=published", "eos@3"]


async def test_a_snapshot_may_be_older_than_the_marks_that_are_known() -> None:
    """D1, D24: nobody can say any more that it is of another commit."""
    handler = returning(Cursor(7, EPOCH, "a7"))
    async with open_publisher({HEALTH: handler, JOBS: handler}, epoch=EPOCH, history=2) as publisher:
        publisher.publish([event(7, "web")], mark="a7")
        for index in (8, 9, 10):
            publisher.publish([event(index, "a", topic=JOBS)], mark=f"a{index}")
        subscription = publisher.subscribe(WEB)
        assert kinds(await until_live(subscription)) == ["1:web=ok", "eos@7"]
        assert subscription.cursor == Cursor(10, EPOCH, "a10")


@every_policy
@pytest.mark.parametrize(
    ("commits", "received"),
    [
        ([(9, "b9"), (10, "b10")], ["10:web=ok"]),
        ([(9, "a9"), (10, "a10")], ["marker", "1:web=ok", "eos@10"]),
        ([(10, "a10")], ["marker", "1:web=ok", "eos@10"]),
    ],
    ids=["confirmed", "contradicted", "passed over"],
)
async def test_a_snapshot_that_is_ahead_is_judged_when_its_commit_is_published(
    commits: list[tuple[int, str]], received: list[str], on_lag: OnLag
) -> None:
    """D1, D2, D24: the store was put in another's place between two looks at it."""
    answers = [Cursor(9, EPOCH, "b9"), Cursor(10, EPOCH, commits[-1][1])]

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        await snapshot.append([event(1, "web")])
        return answers.pop(0)

    async with open_publisher({HEALTH: snapshot_of}, epoch=EPOCH, index=8, mark="a8") as publisher:
        subscription = publisher.subscribe(WEB, on_lag=on_lag)
        assert kinds(await until_live(subscription)) == ["1:web=ok", "eos@9"]
        assert subscription.state is SubscriptionState.LIVE
        assert subscription.cursor == Cursor(9, EPOCH, "b9")
        assert await all_of(subscription) == []
        for index, mark in commits:
            publisher.publish([event(index, "web")], mark=mark)
            assert subscription.cursor == Cursor(9, EPOCH, "b9")
        assert subscription.resume_request() == WEB.after(Cursor(9, EPOCH, "b9"))
        assert await all_of(subscription) == received
        assert subscription.cursor == publisher.cursor
        assert len(answers) == (received[0] != "marker")


@pytest.mark.parametrize("had", [True, False], ids=["was had", "is ready"])
@pytest.mark.parametrize("authorizer", [None, frozenset({"web"})], ids=["all", "checked"])
@pytest.mark.parametrize("how", ["receive", "nowait", "batch", "until current"])
async def test_the_end_of_a_snapshot_that_was_contradicted_is_not_returned(
    how: str, authorizer: frozenset[str] | None, had: bool
) -> None:
    """D1, D14, D24: whoever stops there would hold a state that never was. And nobody else is given it."""
    answers = [Cursor(9, EPOCH, "b9"), Cursor(9, EPOCH, "a9")]

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        await snapshot.append([event(1, "web", str(len(answers)))])
        return answers.pop(0)

    async def take() -> list[Event[Health]]:
        match how:
            case "receive":
                return [await subscription.receive()]
            case "nowait":
                return await everything(subscription)
            case "batch":
                return [*await subscription.receive_batch()]
            case _:
                return [*await subscription.receive_until_current()]

    async with open_publisher({HEALTH: snapshot_of}, epoch=EPOCH, index=8, mark="a8") as publisher:
        subscription = publisher.subscribe(WEB, authorizer=authorizer)
        await quiet()
        received = await until_live(subscription) if had else []
        publisher.publish([event(9, "db")], mark="a9")
        assert await all_of(publisher.subscribe(WEB)) == ["1:web=1", "eos@9"]
        while subscription.cursor != publisher.cursor or subscription.state is not SubscriptionState.LIVE:
            received += await take()
        first = ["1:web=2", "eos@9"] if had else ["1:web=2"]
        assert kinds(received) == [*first, "marker", "1:web=1", "eos@9"]
        assert subscription.statistics().delivered == len(received)


@pytest.mark.parametrize("reading", [True, False], ids=["while it is read", "in the cache"])
async def test_a_contradiction_is_remembered_as_long_as_the_snapshot(reading: bool) -> None:
    """D14, D24: although the timeline no longer knows the mark, after more commits about other topics."""
    answers = [Cursor(9, EPOCH, "b9")]

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        cursor = answers.pop() if answers else publisher.cursor
        await snapshot.append([event(1, "web", cursor.mark[0])])
        return cursor

    async with open_publisher(
        {HEALTH: snapshot_of, JOBS: snapshot_of}, history=2, epoch=EPOCH, index=8, mark="a8"
    ) as publisher:
        subscription = publisher.subscribe(WEB)
        await quiet()
        if not reading:
            assert kinds(await until_live(subscription)) == ["1:web=b", "eos@9"]
        for index in range(9, 20):
            publisher.publish([event(index, "a", topic=JOBS)], mark=f"a{index}")
        assert await all_of(publisher.subscribe(WEB)) == ["1:web=a", "eos@19"]
        first = ["1:web=b"] if reading else []
        assert await all_of(subscription) == [*first, "marker", "1:web=a", "eos@19"]


async def test_a_snapshot_that_was_confirmed_stays_good() -> None:
    """D14: also when the timeline no longer knows its mark."""
    async with marked(history=2) as (store, publisher):
        store.publisher = None
        store.commit(("web", "1"))
        early = publisher.subscribe(WEB)
        assert kinds(await until_live(early)) == ["1:web=1", "eos@1"]
        slow = publisher.subscribe(WEB)
        publisher.publish([event(1, "web", "1")], mark="a1")
        for index in range(2, 9):
            publisher.publish([event(index, "a", topic=JOBS)], mark=f"a{index}")
        late = publisher.subscribe(WEB)
        for each in (slow, late):
            assert await all_of(each) == ["1:web=1", "eos@1"]
        assert await all_of(early) == []
        assert {each.state for each in (early, slow, late)} == {SubscriptionState.LIVE}
        assert store.runs == 1


@every_policy
@pytest.mark.parametrize("touches", ["web", "db", None], ids=["the part", "its topic", "nothing"])
@pytest.mark.parametrize("over", [9, 10], ids=["contradicted", "passed over"])
async def test_no_part_of_a_union_may_be_of_another_copy(
    on_lag: OnLag, touches: str | None, over: int
) -> None:
    """D22, D24: whether the commit that shows it is about that part or not."""
    answers = [Cursor(9, EPOCH, "b9")]

    async def snapshot_of(request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> Cursor:
        cursor = answers.pop() if answers and request.topic == HEALTH else publisher.cursor
        await snapshot.append(
            [event(1, "web" if request.topic == HEALTH else "a", cursor.mark[0], topic=request.topic)]
        )
        return cursor

    async with open_publisher(
        {HEALTH: snapshot_of, JOBS: snapshot_of}, epoch=EPOCH, index=8, mark="a8"
    ) as publisher:
        subscription = publisher.subscribe(BOTH, on_lag=on_lag)
        await quiet()
        received = ready(subscription)
        assert not any(each.is_framing for each in received)
        publisher.publish([event(over, touches)] if touches else [], index=over, mark=f"a{over}")
        try:
            received += await everything(subscription)
        except SubscriptionLagged as lagged:
            assert (on_lag, lagged.index) == ("close", 0)
            received = await everything(publisher.subscribe(BOTH))
        assert sum(each.is_end_of_snapshot for each in received) == 1
        state: dict[Any, str] = {}
        for each in received:
            apply(state, each)
        assert "b" not in state.values()


async def test_every_event_of_a_commit_has_its_mark() -> None:
    """D24: given with the commit or by one of its events; a batch and the end of a snapshot have it too."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(SubscribeRequest(HEALTH))
        assert (await until_live(subscription))[-1].mark == "a1"
        publisher.publish([event(2, "web"), event(2, "db")], mark="a2")
        publisher.publish([replace(event(3, "web"), mark="a3"), event(3, "db")])
        publisher.publish([replace(event(4, "web"), mark="a4")], mark="a4")
        received = ready(subscription)
        assert [each.mark for each in received] == ["a2", "a3", "a4"]
        assert [one.mark for each in received for one in each.events] == ["a2", "a2", "a3", "a3", "a4"]
        shown = publisher.subscribe(
            SubscribeRequest(HEALTH).after(Cursor(1, EPOCH, "a1")), authorizer=frozenset({"web"})
        )
        assert [each.mark for each in ready(shown)] == ["a2", "a3", "a4"]


async def test_a_thread_gives_marks_as_well() -> None:
    """D24."""
    async with marked() as (_, publisher):
        await anyio.to_thread.run_sync(lambda: publisher.publish_from_thread([event(1, "web")], mark="a1"))
        await anyio.to_thread.run_sync(lambda: publisher.publish_from_thread((), index=2, mark="a2"))
        assert publisher.cursor == Cursor(2, EPOCH, "a2")


BAD: dict[str, tuple[Callable[[EventPublisher], object], type[Exception], str]] = {
    "no string": (
        lambda publisher: publisher.publish([event(2, "web")], mark=7),  # type: ignore[arg-type]
        TypeError,
        "a mark is a string",
    ),
    "no string, without events": (
        lambda publisher: publisher.publish((), index=2, mark=b"a2"),  # type: ignore[arg-type]
        TypeError,
        "a mark is a string",
    ),
    "no string in an event": (
        lambda publisher: publisher.publish([replace(event(2, "web"), mark=7)]),  # type: ignore[arg-type]
        TypeError,
        "a mark is a string",
    ),
    "none in an event": (
        lambda publisher: publisher.publish([replace(event(2, "web"), mark=None)]),  # type: ignore[arg-type]
        TypeError,
        "a mark is a string",
    ),
    "two in one commit": (
        lambda publisher: publisher.publish(
            [replace(event(2, "web"), mark="a2"), replace(event(2, "db"), mark="b2")]
        ),
        InvalidCommitError,
        "different marks in one commit: 'a2' and 'b2'",
    ),
    "another in an event": (
        lambda publisher: publisher.publish([replace(event(2, "web"), mark="b2")], mark="a2"),
        InvalidCommitError,
        "different marks in one commit: 'a2' and 'b2'",
    ),
    "for a topic": (
        lambda publisher: publisher.refresh(HEALTH, mark="a2"),
        ValueError,
        "one topic cannot have",
    ),
    "no string, for a refresh": (
        lambda publisher: publisher.refresh(index=1, mark=7),  # type: ignore[arg-type]
        TypeError,
        "a mark is a string",
    ),
    "another for the newest commit": (
        lambda publisher: publisher.refresh(index=1, epoch=EPOCH, mark="b1"),
        ValueError,
        "commit 1 of epoch 'e' has mark 'a1', not 'b1'",
    ),
}


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
async def test_a_bad_mark_is_refused_and_changes_nothing(
    call: Callable[[EventPublisher], object], kind: type[Exception], message: str
) -> None:
    """D18."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        subscription = publisher.subscribe(WEB)
        await until_live(subscription)
        before = publisher.statistics()
        with pytest.raises(kind, match=message):
            call(publisher)
        assert publisher.statistics() == before
        assert publisher.cursor == Cursor(1, EPOCH, "a1")
        store.commit(("web", "2"))
        assert await all_of(subscription) == ["2:web=2"]
        assert subscription.cursor == Cursor(2, EPOCH, "a2")


@pytest.mark.parametrize("mark", [7, None, b"a1"], ids=repr)
def test_the_mark_that_a_publisher_begins_with_is_a_string(mark: Any) -> None:
    """D18."""
    with pytest.raises(TypeError, match="a mark is a string"):
        EventPublisher(mark=mark)


async def test_a_new_epoch_knows_no_marks_of_the_old_one() -> None:
    """D7, D24: a mark alone does not make a cursor good."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        store.commit(("web", "2"))
        publisher.refresh(index=2, epoch="f", mark="a2")
        for cursor, is_good in [
            (Cursor(2, "f", "a2"), True),
            (Cursor(1, "f", "a1"), False),
            (Cursor(2, EPOCH, "a2"), False),
        ]:
            again: Subscription[Health] = publisher.subscribe(WEB.after(cursor))
            assert (again.state is SubscriptionState.LIVE) == is_good


async def test_a_new_epoch_knows_the_mark_of_its_start_alone() -> None:
    """D7, D24: also where the epoch before had a commit with this index; and it need not have marks at all."""
    async with marked() as (store, publisher):
        for value in "123":
            store.commit(("web", value))
        publisher.refresh(index=2, epoch="f", mark="b2")
        for mark, is_good in [("b2", True), ("a2", False), ("", False)]:
            again: Subscription[Health] = publisher.subscribe(WEB.after(Cursor(2, "f", mark)))
            assert (again.state is SubscriptionState.LIVE) == is_good
        publisher.refresh(index=2, epoch="g")
        assert publisher.subscribe(WEB.after(Cursor(2, "g"))).state is SubscriptionState.LIVE


async def test_commits_that_were_lost_are_not_known_and_the_newest_is() -> None:
    """D7: where a publisher goes on after a gap on the same timeline."""
    async with marked() as (store, publisher):
        store.commit(("web", "1"))
        publisher.refresh(index=5, epoch=EPOCH, mark="a5")
        store.index, store.marks[5] = 5, "a5"
        store.states[5] = store.states[1]
        for cursor, is_good in [
            (Cursor(5, EPOCH, "a5"), True),
            (Cursor(5, EPOCH, "b5"), False),
            (Cursor(3, EPOCH, "a3"), False),
            (Cursor(1, EPOCH, "a1"), False),  # below the floor
        ]:
            again: Subscription[Health] = publisher.subscribe(WEB.after(cursor))
            assert (again.state is SubscriptionState.LIVE) == is_good
        publisher.refresh(index=5, epoch=EPOCH, mark="a5")
        publisher.refresh(index=5, epoch=EPOCH)
        assert publisher.cursor == Cursor(5, EPOCH, "a5")
        publisher.publish((), index=6)
        publisher.refresh(index=6, epoch=EPOCH, mark="a6")
        assert publisher.cursor == Cursor(6, EPOCH, "a6")
