"""A token is revoked by a commit; the store keeps a digest of it, and never the token."""

from pathlib import Path
from typing import Any

import pytest
from stores.storehouse import commit_each, copy, open_at, put, sql

from trio_stream.stores import Commit, Revoke, Store, StoreError, token_digest

pytestmark = pytest.mark.anyio


async def read(store: Store, count: int, after: int = 0) -> list[Commit]:
    async with store.changes(after) as commits:
        return [await anext(commits) for _ in range(count)]


async def test_a_commit_that_revokes_says_the_digests(store: Store) -> None:
    await store.commit([put("a"), Revoke("secret"), Revoke("other"), Revoke("secret")])
    (commit,) = await read(store, 1)
    salt = (await store.revocations()).salt
    assert commit.operations == (put("a"),)
    assert commit.revoked == (token_digest("secret", salt), token_digest("other", salt))


async def test_a_commit_may_do_nothing_but_revoke(store: Store) -> None:
    assert await store.commit([Revoke("secret")]) == 1
    (commit,) = await read(store, 1)
    assert commit.operations == ()
    assert len(commit.revoked) == 1


async def test_the_token_is_nowhere_in_the_file(store: Store, path: Path) -> None:
    await store.commit([Revoke("s3cret-t0ken")])
    files = [path, path.with_name(f"{path.name}-wal")]
    assert not any(b"s3cret-t0ken" in file.read_bytes() for file in files)


async def test_revocations_are_remembered_with_the_newest_index(store: Store) -> None:
    assert dict((await store.revocations()).newest) == {}
    await store.commit([Revoke("x")])
    await store.commit([Revoke("y"), Revoke("z")])
    await store.commit([Revoke("x")])
    found = await store.revocations()
    x, y, z = (token_digest(token, found.salt) for token in "xyz")
    assert list(found.newest.items()) == [(y, 2), (z, 2), (x, 3)]
    assert found.floor == 0


async def test_compaction_forgets_no_revocation(store: Store) -> None:
    await store.commit([Revoke("x")])
    await commit_each(store, "a", "b")
    await store.compact(3)
    found = await store.revocations()
    assert dict(found.newest) == {token_digest("x", found.salt): 1}


async def test_every_store_has_a_salt_of_its_own_and_keeps_it(path: Path, tmp_path: Path) -> None:
    async with open_at(path) as store, open_at(tmp_path / "another.db") as another:
        salt = (await store.revocations()).salt
        assert 16 <= len(salt) <= 64
        assert salt != (await another.revocations()).salt
    async with open_at(path) as store:
        assert (await store.revocations()).salt == salt


async def test_the_oldest_are_forgotten_when_there_are_too_many(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_stream.stores._sqlite_write.MOST_REVOKED", 3)
    for n in range(1, 6):
        await store.commit([Revoke(f"{n}")])
    found = await store.revocations()
    assert list(found.newest.values()) == [3, 4, 5]
    assert found.floor == 2


async def test_a_commit_of_which_some_are_forgotten_is_the_floor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_stream.stores._sqlite_write.MOST_REVOKED", 3)
    await store.commit([Revoke("a")])
    await store.commit([Revoke(f"{n}") for n in range(5)])
    found = await store.revocations()
    assert list(found.newest) == [token_digest(f"{n}", found.salt) for n in (2, 3, 4)]
    assert found.floor == 2


async def test_a_log_by_topic_has_every_commit_that_revokes(store: Any) -> None:
    await commit_each(store, "a")
    await store.commit([put("b"), Revoke("x")])
    await commit_each(store, "c")
    await store.commit([Revoke("y")])
    async with store.changes_of(frozenset({"others"}), 0) as commits:
        found = [await anext(commits) for _ in range(4)]
    assert [len(commit.revoked) for commit in found] == [0, 1, 0, 1]
    assert [commit.operations for commit in found] == [()] * 4


async def test_a_revocation_is_seen_by_another_process_as_any_commit(store: Store, other: Store) -> None:
    async with other.changes(0) as commits:
        await store.commit([Revoke("x")])
        assert (await anext(commits)).revoked == tuple((await store.revocations()).newest)


async def test_revocations_can_be_read_by_those_who_may_only_read(path: Path) -> None:
    async with open_at(path) as store:
        await store.commit([Revoke("x")])
        found = await store.revocations()
    async with open_at(path, read_only=True) as reader:
        assert await reader.revocations() == found


async def test_a_copy_has_the_salt_and_the_revocations(path: Path, tmp_path: Path) -> None:
    async with open_at(path) as store:
        await store.commit([Revoke("x")])
        found = await store.revocations()
    async with open_at(copy(path, tmp_path / "copy.db")) as store:
        assert await store.revocations() == found


async def test_a_head_without_a_salt_is_damaged(store: Store, path: Path) -> None:
    sql(path, "UPDATE ts_head SET salt = 'x'")
    with pytest.raises(StoreError, match=f"{path}: damaged"):
        await store.revocations()
    with pytest.raises(StoreError, match=f"{path}: damaged"):
        await store.commit([Revoke("x")])
    assert await store.commit([put("a")]) == 1
