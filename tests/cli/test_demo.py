"""demo: the main job on real input, as an acceptance test; and that it tells when it failed."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from cli.console import PATIENCE, PROGRAM, Command, run, started
from typing_extensions import override

from trio_stream import Event
from trio_stream.cli import _demo, _kept, _services
from trio_stream.cli._followers import CLOSED
from trio_stream.stores import Record
from trio_stream.view import KeyedReducer, open_view

pytestmark = pytest.mark.slow

SHIPPED = Path(_services.__file__).parent / "services.txt"


@pytest.mark.anyio
@pytest.mark.parametrize("backend", ["trio", "asyncio"])
async def test_everybody_has_what_the_store_has(folder: Path, backend: str) -> None:
    demo = await run("demo", "--seconds", "2", "--backend", backend)
    assert demo.code == 0, demo.out + demo.err
    assert demo.err == ""
    assert demo.out.count("right  ") == 5
    assert demo.out.endswith("All agree.\n")
    for event in ("left at", "resumes after", "revoked, 1 subscription closed", "comes back with 'token-2'"):
        assert event in demo.out
    assert is_empty(folder)


@pytest.mark.anyio
async def test_a_given_store_is_used_beside_an_import_and_left_as_it_was(folder: Path) -> None:
    (folder / "many.csv").write_text("key,value\n" + "".join(f"{number},x\n" for number in range(20_000)))
    async with started("--store", "sqlite:both.db", "demo", "--seconds", "2") as demo:
        await demo.line()
        imported = await run("--store", "sqlite:both.db", "import", "jobs", "many.csv", "--batch", "100")
        ended = await demo.end()
    assert ended.code == 0, ended.out + ended.err
    assert imported.code == 0
    topic = ended.out.partition("topic ")[2] or "demo"
    assert (await run("--store", "sqlite:both.db", "list", topic.split(";")[0])).out == ""


@pytest.mark.anyio
async def test_the_store_of_the_environment_is_not_for_demonstrations(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIO_STREAM_STORE", "sqlite:precious.db")
    assert (await run("demo", "--seconds", "0.5", "--input", str(SHIPPED))).code == 0
    assert is_empty(folder)


@pytest.mark.parametrize(
    ("text", "message"), [(None, "No such file"), ("# nothing\nhttp\nhttp x/tcp\n", "no line of the form")]
)
def test_a_list_that_is_none_is_named(command: Command, folder: Path, text: str | None, message: str) -> None:
    if text is not None:
        (folder / "list").write_text(text)
    result = command("demo", "--input", "list")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: list: ")
    assert message in result.err


def test_a_machine_without_a_list_uses_the_one_that_is_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_services, "SYSTEM_LIST", Path("missing"))
    shipped = _services.load_services(None)
    assert shipped.source == "a list of its own"
    assert shipped.entries["http/tcp"] == {"port": 80, "aliases": ["www"], "status": "passing"}


@pytest.mark.anyio
@pytest.mark.skipif(sys.platform != "linux", reason="finds the writers in /proc")
@pytest.mark.parametrize(
    ("number", "backend"), [(signal.SIGINT, "trio"), (signal.SIGTERM, "asyncio"), (signal.SIGKILL, "trio")]
)
async def test_no_writer_outlives_it(number: signal.Signals, backend: str) -> None:
    async with started("--store", "sqlite:demo.db", "demo", "--seconds", "600", "--backend", backend) as demo:
        await demo.until(" http/tcp ")  # a writer has changed it
        writers = [os.pidfd_open(pid) for pid in children(demo.process.pid)]
        assert len(writers) == 2
        ended = await demo.end(number)
    assert ended.code == (-number if number is signal.SIGKILL else 128 + number)
    assert "Traceback" not in ended.err
    for writer in writers:
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(writer)
        os.close(writer)


def test_a_writer_that_fails_makes_the_demonstration_fail(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    result = command("demo", "--seconds", "0.5", "--input", str(SHIPPED))
    assert result.code == 1
    assert result.err.startswith("Error: what was received is not what was committed:\n")
    assert "  writer 0 failed: exit code 1" in result.err


class Deaf(KeyedReducer[Record, str]):
    """Does not hear that the followed service is closed."""

    @override
    def apply(self, events: Sequence[Event[Record]], /) -> Mapping[str, Record]:
        return super().apply([event for event in events if CLOSED not in repr(event)])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (lambda: {"is_delete": lambda record: record.key.endswith("/udp")}, "a wrong state at index "),
        (lambda: {"key": lambda record: record.key.upper()}, "a wrong state at index "),
        (lambda: {"reducer": Deaf()}, "got no further than index "),
    ],
    ids=["deletions", "keys", "changes"],
)
def test_a_view_that_is_wrong_makes_the_demonstration_fail(
    command: Command, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[], Any], problem: str
) -> None:
    monkeypatch.setattr(_demo, "_GRACE", 1.0)
    monkeypatch.setattr(_kept, "open_view", lambda *to: open_view(*to, **wrong()))
    result = command("demo", "--seconds", "1", "--input", str(SHIPPED))
    assert result.code == 1
    assert f"kept as a view: {problem}" in result.err
    assert "WRONG  kept as a view" in result.out
    assert result.out.count("right  ") >= 3


@pytest.mark.skipif(sys.platform != "linux", reason="the `script` of other systems has other arguments")
def test_on_a_terminal_there_is_a_table() -> None:
    line = f"{' '.join(PROGRAM)} demo --seconds 1"
    shown = subprocess.run(
        ["script", "-qec", line, "/dev/null"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    assert shown.returncode == 0
    assert "subscriber" in shown.stdout
    assert "token revoked: comes back" in shown.stdout
    assert shown.stdout.rstrip().endswith("All agree.")


def is_empty(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def children(pid: int) -> list[int]:
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
