"""U10: a publisher reads of the log what concerns its topics, in small pages."""

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from stores.engines import Stepping
from stores.storehouse import ALL_JOBS, JOBS, PATIENCE, commit_each, kinds, put, receive, sql, until_live
from stretches import Stretches, stretches
from typing_extensions import override

from trio_stream import Cursor, SubscribeRequest
from trio_stream.stores import (
    Change,
    Commit,
    PagedLog,
    Put,
    Store,
    TopicLog,
    open_store_publisher,
    topic,
)

pytestmark = pytest.mark.anyio

USERS = topic("users")
ALL_USERS = SubscribeRequest(USERS)


class Decoder:
    """Stands in for `json.loads`, and notes of which topics the operations were that it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = json.loads
        self.topics: list[set[str]] = []
        monkeypatch.setattr(json, "loads", self)

    def __call__(self, text: Any, **options: Any) -> Any:
        value = self.loads(text, **options)
        match value:
            case [[_, str(), *_], *_]:
                self.topics.append({each[1] for each in value})
            case _:
                pass  # a value of the state
        return value


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Decoder:
    return Decoder(monkeypatch)


def user(key: str, value: Any = 1) -> Put:
    return Put("users", key, value)


async def fill(store: Store, commits: Sequence[Sequence[Put]]) -> None:
    for operations in commits:
        await store.commit(operations)


async def test_commits_of_other_topics_are_not_decoded(store: Store, decoder: Decoder) -> None:
    """At the start and later; the index has passed them all the same."""
    await fill(store, [[put("a")], [user("u")], [user("u"), put("b")], [user("v")]])
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert publisher.index == 4
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await fill(store, [[user("w")], [user("w")], [put("c")], [user("w")]])
            assert kinds([await receive(subscription)]) == ["7:c=x"]
            with anyio.fail_after(PATIENCE):
                await subscription.wait_published(8)
        resumed = replace(ALL_JOBS, index=1)
        async with publisher.subscribe(resumed) as subscription:
            assert kinds([await receive(subscription), await receive(subscription)]) == ["3:b=x", "7:c=x"]
    assert decoder.topics == [{"jobs"}, {"jobs", "users"}, {"jobs"}]


async def test_a_commit_that_only_seems_to_concern_a_topic_does_no_harm(
    store: Store, decoder: Decoder
) -> None:
    """Its text has the name in quotes, as a key, a namespace or a value."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            await store.commit([Put("users", "jobs", ["jobs"], "jobs"), user("a", {"jobs": "jobs"})])
            await store.commit([put("a")])
            assert kinds([await receive(subscription)]) == ["2:a=x"]
    assert decoder.topics == [{"users"}, {"jobs"}]


