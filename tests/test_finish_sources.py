"""D5: a snapshot function that says that its subject is finished, which no publisher needs to remember."""

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from catalogue import HEALTH, JOBS, Catalogue, Health, event, kinds, ready, until_live
from finishes import LIVE, Receive, receives, to_the_end
from scenes import WEB, quiet

from trio_stream import (
    ALL,
    ClosedResourceError,
    CloseReason,
    Cursor,
    EndOfSubject,
    Event,
    EventPublisher,
    InvalidCommitError,
    SnapshotAppender,
    SnapshotFailed,
    Source,
    SubscribeRequest,
    Subscription,
    SubscriptionForceClosed,
    SubscriptionState,
    WouldBlock,
    open_publisher,
)

pytestmark = pytest.mark.anyio

DB = SubscribeRequest(HEALTH, "db")


class Archive:
    """A store that knows which keys are finished, and says so behind their state."""

    def __init__(self, *finished: str) -> None:
        self.store = Catalogue()
        self.finished = set(finished)
        self.appenders: list[SnapshotAppender[Health]] = []

    async def __call__(self, request: SubscribeRequest[Health], snapshot: SnapshotAppender[Health]) -> int:
        self.appenders.append(snapshot)
        index = await self.store.snapshot(request, snapshot)
        (interest,) = request.interests
        if interest.key in self.finished and not interest.prefix:
            snapshot.finish()
        return index


@asynccontextmanager
async def archived(
    *finished: str, finishes: bool = True, **options: object
) -> AsyncIterator[tuple[Archive, EventPublisher]]:
    archive = Archive(*finished)
    archive.store.commit(("web", "1"))
    archive.store.commit(("db", "2"))
    source = Source(archive, finishes=finishes, wide=True)
    async with open_publisher({HEALTH: source, JOBS: source}, index=2, **options) as publisher:  # type: ignore[arg-type]
        archive.store.publisher = publisher
        yield archive, publisher


@receives
async def test_a_subject_ends_behind_a_snapshot_that_says_so(receive: Receive) -> None:
    """D5."""
    async with archived("web") as (_, publisher):
        reader = publisher.subscribe(WEB)
        await quiet()
        assert await to_the_end(reader, receive) == (["1:web=1", "eos@2"], 2)


async def test_a_subject_ends_behind_an_empty_snapshot_that_says_so() -> None:
    async with archived("ghost") as (_, publisher):
        assert await to_the_end(publisher.subscribe(SubscribeRequest(HEALTH, "ghost"))) == (["eos@2"], 2)


async def test_a_subject_whose_snapshot_says_nothing_goes_on() -> None:
    async with archived("db") as (archive, publisher):
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        archive.store.commit(("web", "3"))
        assert kinds(ready(reader)) == ["3:web=3"]


async def test_a_herd_ends_behind_one_snapshot_and_so_does_who_gets_it_from_the_cache() -> None:
    """D14."""
    ends: list[tuple[list[str], int]] = []

    async def read(subscription: Subscription[Health]) -> None:
        ends.append(await to_the_end(subscription))

    async with archived("web") as (archive, publisher):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(read, publisher.subscribe(WEB))
        await read(publisher.subscribe(WEB))
        assert ends == [(["1:web=1", "eos@2"], 2)] * 21
        assert archive.store.runs == 1


async def test_a_read_until_current_returns_the_snapshot_and_then_the_end() -> None:
    async with archived("web") as (_, publisher):
        reader = publisher.subscribe(WEB)
        assert kinds(await reader.receive_until_current()) == ["1:web=1", "eos@2"]
        with pytest.raises(EndOfSubject):
            await reader.receive_until_current()


async def test_a_batch_ends_with_the_snapshot() -> None:
    async with archived("web") as (_, publisher):
        reader = publisher.subscribe(WEB)
        await quiet()
        assert kinds(await reader.receive_batch()) == ["1:web=1", "eos@2"]
        with pytest.raises(EndOfSubject):
            await reader.receive_batch()


@pytest.mark.parametrize("on_lag", ["close", "reset"])
async def test_a_stale_resume_ends_behind_its_new_snapshot(on_lag: str) -> None:
    """D7."""
    async with archived("web") as (_, publisher):
        stale = SubscribeRequest(HEALTH, "web", index=1, epoch="other")
        reader = publisher.subscribe(stale, on_lag="reset" if on_lag == "reset" else "close")
        await quiet()
        assert await to_the_end(reader) == (["marker", "1:web=1", "eos@2"], 2)


