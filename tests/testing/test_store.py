"""`check_store`: the stores of the library and one in memory pass every check, and more than a hundred wrong ones fail.

Each wrong store is tried with the check that is about it, and the message says which promise it breaks.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest
import trio
from testing.memory_store import MemoryFactory, MemoryStore
from testing.wrong_commits import WRONG_COMMITS
from testing.wrong_feeds import WRONG_FEEDS
from testing.wrong_hooks import WRONG_HOOKS
from testing.wrong_options import WRONG_OPTIONS
from testing.wrong_reads import WRONG_READS

from trio_stream.stores import Put, Store, open_store
from trio_stream.stores.sqlite import backup_sqlite_store, restore_sqlite_store
from trio_stream.testing import STORE_CHECKS, PromiseBroken, StoreCheck, StoreReport, check_store

pytestmark = pytest.mark.anyio

WRONG_STORES: dict[type[Store], str] = {
    **WRONG_COMMITS,
    **WRONG_READS,
    **WRONG_FEEDS,
    **WRONG_OPTIONS,
    **WRONG_HOOKS,
}
CHECKS = {check.__name__: check for check in STORE_CHECKS}

# They take more than a second.
LONG = {
    "a_list_is_whole_however_long",
    "all_agree_while_writers_go_on",
    "a_commit_is_seen_whole",
    "any_course_of_calls_gives_what_a_model_says",
    "changes_go_on_and_on",
    "changes_outlast_silence",
    "many_read_at_once",
    "no_larger_commits_than_the_limit",
    "no_larger_values_than_the_limit",
    "no_more_operations_than_the_limit",
    "slow_readers_hold_nobody_up",
    "the_log_can_be_read_by_pages",
    "the_newest_revocations_are_remembered",
    "wide_snapshots_have_what_they_are_asked_for",
}

each_check = pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=name, marks=[pytest.mark.slow] if name in LONG else [])
        for name, check in CHECKS.items()
    ],
)


class SQLiteFactory:
    """Opens one file; a copy is put back by `restore`, or under nobody's eyes by moving files."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "checked.db"
        self.copies = folder / "copies"
        self.copies.mkdir()
        self.opened = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Store]:
        async with open_store(f"sqlite:{self.path}", synchronous="OFF") as store:
            self.opened += 1
            yield store
            self.opened -= 1

    async def save(self) -> Path:
        copy = Path(tempfile.mkdtemp(dir=self.copies)) / "copy.db"
        await backup_sqlite_store(str(self.path), str(copy))
        return copy

    async def rewind(self, saved: Path) -> None:
        await anyio.lowlevel.checkpoint()
        if self.opened:
            await restore_sqlite_store(str(saved), str(self.path))
        else:
            self.move(saved)

    def move(self, saved: Path) -> None:
        """Nobody has it open."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        shutil.copy(saved, self.path)


NOT_OF_SQLITE = {
    "what_was_acknowledged_outlives_a_kill": "the factory does not offer `kill`",
    "a_restart_of_the_server_loses_nothing": "the factory does not offer `restart`",
}


@each_check
async def test_the_sqlite_store_conforms(check: StoreCheck, tmp_path: Path) -> None:
    reason = await check(SQLiteFactory(tmp_path))
    assert reason == NOT_OF_SQLITE.get(check.__name__, reason_on_this_loop(check))


NOT_IN_MEMORY = {
    "the_log_can_be_read_by_topic": "the store does not offer to read its log by topic",
    "the_log_can_be_read_by_pages": "the store does not offer pages of its log",
}


@pytest.mark.parametrize(("anyio_backend", "has_gaps"), [("asyncio", False), ("trio", True)])
@each_check
async def test_a_store_in_memory_that_was_used_before_conforms(
    check: StoreCheck, anyio_backend: str, has_gaps: bool
) -> None:
    factory = MemoryFactory(has_gaps=has_gaps, rewinds_are_noticed=has_gaps)
    async with factory() as store:
        for number in range(5):
            await store.commit([Put("jobs", "a", number)])
        await store.compact(4)
    assert await check(factory) == NOT_IN_MEMORY.get(check.__name__, reason_on_this_loop(check))


def reason_on_this_loop(check: StoreCheck) -> str | None:
    is_native = check.__name__ == "a_commit_cancelled_natively_is_whole_or_absent"
    return "trio has no native cancellation" if is_native and trio.lowlevel.in_trio_run() else None


@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", WRONG_STORES, ids=lambda kind: kind.__name__)
async def test_a_wrong_store_is_refused_and_the_message_says_which_promise(
    kind: type[Store], anyio_backend: str
) -> None:
    names = WRONG_STORES[kind].split("|")
    with pytest.raises(PromiseBroken) as caught:
        for name in names:
            await CHECKS[name](MemoryFactory(kind), patience=3)
    assert caught.value.promise.startswith("store, ")
    assert caught.value.difference


def test_there_are_enough_wrong_stores_and_each_names_a_check() -> None:
    assert len(WRONG_STORES) > 190
    named = {name for names in WRONG_STORES.values() for name in names.split("|")}
    assert named <= CHECKS.keys()


async def test_what_could_not_be_checked_is_reported_with_the_reason() -> None:
    names = ["indexes_increase", "an_older_copy_is_told_from_the_newer_one", "the_log_can_be_read_by_pages"]
    factory = MemoryFactory()

    def without_hooks() -> AbstractAsyncContextManager[Store]:
        return factory()

    report = await check_store(without_hooks, checks=[CHECKS[name] for name in names])
    assert report == StoreReport(
        ("indexes_increase",),
        {
            "an_older_copy_is_told_from_the_newer_one": "the factory does not offer `save` and `rewind`",
            "the_log_can_be_read_by_pages": "the store does not offer pages of its log",
        },
    )


async def test_the_first_broken_promise_ends_the_checks() -> None:
    with pytest.raises(PromiseBroken, match="the protocol is all there"):
        await check_store(MemoryFactory(next(k for k in WRONG_OPTIONS if k.__name__ == "FirstEdition")))


async def test_a_store_that_does_not_open_breaks_a_promise() -> None:
    @asynccontextmanager
    async def hangs() -> AsyncIterator[Store]:
        await anyio.sleep_forever()
        yield MemoryStore(MemoryFactory().disk)

    with pytest.raises(PromiseBroken, match=r"opening or closing the store did not come back within 0\.1 s"):
        await check_store(hangs, patience=0.1)


async def test_a_store_that_does_not_close_breaks_a_promise() -> None:
    @asynccontextmanager
    async def hangs() -> AsyncIterator[Store]:
        async with MemoryFactory()() as store:
            yield store
        await anyio.sleep_forever()

    with pytest.raises(PromiseBroken, match=r"opening or closing the store did not come back within 0\.1 s"):
        await CHECKS["indexes_increase"](hangs, patience=0.1)


async def open_nothing() -> Store:
    await anyio.lowlevel.checkpoint()
    raise OSError("no such file")


async def test_what_a_factory_raises_is_the_cause() -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[Store]:
        await anyio.lowlevel.checkpoint()
        yield await open_nothing()

    with pytest.raises(PromiseBroken, match="no such file") as caught:
        await check_store(fails)
    assert isinstance(caught.value.__cause__, OSError)
