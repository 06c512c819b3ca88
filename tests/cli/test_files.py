"""Files that cannot be used: a message of one line with the name of the file, never a traceback."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cli.console import PROGRAM, Command, Result

NOBODY = 65534

# Each of them once with a store and the file "x" that it reads or writes.
COMMANDS = [
    ["put", "jobs", "a", "1"],
    ["delete", "jobs", "a"],
    ["txn", "x"],
    ["import", "jobs", "x"],
    ["get", "jobs", "a"],
    ["list", "jobs"],
    ["topics"],
    ["status"],
    ["watch", "jobs", "--exit-after-snapshot"],
    ["watch", "jobs", "--view", "--exit-after-snapshot"],
    ["wait", "jobs", "a", "--timeout", "0"],
    ["compact"],
    ["backup", "copy.db"],
    ["restore", "x.db"],
]
each_command = pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)

# Made by `as_nobody` in the child, which must read the library before it gives its rights away.
CHILD = """
import os, pathlib, sys
import anyio, anyio.lowlevel
from trio_stream.__main__ import main
from trio_stream.cli import run
anyio.run(anyio.lowlevel.checkpoint, backend="trio")
pathlib.Path("/").as_uri()
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
sys.argv[0] = "trio-stream"
main()
"""


def as_nobody(*arguments: str) -> Result:
    """Runs a command as a user who owns nothing, and may not write down which lines were covered."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments],
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Result(ended.returncode, ended.stdout, ended.stderr)