@pytest.mark.parametrize("many", [0, 1, 2, 16, 17, 3000])
async def test_any_number_of_topics(store: Store, many: int) -> None:
    async with open_store_publisher(store, [f"t{number}" for number in range(many)]) as publisher:
        subscriptions = [
            publisher.subscribe(SubscribeRequest(topic(f"t{number}")))
            for number in {0, many // 2, many - 1}
            if 0 <= number < many
        ]
        for subscription in subscriptions:
            await until_live(subscription)
        await store.commit([put("a"), *(Put(f"t{number}", "a", 1) for number in range(many))])
        for subscription in subscriptions:
            assert kinds([await receive(subscription)]) == ["1:a=1"]
            subscription.unsubscribe()
        never = SubscribeRequest(topic("t0"), index=9)
        if many:
            async with publisher.subscribe(never) as subscription:
                with anyio.fail_after(PATIENCE):
                    await subscription.wait_published(1)


async def test_a_long_log_of_others_is_passed_in_few_steps(
    store: Store, path: Path, decoder: Decoder
) -> None:
    """Many more commits than one page may look at."""
    async with open_store_publisher(store, ["jobs"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as subscription:
            await until_live(subscription)
            with anyio.fail_after(PATIENCE):
                insert(path, 20_000, user("u"))
                await subscription.wait_published(20_000)
            await store.commit([put("a")])
            assert kinds([await receive(subscription)]) == ["20001:a=x"]
    assert decoder.topics == [{"jobs"}]


def insert(path: Path, count: int, *operations: Put) -> None:
    """So many commits, all the same, in one transaction; the state stays as it is."""
    text = json.dumps([["put", each.topic, each.namespace, each.key, each.value] for each in operations])
    quoted = text.replace(", ", ",").replace("'", "''")
    sql(
        path,
        "BEGIN",
        f"""WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
        INSERT INTO ts_log SELECT idx + i, randomblob(8), '{quoted}', 0, '' FROM ts_head, n""",
        f"UPDATE ts_head SET idx = idx + {count}",
        "COMMIT",
    )


LARGE = "x" * 400_000  # characters, of which three are a page


async def test_every_commit_comes_with_its_mark_also_those_of_others(store: Store, decoder: Decoder) -> None:
    """A client may come from a publisher of their topics."""
    assert isinstance(store, TopicLog)
    await fill(store, [[put("a")], [user("u")], [user("u"), put("b")], [user("v")]])
    async with store.changes(0) as commits:
        marks = [(await anext(commits)).mark for _ in range(4)]
    decoder.topics.clear()
    async with store.changes_of(frozenset({"jobs"}), 0) as commits:
        got = [await anext(commits) for _ in range(4)]
    assert [(each.index, each.mark) for each in got] == list(enumerate(marks, 1))
    assert [[operation.key for operation in each.operations] for each in got] == [["a"], [], ["b"], []]
    assert decoder.topics == [{"jobs"}, {"jobs", "users"}]


async def pages(
    store: Store, request: SubscribeRequest[Any], upto: int, start: int = 0
) -> list[Sequence[Commit]]:
    """All of them."""
    assert isinstance(store, PagedLog)
    cursor = Cursor(start, (await store.head()).epoch)
    got: list[Sequence[Commit]] = []
    while cursor.index < upto:
        got.append(await store.page_of(request, cursor, upto=upto))
        cursor = Cursor(got[-1][-1].index, cursor.epoch, got[-1][-1].mark)
    assert not await store.page_of(request, cursor, upto=upto)
    return got


async def test_a_page_of_a_replay_is_bounded_in_bytes(store: Store) -> None:
    for _ in range(10):
        await store.commit([put("a", LARGE)])
        await store.commit([user("u", LARGE)])
    got = await pages(store, ALL_JOBS, 19)
    assert [commit.index for page in got for commit in page if commit.operations] == [*range(1, 20, 2)]
    assert max(sum(len(commit.operations) for commit in page) for page in got) <= 3


async def test_a_page_is_of_what_is_asked_for_and_of_the_last_commit_that_was_looked_at(
    store: Store, decoder: Decoder
) -> None:
    for number in range(2000):
        await store.commit([put("ab"[number % 2] * (1 + number % 3), number)])
    await store.commit([user("a"), Put("jobs", "a", 0, "blue")])
    await fill(store, [[put("x")], [put("y")]])
    last = (await store.head()).index
    for request, count_ in (
        (SubscribeRequest(JOBS, "a"), 2000 // 6 + 1),
        (SubscribeRequest(JOBS, "bb", prefix=True), 2 * 2000 // 6),
        (ALL_USERS, 1),
        (SubscribeRequest(JOBS, "a") | ALL_USERS, 2000 // 6 + 1),
    ):
        decoder.topics.clear()
        found = await pages(store, request, last)
        assert all(each.operations for page in found for each in page[:-1])
        got = [commit for page in found for commit in page]
        assert got[-1].index == last
        assert abs(len([each for each in got if each.operations]) - count_) <= 2
        assert len(decoder.topics) <= count_ + 2


@pytest.mark.parametrize(
    "key", ['"', "\\", 'a"b', "\n", "ü", "\U0001f600", "</", "\x7f", "\x01", "%_", "'", "\u2028", "A"]
)
async def test_a_key_is_found_however_it_is_written(store: Store, key: str) -> None:
    """In the text of the log it is quoted, and some characters of it are escaped."""
    await commit_each(store, "first", key, f"{key}!", "a")
    for request, indexes in (
        (SubscribeRequest(JOBS, key), [2, 4]),
        (SubscribeRequest(JOBS, key, prefix=True), [2, 3, 4]),
    ):
        got = [commit.index for page in await pages(store, request, 4) for commit in page]
        assert [index for index in got if index in {1, *indexes}] == indexes


async def test_where_reading_is_slow_it_is_done_in_small_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a slow disk: in worker threads each look at the clock is a second later."""
    real, looks = time.monotonic, count()

    def monotonic() -> float:
        is_worker = threading.current_thread() is not threading.main_thread()
        return real() + (next(looks) if is_worker else 0)

    for _ in range(20):
        await fill(store, [[put("a", LARGE)], [user("u")]])
    monkeypatch.setattr("time.monotonic", monotonic)
    async with open_store_publisher(store, ["jobs"]) as publisher:
        assert publisher.statistics().index == 40
        resumed = replace(ALL_JOBS, index=35)
        async with publisher.subscribe(resumed) as subscription:
            await fill(store, [[user("u")], [put("a")], [user("u")], [put("b")]])
            indexes = [(await receive(subscription)).index for _ in range(4)]
            assert indexes == [37, 39, 42, 44]


class AllAtOnce(Stepping):
    """Gives without a checkpoint what it has: an engine need not have any while something is there."""

    def __init__(self, store: Store, commits: Sequence[Commit]) -> None:
        super().__init__(store)
        self.ready = list(reversed(commits))

    @override
    async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
        if not self.ready:
            await anyio.sleep_forever()
        return self.ready.pop()


class Counted(tuple[Change, ...]):
    """Operations that are counted when somebody takes them."""

    __slots__ = ()
    seen: ClassVar[Stretches] = Stretches()

    @override
    def __iter__(self) -> Iterator[Change]:
        for operation in super().__iter__():
            self.seen.count()
            yield operation

    @override
    def __getitem__(self, where: Any) -> Any:
        part = super().__getitem__(where)
        self.seen.count(len(part) if isinstance(where, slice) else 1)
        return part


@pytest.mark.parametrize("anyio_backend", ["trio", "asyncio"])
@pytest.mark.parametrize("name", ["jobs", "users"])
@pytest.mark.parametrize("each", [1, 7, 64, 65, 1000])
async def test_the_feed_has_a_checkpoint_at_least_every_so_many_events(
    store: Store, monkeypatch: pytest.MonkeyPatch, each: int, name: str
) -> None:
    """One commit is published in one piece, but is made ready in several; those of others count, too."""
    operations = Counted(Put(name, f"{number}", 1) for number in range(each))
    many = 2 * 4096 // each
    engine = AllAtOnce(store, [Commit(index + 1, operations) for index in range(many)])
    published: list[int] = []
    async with open_store_publisher(engine, ["jobs"]) as publisher:
        with stretches(calls=False) as seen:
            monkeypatch.setattr(Counted, "seen", seen)
            while publisher.index < many:
                published.append(publisher.index)
                await anyio.lowlevel.checkpoint()
    assert 0 < seen.most_counted <= 64
    steps = [after - before for before, after in pairwise([*published, many])]
    assert max(steps) * each <= 2 * max(
        64, each
    )  # two turns, where the loop takes this task first and then last
