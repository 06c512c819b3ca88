"""list --prefix, topics and status."""

import re
import sqlite3
from pathlib import Path

import pytest
from cli.console import Command


def size(name: str) -> int:
    return Path(name).stat().st_size


def test_list_with_a_prefix_has_the_keys_that_begin_with_it(command: Command) -> None:
    for key in ["a", "a/b", "a/c", "ab", "b"]:
        command("put", "jobs", key, "0")
    assert command("list", "jobs", "--prefix", "a/").out == "       2  a/b  0\n       3  a/c  0\n"
    assert [each["key"] for each in command("list", "jobs", "--prefix", "b", "--json").objects] == ["b"]
    assert command("list", "jobs", "--prefix", "").out.count("\n") == 5
    assert command("list", "jobs", "--prefix", "\udcff").code == 2


def test_topics_are_listed_in_order(command: Command) -> None:
    for topic in ["web", "db", "two words", "gone"]:
        command("put", topic, "a", "0")
    command("delete", "gone", "a")
    assert command("topics").out == 'db\n"two words"\nweb\n'
    assert command("topics", "--json").objects == [{"topic": each} for each in ("db", "two words", "web")]


def test_topics_of_an_empty_store_are_none(command: Command) -> None:
    command("put", "jobs", "a", "0")
    command("delete", "jobs", "a")
    result = command("topics")
    assert (result.code, result.out) == (0, "")


def test_status_says_how_far_and_how_large_the_store_is(command: Command, folder: Path) -> None:
    for number in range(5):
        command("put", "jobs", f"{number}", f'"{"x" * 9000}"')
    command("compact", "2")
    (fields,) = command("status", "--json").objects
    epoch, mark = fields.pop("epoch"), fields.pop("mark")
    assert re.fullmatch(r"[0-9a-f]{32}", epoch)
    assert re.fullmatch(r"[0-9a-f]{16}", mark)
    assert fields == {
        "engine": "sqlite",
        "version": sqlite3.sqlite_version,
        "file": str(folder / "trio-stream.db"),
        "head": 5,
        "floor": 2,
        "commits": 3,
        "bytes": size("trio-stream.db"),
        "log_bytes": 0,
    }
    shown = dict(line.split(None, 1) for line in command("status").out.splitlines())
    assert shown == {
        "engine": f"sqlite {sqlite3.sqlite_version}",
        "mark": mark,
        "file": str(folder / "trio-stream.db"),
        "epoch": epoch,
        "head": "5",
        "floor": "2",
        "commits": "3 in the log",
        "size": f"{size('trio-stream.db') / 1024:.1f} KiB of file, 0 bytes of write ahead log",
    }


@pytest.mark.parametrize("name", ["with space", "new\nline", "\udcff", "é"])
def test_status_names_any_file_in_one_line(command: Command, folder: Path, name: str) -> None:
    command("--store", f"sqlite:{name}", "put", "jobs", "a", "0")
    assert command("--store", f"sqlite:{name}", "status").out.count("\n") == 8
    (fields,) = command("--store", f"sqlite:{name}", "status", "--json").objects
    assert fields["file"] == str(folder / name)
