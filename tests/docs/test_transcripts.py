"""What the pages show of a terminal is what happens there: each `console` block of a page, in their order.

Commands run in a shell, in a folder with the files of docs/examples/data.
A command that goes on, as `watch` does, is ended when the commands after it have made it print all but its last line.
Epochs, sizes of files and where the folder is are not compared; everything else is, what goes to stderr too.
"""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGINT
from typing import NamedTuple

import anyio
import pytest
from cli.console import PATIENCE, Running, started

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ (?P<line>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
VARIABLE = {
    re.compile(r"\b[0-9a-f]{32}\b"): "EPOCH",
    re.compile(r"(?<=EPOCH\.)[0-9a-f]{16}\b"): "MARK",
    re.compile(r'"bytes":\d+,"log_bytes":\d+'): "SIZES",
    re.compile(r'"file":"[^"]*/'): "FOLDER/",
    re.compile(r'(?<="mark":")[0-9a-f]{16}\b'): "MARK",
    re.compile(r'(?<="version":")[0-9.]+'): "VERSION",
}

PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if "_build" not in page.parts and BLOCK.search(page.read_text())
]


class Step(NamedTuple):
    line: str
    output: str

    @property
    def is_going_on(self) -> bool:
        """Whether it is a command that somebody has to end."""
        return self.line.startswith("trio-stream watch ") and "--exit-after-snapshot" not in self.line


def plain(text: str) -> str:
    """Without what differs from run to run."""
    for pattern, name in VARIABLE.items():
        text = pattern.sub(name, text)
    return text


def steps(page: Path) -> Iterator[Step]:
    for block in BLOCK.findall(page.read_text()):
        found = list(COMMAND.finditer(block))
        assert "".join(step[0] for step in found) == block, "there is something before the first command"
        for step in found:
            yield Step(step["line"], plain(step["output"]))


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the pages use, and the command."""
    folder, programs = tmp_path / "folder", tmp_path / "programs"
    shutil.copytree(DOCS / "examples" / "data", folder)
    programs.mkdir()
    program = programs / "trio-stream"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m trio_stream "$@"\n')
    program.chmod(0o755)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("TRIO_STREAM_STORE", raising=False)


async def shown_by(line: str) -> str:
    with anyio.fail_after(PATIENCE):
        ended = await anyio.run_process(["sh", "-c", line], check=False)
    return plain((ended.stdout + ended.stderr).decode())


@pytest.mark.skipif(sys.platform == "win32", reason="the pages show a POSIX shell")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_a_terminal_shows_what_the_page_shows(page: Path, shell: None) -> None:
    going_on: list[tuple[Running, Step, list[str]]] = []
    async with AsyncExitStack() as stack:
        for step in steps(page):
            if step.is_going_on:
                command = await stack.enter_async_context(started(*shlex.split(step.line)[1:]))
                going_on.append((command, step, await command.until("end of snapshot")))
            else:
                # What does not end with a newline is shown as if it did.
                assert (await shown_by(step.line)).rstrip("\n") == step.output.rstrip("\n"), step.line
        for command, step, seen in going_on:
            while len(seen) < step.output.count("\n") - 1:
                seen.append(await command.line())
            rest = await command.end(SIGINT)
            assert plain("".join(f"{line}\n" for line in seen) + rest.out + rest.err) == step.output


def test_there_are_pages_with_a_terminal() -> None:
    assert [page.name for page in PAGES] == ["use-the-command-line.md", "cli.md"]
