"""A user's mistake: 2 for wrong usage, 1 for what failed; one message on stderr, never a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli.console import Command, put, started

USAGE = [
    ([], "Usage:"),
    (["nonsense"], "No such command"),
    (["get", "jobs"], "Missing argument 'KEY'"),
    (["get", "jobs", "a", "--nonsense"], "No such option"),
    (["put", "jobs", "a", "{'x': 1}"], "is not JSON: Expecting property name"),
    (["put", "jobs", "a", "hello"], """text needs quotes of its own: '"hello"'"""),
    (["put", "jobs", "a", "NaN"], "NaN is not a value"),
    (["put", "jobs", "a", "1e999"], "Out of range float"),
    (["put", "jobs", "a", '"\\ud800"'], "half of a surrogate pair"),
    (["put", "jobs", "a", "[" * 200_000], "too deeply nested"),
    (["put", "", "a", "1"], "must not be empty"),
    (["put", "jobs", "", "1"], "must not be empty"),
    (["put", "jobs", "a", "1", "--namespace", ""], "must not be empty"),
    (["put", "jobs", "\udcff", "1"], "is not UTF-8"),
    (["put", "jobs", "a", "1", "--expect", "-1"], "Invalid value for '--expect'"),
    (["watch", "jobs", ""], "must not be empty"),
    (["watch", "jobs", "--from", "12"], "not of the form INDEX@EPOCH"),
    (["watch", "jobs", "--from", "x@y"], "not of the form INDEX@EPOCH"),
    (["watch", "jobs", "--from", "-1@y"], "not of the form INDEX@EPOCH"),
    (["watch", "jobs", "--from", "12@"], "not of the form INDEX@EPOCH"),
    (["watch", "jobs", "--backend", "curio"], "Invalid value for '--backend'"),
    (["import", "jobs", "x.csv", "--batch", "0"], "Invalid value for '--batch'"),
    (["import", "jobs", "x.csv", "--format", "xml"], "Invalid value for '--format'"),
    (["compact", "x"], "Invalid value for '[INDEX]'"),
    (["demo", "--seconds", "0"], "Invalid value for '--seconds'"),
    (["demo", "--seconds", "nan"], "Invalid value for '--seconds'"),
    (["demo", "--seconds", "inf"], "Invalid value for '--seconds'"),
    (["--store", "mysql:x", "get", "jobs", "a"], "'mysql:...' does not name a store"),
    (["--store", "sqlite:", "put", "jobs", "a", "1"], "does not name a file"),
    (["--store", "mysql:x", "demo"], "'mysql:...' does not name a store"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[str(number) for number in range(len(USAGE))])
def test_wrong_usage_exits_with_2_and_changes_nothing(
    command: Command, folder: Path, arguments: list[str], message: str
) -> None:
    result = command(*arguments)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "jobs", "a"],
        ["list", "jobs"],
        ["delete", "jobs", "a"],
        ["compact"],
        ["topics"],
        ["status"],
        ["backup", "copy.db"],
    ],
)
def test_what_needs_a_store_does_not_make_one(command: Command, folder: Path, arguments: list[str]) -> None:
    result = command(*arguments)
    assert (result.code, result.out) == (1, "")
    assert (
        result.err
        == f"Error: there is no store {folder}/trio-stream.db; put, txn, import, watch and wait make one\n"
    )
    assert list(folder.iterdir()) == []


def test_a_missing_folder_is_named(command: Command, folder: Path) -> None:
    result = command("--store", "sqlite:nowhere/x.db", "put", "jobs", "a", "1")
    assert (result.code, result.err) == (
        1,
        f"Error: {folder}/nowhere/x.db: the directory {folder}/nowhere does not exist\n",
    )


def test_a_missing_key_is_named(command: Command) -> None:
    command("put", "jobs", "a", "1")
    result = command("get", "jobs", "b")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error: no key 'b' in namespace 'default' of topic 'jobs'\n"


@pytest.mark.parametrize("arguments", [["put", "jobs", "a", "1"], ["list", "jobs"], ["watch", "jobs"]])
def test_a_file_that_is_no_store_is_named(command: Command, folder: Path, arguments: list[str]) -> None:
    (folder / "trio-stream.db").write_text("hello, I am a text file and no database" * 100)
    result = command(*arguments)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"Error: {folder}/trio-stream.db: not a SQLite database")


def test_compact_beyond_the_newest_index_is_an_error(command: Command) -> None:
    command("put", "jobs", "a", "1")
    result = command("compact", "2")
    assert (result.code, result.err) == (1, "Error: 2 is not reached yet: the newest index is 1\n")


def test_without_the_extra_one_line_says_what_to_install() -> None:
    program = "import sys; sys.modules['click'] = None; from trio_stream.__main__ import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "trio-stream: the command line needs click: pip install 'trio-stream[cli]'\n"


def test_a_fault_of_our_own_is_not_taken_for_a_missing_extra() -> None:
    program = (
        "import sys; sys.modules['trio_stream.stores'] = None; from trio_stream.__main__ import main; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr


@pytest.mark.anyio
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_command_says_what_it_has_done(number: signal.Signals, code: int) -> None:
    await put("a", "0")
    reading, writing = os.pipe()
    async with (
        started("watch", "jobs") as watch,
        started("import", "jobs", "-", "--batch", "1", stdin=reading) as importing,
    ):
        await watch.until("end of snapshot")
        os.write(writing, b'{"key": "a", "value": 1}\n')
        await watch.line()
        ended = await importing.end(number)
    os.close(reading)
    os.close(writing)
    assert (ended.code, ended.out) == (code, "")
    assert ended.err == "Interrupted: committed 1 record in 1 commit, 1 key, up to index 2.\n"