async def test_saying_it_twice_or_before_the_last_append_is_the_same() -> None:
    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        appender.finish()
        await appender.append([event(1, "web")])
        appender.finish()
        return 1

    async with open_publisher({HEALTH: Source(snapshot, finishes=True)}, index=1) as publisher:
        assert await to_the_end(publisher.subscribe(WEB)) == (["1:web=ok", "eos@1"], 1)


async def test_a_snapshot_that_is_ahead_and_says_it_drops_what_is_published_later() -> None:
    """D2, D18: the commits up to it are late, and not wrong."""
    async with archived("web") as (archive, publisher):
        archive.store.publisher = None
        archive.store.commit(("web", "3"))
        archive.store.commit(("web", "4"))
        reader, late = publisher.subscribe(WEB), publisher.subscribe(WEB)
        assert await to_the_end(reader) == (["4:web=4", "eos@4"], 4)
        assert kinds(await until_live(late)) == ["4:web=4", "eos@4"]
        publisher.publish([event(3, "web", "3")])
        publisher.publish([event(4, "web", "4")], finish=[(HEALTH, "web")])
        assert await to_the_end(late) == ([], 4)


@pytest.mark.parametrize("ahead", [False, True])
async def test_who_waits_for_the_same_subject_is_told_as_soon_as_its_index_is_published(ahead: bool) -> None:
    """D5: what one reader's snapshot says is so for all of them; it does not depend on how they wait."""
    ends: list[str] = []

    async def wait(waiting: Subscription[Health]) -> None:
        with pytest.raises(EndOfSubject):
            await waiting.receive()
        ends.append("told")

    async with archived("web") as (archive, publisher), anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait, publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2)))
        await quiet()
        if ahead:
            archive.store.publisher = None
            archive.store.commit(("other", "3"))
            archive.store.commit(("other", "4"))
        assert await to_the_end(publisher.subscribe(WEB)) == (
            ["1:web=1", f"eos@{4 if ahead else 2}"],
            4 if ahead else 2,
        )
        await quiet()
        if ahead:
            publisher.publish([event(3, "other")])
            await quiet()
            assert ends == []
            publisher.publish([event(4, "other")])
            await quiet()
        assert ends == ["told"] * 3


async def test_nobody_is_told_of_the_end_before_what_comes_up_to_it() -> None:
    """D3: the snapshot of another is ahead of what is published."""
    async with archived("web") as (archive, publisher):
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2))
        archive.store.publisher = None
        archive.store.commit(("web", "3"))
        archive.store.commit(("web", "4"))
        assert await to_the_end(publisher.subscribe(WEB)) == (["4:web=4", "eos@4"], 4)
        with pytest.raises(WouldBlock):
            reader.receive_nowait()
        publisher.publish([event(3, "web", "3")])
        assert kinds(ready(reader)) == ["3:web=3"]
        publisher.publish([event(4, "web", "4")])
        assert await to_the_end(reader) == (["4:web=4"], 4)


async def test_a_union_is_not_finished_by_what_a_snapshot_of_one_key_has_said() -> None:
    """D22: only by commits, and by its own snapshot; those who wait are woken by the commit that is the last one."""
    ended: list[tuple[list[str], int]] = []

    async def read() -> None:
        ended.append(await to_the_end(reader))

    async with archived("web") as (archive, publisher), anyio.create_task_group() as tasks:
        keeps = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2))
        archive.store.publisher = None
        archive.store.commit(("other", "3"))
        archive.store.commit(("other", "4"))
        await to_the_end(publisher.subscribe(WEB))
        publisher.publish((), index=3, finish=[(HEALTH, "db")])
        reader = publisher.subscribe((WEB | DB).after(Cursor(3, publisher.epoch)))
        tasks.start_soon(read)
        await quiet()
        publisher.publish([event(4, "other")])
        await quiet()
        assert ended == []
        assert await to_the_end(keeps) == ([], 4)
        publisher.publish((), index=5, finish=[(HEALTH, "web")])
        await quiet()
        assert ended == [([], 5)]


async def test_nothing_is_left_of_snapshots_that_were_ahead_of_what_is_published() -> None:
    """D13: of very many who came and went before that was reached."""

    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        await appender.append([event(9, "web")])
        appender.finish()
        return 9

    async def come_and_go(times: int) -> int:
        for _ in range(times):
            await to_the_end(publisher.subscribe(WEB))
        await quiet()
        gc.collect()
        return len(gc.get_objects())

    source = Source(snapshot, finishes=True)
    async with open_publisher({HEALTH: source}, index=1, snapshot_cache_ttl=0) as publisher:
        before = await come_and_go(10)
        assert await come_and_go(100) < before + 100