def check_refused(result: Result, name: str) -> None:
    assert (result.code, result.out) == (1, "")
    assert "Traceback" not in result.err
    assert result.err.count("\n") <= 2
    assert result.err.startswith("Error: ")
    assert name in result.err


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that everybody may enter, as those of `tmp_path` are not."""
    folder = Path(tempfile.mkdtemp()).resolve()
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TRIO_STREAM_STORE", raising=False)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def files(command: Command, folder: Path) -> None:
    """A store, and something to read."""
    (folder / "x").write_text('{"topic": "jobs", "key": "b", "value": 1}\n')
    command("put", "jobs", "a", "1")
    command("backup", "x.db")


@contextmanager
def open_to_nobody(folder: Path, mode: int) -> Iterator[None]:
    """The folder has this mode inside."""
    folder.chmod(mode)
    try:
        yield
    finally:
        folder.chmod(0o755)


def store_in(*folders: str) -> list[str]:
    return ["--store", f"sqlite:{'/'.join(folders)}/trio-stream.db"]


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
@each_command
def test_a_folder_that_one_may_not_enter_is_named(
    files: None, command: Command, folder: Path, arguments: list[str]
) -> None:
    closed = folder / "closed"
    closed.mkdir()
    (folder / "trio-stream.db").rename(closed / "trio-stream.db")
    with open_to_nobody(folder, 0o755):
        closed.chmod(0)
        try:
            result = as_nobody(*store_in("closed"), *arguments)
        finally:
            closed.chmod(0o755)
    check_refused(result, "closed/trio-stream.db: ")
    assert "Permission denied" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
@pytest.mark.parametrize(
    "arguments", [["txn", "x"], ["import", "jobs", "x"], ["put", "jobs", "a", "@x"]], ids=" ".join
)
def test_a_file_that_one_may_not_read_is_named(files: None, folder: Path, arguments: list[str]) -> None:
    (folder / "x").chmod(0)
    with open_to_nobody(folder, 0o777):
        result = as_nobody("--store", "sqlite:mine.db", *arguments)
    check_refused(result, "x: Permission denied")


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
@pytest.mark.parametrize(
    "arguments",
    [["put", "jobs", "a", "1"], ["txn", "x"], ["import", "jobs", "x"], ["compact"], ["restore", "x.db"]],
    ids=" ".join,
)
def test_a_store_that_one_may_not_write_is_named(files: None, folder: Path, arguments: list[str]) -> None:
    (folder / "trio-stream.db").chmod(0o444)
    (folder / "x.db").chmod(0o644)
    with open_to_nobody(folder, 0o755):
        result = as_nobody(*arguments)
    check_refused(result, f"{folder}")


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "jobs", "a"],
        ["list", "jobs", "--json"],
        ["topics"],
        ["watch", "jobs", "--exit-after-snapshot"],
        ["watch", "jobs", "--view", "--exit-after-snapshot"],
        ["wait", "jobs", "a"],
        ["status"],
    ],
    ids=" ".join,
)
def test_who_may_only_read_the_store_can_look_at_it(
    files: None, command: Command, folder: Path, arguments: list[str]
) -> None:
    (folder / "trio-stream.db").chmod(0o444)
    before = sorted(folder.iterdir())
    with open_to_nobody(folder, 0o755):
        result = as_nobody(*arguments)
    assert (result.code, result.err) == (0, "")
    assert sorted(folder.iterdir()) == before
    assert result.out == command(*arguments).out


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
def test_a_backup_into_a_folder_that_one_may_not_write_is_refused(files: None, folder: Path) -> None:
    (folder / "trio-stream.db").chmod(0o666)
    (folder / "mine").mkdir(mode=0o777)
    (folder / "mine").chmod(0o777)
    (folder / "trio-stream.db").rename(folder / "mine" / "trio-stream.db")
    with open_to_nobody(folder, 0o755):
        result = as_nobody(*store_in("mine"), "backup", "copy.db")
    check_refused(result, f"{folder}/copy.db: no file can be made beside it (Permission denied)")
    assert not (folder / "copy.db").exists()


@pytest.mark.parametrize("kind", ["directory", "broken link", "loop", "under a file", "long name", "text"])
@each_command
def test_a_store_that_cannot_be_one_is_named(
    files: None, command: Command, folder: Path, kind: str, arguments: list[str]
) -> None:
    store = folder / "trio-stream.db"
    match kind:
        case "directory":
            store.unlink()
            store.mkdir()
        case "broken link":
            store.unlink()
            store.symlink_to("nowhere/else.db")
        case "loop":
            store.unlink()
            store.symlink_to("trio-stream.db")
        case "under a file":
            store = folder / "x" / "y.db"
        case "long name":
            store = folder / ("x" * 300)
        case "text":
            store.write_text("hello, I am a text file and no database" * 100)
    check_refused(command("--store", f"sqlite:{store}", *arguments), str(store.name))


@pytest.mark.parametrize("kind", ["missing", "directory", "broken link", "loop", "long name"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["txn", "{}"],
        ["import", "jobs", "{}"],
        ["put", "jobs", "a", "@{}"],
        ["put", "--raw", "jobs", "a", "@{}"],
        ["restore", "{}"],
    ],
    ids=" ".join,
)
def test_an_input_that_cannot_be_read_is_named(
    files: None, command: Command, folder: Path, kind: str, arguments: list[str]
) -> None:
    name = "input"
    match kind:
        case "directory":
            (folder / name).mkdir()
        case "broken link":
            (folder / name).symlink_to("nowhere")
        case "loop":
            (folder / name).symlink_to(name)
        case "long name":
            name = "x" * 300
        case _:
            pass
    result = command(*(each.format(name) for each in arguments))
    check_refused(result, name)
    assert command("list", "jobs").out == "       1  a  1\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
@pytest.mark.parametrize(
    "arguments", [["backup", "{}"], ["backup", "--force", "{}"], ["restore", "{}"]], ids=" ".join
)
def test_a_device_is_no_backup(
    files: None, command: Command, folder: Path, device: str, arguments: list[str]
) -> None:
    """And is not replaced by one, whoever asks for it."""
    before = Path(device).stat().st_rdev
    check_refused(command(*(each.format(device) for each in arguments)), device)
    assert Path(device).stat().st_rdev == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device")
def test_a_device_can_be_imported_like_any_file(command: Command) -> None:
    assert command("import", "jobs", "/dev/null").out == "nothing was committed\n"
    check_refused(command("put", "jobs", "a", "@/dev/null"), "/dev/null:1: not JSON: Expecting value")


@pytest.mark.slow
@each_command
def test_a_store_that_another_process_locks_is_named(
    files: None, command: Command, folder: Path, arguments: list[str]
) -> None:
    with closing(sqlite3.connect("trio-stream.db", isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN IMMEDIATE")
        holder.execute("UPDATE ts_head SET floor = floor")
        ended = subprocess.run(
            [*PROGRAM, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
        )
    check_refused(
        Result(ended.returncode, ended.stdout, ended.stderr), "trio-stream.db: locked by another process"
    )


@pytest.mark.parametrize(
    "arguments", [["txn"], ["import", "jobs", "-"], ["put", "jobs", "a", "-"]], ids=" ".join
)
def test_a_closed_input_is_an_error(folder: Path, arguments: list[str]) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *PROGRAM, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "Error: standard input is closed\n"


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_arguments_that_are_not_utf_8_are_refused_or_taken(
    files: None, command: Command, number: int
) -> None:
    """Each argument in turn; names of files may be any bytes."""
    arguments = COMMANDS[number]
    for position in range(1, len(arguments)):
        if arguments[position].startswith("--"):
            continue
        odd = [*arguments]
        odd[position] = "a\udcff"
        result = command(*odd)
        assert "Traceback" not in result.err
        assert result.code in (0, 1, 2)
    result = command("--store", "sqlite:a\udcff.db", *arguments)
    assert "Traceback" not in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
@each_command
def test_an_interrupt_at_any_time_ends_it_without_a_traceback(
    files: None, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """At the beginning, before there is an event loop, and inside of it."""
    for place in ("click.Context.invoke", "anyio.to_thread.run_sync", "anyio.run"):
        program = f"""
import signal, sys, anyio, anyio.to_thread, click
from trio_stream.__main__ import main
module, _, name = {place!r}.rpartition(".")
owner = eval(module)
kept = getattr(owner, name)
def interrupted(*args, **kwargs):
    signal.raise_signal(signal.SIGINT)
    return kept(*args, **kwargs)
setattr(owner, name, interrupted)
main()
"""
        ended = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert "Traceback" not in ended.stderr
        assert ended.returncode == 130 or arguments[0] == "watch"
