"""Standard output that cannot take it: a reader that has left, a full disk, a closed or a non-blocking one."""

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli.console import PROGRAM, Command, Result

EACH_WAY = [
    ["list", "jobs"],
    ["get", "jobs", "a", "--json"],
    ["put", "jobs", "a", "2"],
    ["--help"],
    ["watch", "--help"],
    ["--version"],
    ["demo", "--seconds", "0.5"],
]


def run_into(stdout: Any, *arguments: str) -> Result:
    """Runs a command that has this as its standard output."""
    ended = subprocess.run(
        [*PROGRAM, *arguments], check=False, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60
    )
    return Result(ended.returncode, "", ended.stderr)


def import_many(command: Command, folder: Path) -> None:
    lines = (f'{{"key": "{number}", "value": "{"x" * 100}"}}\n' for number in range(5000))
    (folder / "many.ndjson").write_text("".join(lines))
    command("import", "jobs", "many.ndjson")


def test_a_reader_that_leaves_early_is_no_error(command: Command, folder: Path) -> None:
    import_many(command, folder)
    with subprocess.Popen(
        [*PROGRAM, "list", "jobs"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().endswith(b"\n")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


@pytest.mark.parametrize("arguments", [*EACH_WAY, ["watch", "jobs"]], ids=" ".join)
def test_a_reader_that_has_left_ends_every_command_without_a_word(
    command: Command, arguments: list[str]
) -> None:
    command("put", "jobs", "a", "1")
    reading, writing = os.pipe()
    os.close(reading)
    ended = run_into(writing, *arguments)
    os.close(writing)
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device to write to")
@pytest.mark.parametrize("arguments", [*EACH_WAY, ["watch", "jobs"]], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error_of_every_command(
    command: Command, arguments: list[str]
) -> None:
    command("put", "jobs", "a", "1")
    with Path("/dev/full").open("w") as full:
        ended = run_into(full, *arguments)
    assert (ended.code, ended.err) == (1, f"Error: cannot write to standard output: {os.strerror(28)}\n")


def test_a_closed_output_is_an_error(command: Command) -> None:
    command("put", "jobs", "a", "1")
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *PROGRAM, "list", "jobs"],
        check=False,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (1, "Error: standard output is closed\n")


def test_a_non_blocking_output_gets_everything(command: Command, folder: Path) -> None:
    import_many(command, folder)
    here, there = socket.socketpair()
    there.setblocking(False)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # so that it is full again and again
    with subprocess.Popen(
        [*PROGRAM, "list", "jobs"], stdout=there.fileno(), stderr=subprocess.PIPE
    ) as process:
        there.close()
        with here, here.makefile("rb") as lines:
            assert sum(1 for _ in lines) == 5000
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0
