"""U21: one commit that cannot be read concerns its topics; the other commits, and the other topics, go on."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from stores.engines import Plain, Stepping
from stores.readers import until_index
from stores.storehouse import (
    ALL_JOBS,
    PATIENCE,
    commit_each,
    kinds,
    put,
    receive,
    sql,
    take,
    until_live,
)
from typing_extensions import override

from trio_stream import CloseReason, SubscribeRequest, Subscription, SubscriptionForceClosed
from trio_stream.stores import (
    Commit,
    Put,
    Record,
    Store,
    StoreError,
    UnreadableCommitError,
    open_store_publisher,
    topic,
)

pytestmark = pytest.mark.anyio

USERS = topic("users")
ALL_USERS = SubscribeRequest(USERS)
NEWER_JOB = '[["move","jobs","default","a","b"]]'
# With one operation of each topic, one of which is of a kind that nobody knows here.
NEWER_JOB_AND_USER = '[["put","users","default","u",1],["move","jobs","default","a","b"]]'
GARBAGE = '[["put","us'

# Both ways to follow a store: by topic, and all of it.
both_ways = pytest.mark.parametrize("way", [lambda store: store, Plain], ids=["by topic", "all"])
Way = Callable[[Store], Store]


def append(path: Path, *texts: str, missing: int = 0) -> None:
    """Commits, with this in the log, in one transaction; the state stays as it is.

    So many others come before them, of which the log has none.
    """
    statements = ["BEGIN", f"UPDATE ts_head SET idx = idx + {missing}"]
    for text in texts:
        quoted = text if text.startswith("CAST(") else "'" + text.replace("'", "''") + "'"
        statements += [
            "UPDATE ts_head SET idx = idx + 1",
            f"INSERT INTO ts_log SELECT idx, randomblob(8), {quoted}, 0, '' FROM ts_head",
        ]
    sql(path, *statements, "COMMIT")


def good(key: str, name: str = "jobs") -> str:
    return f'[["put","{name}","default","{key}","{key}"]]'


async def refreshed(subscription: Subscription[Record]) -> None:
    """It is closed, so that its reader takes a new snapshot."""
    with pytest.raises(SubscriptionForceClosed) as caught, anyio.fail_after(PATIENCE):
        while True:
            await subscription.receive()
    assert caught.value.reason is CloseReason.REFRESH


@pytest.mark.parametrize(
    ("text", "topics"),
    [
        ("", None),
        (GARBAGE, None),
        ('{"a": 1}', None),
        ("1", None),
        ("[1]", None),
        ("[[1, 2]]", None),
        ('[["put"]]', None),
        ("[" * 100_000, None),
        ("CAST(x'5b5b22707574222c22ff225d5d' AS TEXT)", None),
        ("CAST(x'00' AS BLOB)", None),
        ('[["put", "jobs"]]', {"jobs"}),
        ('[["put", "jobs", 3, "a", 1]]', {"jobs"}),
        ('[["put", "jobs", "default", "", 1]]', {"jobs"}),
        ('[["put", "jobs", "default", "a\\u0000", 1]]', {"jobs"}),
        ('[["put", "jobs", "default", "\\ud800", 1]]', {"jobs"}),
        ('[["delete", "jobs", "default", "a", 1]]', {"jobs"}),
        (NEWER_JOB, {"jobs"}),
        ('[["put","jobs"],["move","users","u"]]', {"jobs", "users"}),
        ('[["put","jobs"],["move",{}]]', None),
    ],
)
async def test_the_error_says_which_commit_it_is_and_whom_it_concerns(
    store: Store, path: Path, text: str, topics: frozenset[str] | None
) -> None:
    append(path, text)
    with pytest.raises(UnreadableCommitError) as caught:
        async with store.changes(0) as commits:
            await take(commits, 1)
    assert (caught.value.index, caught.value.operations) == (1, ())
    assert caught.value.topics == topics
    assert isinstance(caught.value, StoreError)
    assert str(caught.value) == f"{path}: damaged: commit 1 of the log cannot be read"


async def test_the_error_has_what_the_commit_did_to_other_topics(store: Store, path: Path) -> None:
    append(path, '[["put","jobs","default","a",1],["move","jobs","a"],["put","users","default","u",1]]')
    with pytest.raises(UnreadableCommitError) as caught:
        async with store.changes(0) as commits:
            await take(commits, 1)
    assert caught.value.topics == frozenset({"jobs"})
    assert caught.value.operations == (Put("users", "u", 1),)


async def test_changes_give_the_commits_before_it_and_can_go_on_behind_it(store: Store, path: Path) -> None:
    append(path, good("a"), good("b"), NEWER_JOB, good("c"))
    async with store.changes(0) as commits:
        assert await take(commits, 2) == [1, 2]
        for _ in range(2):
            with pytest.raises(UnreadableCommitError, match="commit 3 of"):
                await take(commits, 1)
    async with store.changes(3) as commits:
        assert await take(commits, 1) == [4]


async def test_changes_go_on_behind_commits_that_are_missing(store: Store, path: Path) -> None:
    append(path, good("a"), good("b"), good("c"), good("d"))
    sql(path, "DELETE FROM ts_log WHERE idx IN (2, 3)")
    async with store.changes(0) as commits:
        assert await take(commits, 1) == [1]
        with pytest.raises(UnreadableCommitError, match="commit 2 is missing") as caught:
            await take(commits, 1)
    assert (caught.value.index, caught.value.topics) == (3, None)
    async with store.changes(3) as commits:
        assert await take(commits, 1) == [4]


@both_ways
async def test_readers_of_the_topic_start_again_and_those_of_others_do_not_notice(
    store: Store, path: Path, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store_publisher(way(store), ["jobs", "users"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as jobs, publisher.subscribe(ALL_USERS) as users:
            await until_live(jobs)
            await until_live(users)
            append(path, good("t", "users"), NEWER_JOB_AND_USER, good("v", "users"), good("a"))
            assert kinds([await receive(users) for _ in range(3)]) == ["1:t=t", "2:u=1", "3:v=v"]
            await refreshed(jobs)
        await until_index(publisher, 4)
        async with publisher.subscribe(jobs.resume_request()) as jobs:
            assert kinds(await until_live(jobs)) == ["eos@4"]
            await store.commit([put("b")])
            assert kinds([await receive(jobs)]) == ["5:b=x"]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [f"subscribers must start again: {path}: damaged: commit 2 of the log cannot be read"]


@both_ways
@pytest.mark.parametrize(
    "text",
    [
        GARBAGE,
        "",
        '[["put","users","default","u",oops]]',
        "CAST(x'5b5b22707574222c226a6f6273222c22ff225d5d' AS TEXT)",
        "[[1]]",
        '{"put":["jobs"]}',
    ],
)
async def test_one_that_says_nothing_of_its_topics_concerns_all(
    store: Store, path: Path, way: Way, text: str
) -> None:
    async with open_store_publisher(way(store), ["jobs", "users"]) as publisher:
        async with publisher.subscribe(ALL_JOBS) as jobs, publisher.subscribe(ALL_USERS) as users:
            await until_live(jobs)
            await until_live(users)
            append(path, text, good("a"))
            await refreshed(jobs)
            await refreshed(users)
        await until_index(publisher, 2)


@both_ways
async def test_a_commit_that_is_missing_concerns_all(store: Store, path: Path, way: Way) -> None:
    append(path, good("a"), good("b"), good("c"))
    sql(path, "DELETE FROM ts_log WHERE idx = 2")
    async with open_store_publisher(way(store), ["users", "jobs"]) as publisher:
        assert publisher.index == 3
        for request in (ALL_JOBS, ALL_USERS):
            resumed = replace(request, index=1)
            async with publisher.subscribe(resumed) as subscription:
                assert kinds([await receive(subscription)]) == ["marker"]


@both_ways
@pytest.mark.parametrize("running", [True, False])
async def test_nobody_resumes_between_commits_that_are_missing_in_a_row(
    store: Store, path: Path, way: Way, running: bool
) -> None:
    """D6: who has seen the first of them, at another process, has not seen the last."""
    append(path, good("a"))
    if not running:
        append(path, good("e"), missing=3)
    async with open_store_publisher(way(store), ["jobs", "users"]) as publisher:
        if running:
            append(path, good("e"), missing=3)
        await until_index(publisher, 5)
        for request in (ALL_JOBS, ALL_USERS):
            for index in (1, 2, 3):
                resumed = replace(request, index=index)
                async with publisher.subscribe(resumed) as subscription:
                    assert kinds([await receive(subscription)]) == ["marker"]
        async with publisher.subscribe(replace(ALL_JOBS, index=4)) as subscription:
            assert kinds([await receive(subscription)]) == ["5:e=e"]


@both_ways
async def test_one_that_concerns_only_topics_that_are_not_published_is_passed_over(
    store: Store, path: Path, way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store_publisher(way(store), ["users"]) as publisher:
        async with publisher.subscribe(ALL_USERS) as users:
            await until_live(users)
            append(path, NEWER_JOB, NEWER_JOB_AND_USER, NEWER_JOB, good("v", "users"))
            assert kinds([await receive(users), await receive(users)]) == ["2:u=1", "4:v=v"]
    assert caplog.records == []


@both_ways
@pytest.mark.parametrize("running", [True, False])
async def test_nobody_resumes_over_it_and_who_has_seen_the_state_behind_it_goes_on(
    store: Store, path: Path, way: Way, running: bool
) -> None:
    """D6, D7: also a client of another process, and also at a publisher that is started later."""
    if not running:
        append(path, good("a"), NEWER_JOB, good("b"))
    async with open_store_publisher(way(store), ["jobs"]) as publisher:
        if running:
            append(path, good("a"), NEWER_JOB, good("b"))
            await until_index(publisher, 3)
        for index in (1, 0):
            request = replace(ALL_JOBS, index=index)
            async with publisher.subscribe(request) as subscription:
                assert kinds(await until_live(subscription))[-1] == "eos@3"
        async with publisher.subscribe(replace(ALL_JOBS, index=2)) as subscription:
            assert kinds([await receive(subscription)]) == ["3:b=b"]


async def test_a_reader_that_was_ahead_of_it_by_its_snapshot_starts_again(store: Store, path: Path) -> None:
    """Its state may have what the commit did, but nobody can tell."""

    class Held(Stepping):
        @override
        async def step(self, commits: AsyncIterator[Commit], after: int) -> Commit:
            await may_go_on.wait()
            return await super().step(commits, after)

    may_go_on = anyio.Event()
    may_go_on.set()
    async with open_store_publisher(Held(store), ["jobs"]) as publisher:
        await commit_each(store, "a")
        await until_index(publisher, 1)
        may_go_on = anyio.Event()
        await commit_each(store, "b")
        await until_index(publisher, 2)  # it has waited for this one already
        append(path, NEWER_JOB)
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == ["1:a=a", "2:b=b", "eos@3"]
            may_go_on.set()
            await refreshed(subscription)
        await until_index(publisher, 3)


@both_ways
@pytest.mark.parametrize("texts", [(NEWER_JOB,), (GARBAGE, NEWER_JOB), (good("a"), NEWER_JOB, GARBAGE)])
async def test_a_publisher_begins_over_them(
    store: Store, path: Path, way: Way, texts: tuple[str, ...]
) -> None:
    append(path, *texts)
    async with open_store_publisher(way(store), ["jobs"]) as publisher:
        assert publisher.index == len(texts)
        async with publisher.subscribe(ALL_JOBS) as subscription:
            assert kinds(await until_live(subscription)) == [f"eos@{len(texts)}"]
            await store.commit([put("b")])
            assert kinds([await receive(subscription)]) == [f"{len(texts) + 1}:b=x"]


@both_ways
async def test_very_many_of_them_are_a_few_warnings_and_no_wait(
    store: Store, path: Path, way: Way, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is progress: the next one is read at once."""

    def uniform(low: float, high: float) -> float:
        raise AssertionError("there is nothing to wait for")

    monkeypatch.setattr("random.uniform", uniform)
    async with open_store_publisher(way(store), ["jobs", "users"]) as publisher:
        async with publisher.subscribe(ALL_USERS) as users:
            await until_live(users)
            append(path, *[NEWER_JOB] * 50, good("v", "users"))
            assert kinds([await receive(users)]) == ["51:v=v"]
    assert len(caplog.records) == 10


async def test_the_topic_is_found_however_its_name_is_written(store: Store) -> None:
    """In the text of the log it is quoted, and some characters of it are escaped."""
    names = ['"', "\\", 'a"b', "\n", "ü", "\U0001f600", "</", "\x7f", "\x01", "%_", "'", "\u2028", "A"]
    async with open_store_publisher(store, names[:13]) as publisher:
        subscriptions = [publisher.subscribe(SubscribeRequest(topic(name))) for name in names]
        for subscription in subscriptions:
            await until_live(subscription)
        for name in names:
            await store.commit([Put(name, "k", json.dumps(name))])
        for number, subscription in enumerate(subscriptions):
            assert (await receive(subscription)).index == number + 1
            subscription.unsubscribe()