async def test_a_finish_that_both_say_is_one() -> None:
    async with archived("web") as (archive, publisher):
        archive.store.commit(finish=["web"])
        assert await to_the_end(publisher.subscribe(WEB)) == (["1:web=1", "eos@3"], 3)
        resumed = publisher.subscribe(SubscribeRequest(HEALTH, "web", index=2))
        assert await to_the_end(resumed) == ([], 3)


@pytest.mark.parametrize("finished", [("web",), ("web", "db"), ()])
async def test_a_union_ends_if_the_snapshots_of_all_its_keys_say_so(finished: tuple[str, ...]) -> None:
    """D22."""
    async with archived(*finished) as (archive, publisher):
        reader = publisher.subscribe(WEB | DB)
        await quiet()
        if finished == ("web", "db"):
            got, index = await to_the_end(reader)
            assert (sorted(got), index) == (["1:web=1", "2:db=2", "eos@2"], 2)
            return
        assert kinds(ready(reader))[-1] == "eos@2"
        archive.store.commit(("db", "3"), finish=["db"])
        assert kinds(ready_or_end(reader)) == ["3:db=3"]
        if not finished:
            assert reader.state is SubscriptionState.LIVE
            archive.store.commit(("web", "4"), finish=["web"])
            assert await to_the_end(reader) == (["4:web=4"], 4)
        else:
            assert await to_the_end(reader) == ([], 3)


def ready_or_end(reader: Subscription[Health]) -> list[Event[Health]]:
    """What is ready, also if the end comes next."""
    events: list[Event[Health]] = []
    while not events or reader.statistics().lag:
        events.append(reader.receive_nowait())
    return events


async def test_one_who_has_had_all_of_a_snapshot_that_says_it_does_not_fall_off() -> None:
    """D6: nothing was missed."""
    async with archived("web", history=2) as (archive, publisher):
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        for _ in range(5):
            archive.store.commit(("db", "x"))
        assert await to_the_end(reader) == ([], 2)


async def test_of_a_publisher_that_stops_the_snapshot_is_read_and_then_the_subject_ends() -> None:
    """D5."""
    async with archived("web") as (_, publisher):
        reader = publisher.subscribe(WEB)
        await quiet()
    assert await to_the_end(reader) == (["1:web=1", "eos@2"], 2)


async def test_the_close_of_a_token_overtakes_the_end() -> None:
    """D9."""
    async with archived("web") as (_, publisher):
        reader = publisher.subscribe(SubscribeRequest(HEALTH, "web", token="t"))
        await until_live(reader)
        publisher.close_subscriptions(["t"])
        with pytest.raises(SubscriptionForceClosed) as ended:
            await reader.receive()
        assert ended.value.reason is CloseReason.TOKEN


async def test_a_snapshot_that_said_it_and_then_fails_has_failed() -> None:
    """D5: what a function says that fails is not so."""

    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        await appender.append([event(1, "web")])
        appender.finish()
        raise OSError("disk")

    async with open_publisher({HEALTH: Source(snapshot, finishes=True)}, index=1) as publisher:
        reader = publisher.subscribe(WEB)
        await quiet()
        with pytest.raises(SnapshotFailed):
            while True:
                await reader.receive()
        live = publisher.subscribe(LIVE)
        publisher.publish([event(2, "web")])
        assert kinds(ready(live)) == ["2:web=ok"]


# Who may say it.

WIDER: dict[str, SubscribeRequest[Health]] = {
    "every key": SubscribeRequest(HEALTH),
    "a prefix": SubscribeRequest(HEALTH, "we", prefix=True),
    "every namespace": SubscribeRequest(HEALTH, "web", namespace=ALL),
    "every partition": SubscribeRequest(HEALTH, "web", partition=ALL),
}


def finishing(refused: list[type[Exception]]) -> Callable[..., object]:
    """A snapshot function that says it always, and remembers why it was refused."""

    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        try:
            appender.finish()
        except RuntimeError as error:
            refused.append(type(error))
        return 1

    return snapshot


@pytest.mark.parametrize("request_", WIDER.values(), ids=WIDER)
async def test_only_a_request_of_one_key_can_be_finished(request_: SubscribeRequest[Health]) -> None:
    """D18: a function that forgot to look fails at once, and its reader goes on."""
    refused: list[type[Exception]] = []
    source = Source(finishing(refused), wide=True, finishes=True)  # type: ignore[arg-type]
    async with open_publisher({HEALTH: source}, index=1) as publisher:
        reader = publisher.subscribe(request_)
        assert kinds(await until_live(reader)) == ["eos@1"]
        assert refused == [RuntimeError]
        publisher.publish([event(2, "web")])
        assert kinds(ready(reader)) == ["2:web=ok"]


