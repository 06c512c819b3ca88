"""No space left: the commit is a `StoreError` and absent, all that was acknowledged stays, and later it goes on."""

import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from evidence import count
from faults.following import caught_up, log, reading
from stores.storehouse import open_at, put, python, sql, state

from trio_stream.stores import Put, Store, StoreError, open_store_publisher

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

KILOBYTES = 1024

# Commits until an error, within a limit for the size of a file; says what was acknowledged, then the error.
LIMITED = """
import resource, signal, sys, anyio
from trio_stream.stores import Put, StoreError, open_store

async def main():
    async with open_store("sqlite:" + sys.argv[1]) as store:
        await store.commit([Put("jobs", "first", 0)])
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
        failed = 0
        while failed < 3:
            number = (await store.head()).index
            try:
                print(await store.commit([Put("jobs", f"{number}", "x" * 9000), Put("jobs", "last", number)]))
            except StoreError as error:
                failed += 1
                print(f"{type(error).__name__}: {error}")
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(await store.commit([Put("jobs", "after", 1)]))

anyio.run(main)
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    if not sys.platform.startswith("linux"):
        pytest.skip("missing: tmpfs, which is Linux's")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("missing: the command mount")
    if mounted.returncode:
        pytest.skip(f"missing: the right to mount a tmpfs (root and CAP_SYS_ADMIN): {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def fill(store: Store) -> int:
    """Commits until there is no space; the index of the last one that was acknowledged."""
    index = (await store.head()).index
    while index < 1000:
        try:
            index = await store.commit([put(f"{index}", "x" * 9000), put("last", index)])
        except StoreError as error:
            assert "out of disk space" in str(error) or "cannot be read or written" in str(error)
            return index
    raise AssertionError("the disk is larger than thought")


async def test_a_full_disk_refuses_commits_and_keeps_all_others(small_disk: Path) -> None:
    path = small_disk / "jobs.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(100 * KILOBYTES))
    async with open_at(path) as store, open_store_publisher(store, ["jobs"]) as publisher:
        async with reading(publisher) as reader:
            index = await fill(store)
            assert index > 5
            for _ in range(3):
                with pytest.raises(StoreError, match=str(path)):
                    await store.commit([put("big", "x" * 300 * KILOBYTES)])
                assert (await store.head()).index == index
            kept = await state(store)
            assert kept["last"] == index - 1
            assert "big" not in kept
            remove(ballast)
            assert await store.commit([put("after")]) == index + 1
            assert await caught_up(publisher, store) == index + 1
            await anyio.wait_all_tasks_blocked()
        reader.check({(await store.head()).epoch: await log(store)})
        assert reader.ends == []
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    count(
        "fault",
        "no space on the disk: a `StoreError`, the commit absent, all others kept, later it goes on",
        4,
    )


async def test_a_full_temporary_disk_fails_the_scan_that_needs_it_and_no_other(
    small_disk: Path, path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reader has not read yet waits in a temporary file, which is shared."""
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    rows = 3000
    await store.commit([Put("jobs", f"{n:05}", n, "small") for n in range(rows)])
    await store.commit([put(f"{n:05}", "x" * 100_000) for n in range(30)])  # a page is larger than the disk
    async with store.list("jobs", namespace="small") as entries:
        keys = [(await anext(entries))[0]]
        for _ in range(3):
            with pytest.raises(
                StoreError, match=f"{path}: a temporary file in {small_disk}.*: No space left"
            ):
                await state(store)
        keys += [key async for key, _ in entries]
    assert keys == [f"{n:05}" for n in range(rows)]
    assert await store.commit([put("a")]) == 3
    monkeypatch.undo()
    assert len(await state(store)) == 31
    count(
        "fault",
        "no space for temporary files: a `StoreError` for the snapshot that needs it, no harm to others",
        3,
    )


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="missing: limits for the size of a file, of POSIX")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_file_that_may_not_grow_refuses_commits_and_keeps_all_others(path: Path) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    limited = python(LIMITED, str(path), str(200 * KILOBYTES), stdout=subprocess.PIPE)
    output, _ = limited.communicate(timeout=60)
    assert limited.returncode == 0
    lines = output.splitlines()
    told = [int(line) for line in lines if line.isdecimal()]
    errors = [line for line in lines if not line.isdecimal()]
    assert told == list(range(2, len(told) + 2))
    assert len(errors) == 3
    # SQLite cannot tell this from a disk that has failed behind the commit.
    assert all(error.startswith(f"CommitUnknownError: {path}: ") for error in errors)
    async with open_at(path) as store:
        assert (await store.head()).index == told[-1]
        assert (await state(store))["after"] == 1
        assert len(await log(store)) == told[-1]
        assert await store.commit([Put("jobs", "end", 1)]) == told[-1] + 1
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
    count(
        "fault",
        "the file may not grow: a `StoreError`, the commit absent, all others kept, later it goes on",
        3,
    )
