"""What the pages show of a terminal is what happens there: each `console` block of a page, in their order.

A command that goes on, as `watch` does, is ended when the commands after it have made it print all but its last line.
Epochs are not compared; everything else is, what goes to stderr too.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from signal import SIGINT
from typing import NamedTuple

import pytest
from cli.console import Running, run, started

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^\$ trio-stream (?P<arguments>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
EPOCH = re.compile(r"\b[0-9a-f]{32}\b")

PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if "_build" not in page.parts and BLOCK.search(page.read_text())
]


class Step(NamedTuple):
    arguments: list[str]
    output: str


def steps(page: Path) -> Iterator[Step]:
    for block in BLOCK.findall(page.read_text()):
        found = list(COMMAND.finditer(block))
        assert "".join(step[0] for step in found) == block, "there is something before the first command"
        for step in found:
            yield Step(shlex.split(step["arguments"]), EPOCH.sub("EPOCH", step["output"]))


@pytest.fixture
def anyio_backend() -> str:
    return "trio"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
async def test_a_terminal_shows_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIO_STREAM_STORE", raising=False)
    going_on: list[tuple[Running, Step, list[str]]] = []
    async with AsyncExitStack() as stack:
        for step in steps(page):
            if step.arguments[0] == "watch":
                command = await stack.enter_async_context(started(*step.arguments))
                going_on.append((command, step, await command.until("end of snapshot")))
            else:
                result = await run(*step.arguments)
                assert EPOCH.sub("EPOCH", result.out + result.err) == step.output
        for command, step, seen in going_on:
            while len(seen) < step.output.count("\n") - 1:
                seen.append(await command.line())
            rest = await command.end(SIGINT)
            shown = "".join(f"{line}\n" for line in seen) + rest.out + rest.err
            assert EPOCH.sub("EPOCH", shown) == step.output


def test_there_are_pages_with_a_terminal() -> None:
    assert [page.name for page in PAGES] == ["cli.md"]