async def test_a_source_that_does_not_finish_cannot_say_it() -> None:
    """D18."""
    refused: list[type[Exception]] = []
    async with open_publisher({HEALTH: finishing(refused)}, index=1) as publisher:  # type: ignore[dict-item]
        reader = publisher.subscribe(WEB)
        assert kinds(await until_live(reader)) == ["eos@1"]
        assert refused == [RuntimeError]
        publisher.publish([event(2, "web")])
        assert kinds(ready(reader)) == ["2:web=ok"]


async def test_a_refusal_that_the_function_does_not_catch_is_its_failure() -> None:
    """D16."""
    async with archived("web", finishes=False) as (_, publisher):
        reader = publisher.subscribe(WEB)
        await quiet()
        with pytest.raises(SnapshotFailed) as failed:
            while True:
                await reader.receive()
        assert isinstance(failed.value.__cause__, RuntimeError)
        assert "finishes" in str(failed.value.__cause__)


async def test_it_cannot_be_said_when_the_function_has_returned() -> None:
    """D18."""
    async with archived("web") as (archive, publisher):
        reader = publisher.subscribe(DB)
        await until_live(reader)
        with pytest.raises(ClosedResourceError):
            archive.appenders[0].finish()
        archive.store.commit(("db", "3"))
        assert kinds(ready(reader)) == ["3:db=3"]


@pytest.mark.parametrize("finishes", [None, 1, "yes"])
async def test_whether_a_source_finishes_is_true_or_false(finishes: object) -> None:
    """D18."""
    with pytest.raises(TypeError):
        EventPublisher({HEALTH: Source(Catalogue().snapshot, finishes=finishes)})  # type: ignore[arg-type]


async def test_what_a_snapshot_has_said_is_forgotten_when_nobody_reads_it_any_more() -> None:
    """D11, D13: it is the function's to say it again."""
    async with archived("web", snapshot_cache_ttl=0) as (archive, publisher):
        assert await to_the_end(publisher.subscribe(WEB)) == (["1:web=1", "eos@2"], 2)
        archive.finished.clear()
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        archive.store.commit(("web", "3"))
        assert kinds(ready(reader)) == ["3:web=3"]


async def test_it_is_forgotten_too_where_the_history_has_something_of_the_subject() -> None:
    """D11: what is kept is the events, not the end that only a snapshot has said."""
    async with archived("web", snapshot_cache_ttl=0) as (archive, publisher):
        archive.store.commit(("web", "3"))
        assert await to_the_end(publisher.subscribe(WEB)) == (["3:web=3", "eos@3"], 3)
        archive.finished.clear()
        reader = publisher.subscribe(WEB)
        await until_live(reader)
        archive.store.commit(("web", "4"))
        assert kinds(ready(reader)) == ["4:web=4"]


async def test_events_of_what_only_a_snapshot_has_called_finished_do_no_harm() -> None:
    """D5, D18: the publisher may refuse them; who was told the end is not told anything after it."""
    async with archived("web") as (archive, publisher):
        ended, late = publisher.subscribe(WEB), publisher.subscribe(WEB)
        await to_the_end(ended)
        await until_live(late)
        wide = publisher.subscribe(SubscribeRequest(HEALTH, index=2))
        try:
            archive.store.commit(("web", "3"))
        except InvalidCommitError:
            assert publisher.index == 2
            assert await to_the_end(late) == ([], 2)
        else:
            assert kinds(ready(wide)) == ["3:web=3"]
        await to_the_end(ended)


async def test_nothing_is_left_of_very_many_subjects_whose_snapshots_were_ahead() -> None:
    """D13: each of another index, none of which is ever published."""
    newest = iter(range(10, 10_000))

    async def snapshot(_: SubscribeRequest[Health], appender: SnapshotAppender[Health]) -> int:
        appender.finish()
        return next(newest)

    async def come_and_go(times: int) -> int:
        for number in range(times):
            await to_the_end(publisher.subscribe(SubscribeRequest(HEALTH, f"{number}")))
        await quiet()
        gc.collect()
        return len(gc.get_objects())

    source = Source(snapshot, finishes=True)
    async with open_publisher({HEALTH: source}, index=1, snapshot_cache_ttl=0) as publisher:
        before = await come_and_go(10)
        assert await come_and_go(100) < before + 100


async def test_who_comes_back_after_an_end_that_a_snapshot_has_said_starts_afresh_and_ends_again() -> None:
    """D7: nobody remembers that end, so a resume there would wait for ever."""
    async with archived("web", snapshot_cache_ttl=0) as (_, publisher):
        reader = publisher.subscribe(WEB)
        await to_the_end(reader)
        assert reader.resume_request() == WEB
        await to_the_end(publisher.subscribe(reader.resume_request()))
