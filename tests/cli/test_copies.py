"""backup and restore: a copy while others write, and back under those who watch."""

import signal
from pathlib import Path

import pytest
from cli.console import Command, put, run, started


def test_a_backup_can_be_looked_at_and_restored(command: Command, folder: Path) -> None:
    command("put", "jobs", "a", "1")
    backup = command("backup", "copy.db")
    assert (backup.code, backup.out, backup.err) == (0, "copy.db has the store as of 1\n", "")
    command("put", "jobs", "b", "2")
    assert command("--store", "sqlite:copy.db", "list", "jobs").out == "       1  a  1\n"
    (before,) = command("status", "--json").objects
    restored = command("restore", "copy.db")
    (after,) = command("status", "--json").objects
    assert (restored.code, restored.err) == (0, "")
    assert restored.out == f"the store is as of 1, with epoch {after['epoch']}\n"
    assert after["epoch"] != before["epoch"]
    assert command("list", "jobs").out == "       1  a  1\n"


def test_json_has_the_index_and_the_epoch(command: Command) -> None:
    for value in "12":
        command("put", "jobs", "a", value)
    command("compact", "1")
    (status,) = command("status", "--json").objects
    assert command("backup", "copy.db", "--json").objects == [
        {"index": 2, "floor": 1, "epoch": status["epoch"]}
    ]
    (restored,) = command("restore", "copy.db", "--json").objects
    (status,) = command("status", "--json").objects
    assert restored == {"index": 2, "floor": 1, "epoch": status["epoch"]}


def test_a_backup_takes_the_place_of_a_file_with_force_only(command: Command, folder: Path) -> None:
    command("put", "jobs", "a", "1")
    (folder / "copy.db").write_text("mine")
    refused = command("backup", "copy.db")
    assert (refused.code, refused.err) == (1, f"Error: {folder}/copy.db: exists already\n")
    assert (folder / "copy.db").read_text() == "mine"
    assert command("backup", "--force", "copy.db").code == 0
    assert command("--store", "sqlite:copy.db", "get", "jobs", "a").out == "1\n"
    assert command("backup", "--force", "trio-stream.db").code == 1
    assert command("backup", "").code == command("restore", "").code == 2


def test_a_store_is_restored_where_there_is_none(command: Command, folder: Path) -> None:
    command("put", "jobs", "a", "1")
    command("backup", "copy.db")
    assert command("--store", "sqlite:new.db", "restore", "copy.db").code == 0
    assert command("--store", "sqlite:new.db", "list", "jobs").out == "       1  a  1\n"


def test_a_restore_of_garbage_changes_nothing(command: Command, folder: Path) -> None:
    command("put", "jobs", "a", "1")
    (before,) = command("status", "--json").objects
    (folder / "copy.db").write_text("hello, I am a text file and no database" * 100)
    refused = command("restore", "copy.db")
    assert (refused.code, refused.out) == (1, "")
    assert refused.err.startswith(f"Error: {folder}/copy.db: not a SQLite database")
    assert command("status", "--json").objects == [before]


@pytest.mark.anyio
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_who_watches_gets_the_state_anew_and_older_cursors_do_not_go_on(backend: str) -> None:
    await put("a", "1")
    await run("backup", "copy.db")
    async with started("watch", "jobs", "--json", "--backend", backend) as watch:
        await watch.until("end-of-snapshot")
        await put("b", "2")
        older = (await watch.object())["cursor"]
        await run("restore", "copy.db")
        kinds = [(await watch.object())["type"] for _ in range(3)]
        assert kinds == ["new-snapshot-to-follow", "snapshot", "end-of-snapshot"]
        await put("c", "3")
        assert (await watch.object())["index"] == 2
        assert (await watch.end(signal.SIGINT)).code == 0
    again = await run("watch", "jobs", "--from", older, "--exit-after-snapshot", "--json")
    assert again.objects[0]["type"] == "new-snapshot-to-follow"
