"""What the documentation shows runs: each example file, and each Python block of the README and the pages.

Each is a program of its own: it must end by itself in time, with exit code 0 and nothing on stderr.
`NAME.out` beside an example, or an `output` block right after a Python block, is what it must print.
To show part of a program, keep the program in docs/examples and include lines of it with `literalinclude`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TIME_LIMIT = 60  # seconds

# A fenced block of either spelling, and the block of its output if there is one.
BLOCK = re.compile(
    r"^```(?:python|py|\{code-block\} python)\n(?P<source>.*?)^```$"
    r"(?:\n+```output\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


def examples() -> Iterator[ParameterSet]:
    for path in sorted((DOCS / "examples").glob("*.py")):
        expected = path.with_suffix(".out")
        yield pytest.param(path, expected.read_text() if expected.exists() else None, id=path.name)


def pages() -> list[Path]:
    return [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)]


def blocks() -> Iterator[ParameterSet]:
    for page in pages():
        text = page.read_text()
        for block in BLOCK.finditer(text):
            line = text.count("\n", 0, block.start()) + 1
            name = f"{page.relative_to(ROOT)}:{line}"
            # The blank lines make a traceback name the lines of the page.
            yield pytest.param("\n" * line + block["source"], block["output"], id=name)


def run(program: Path, folder: Path, expected: str | None) -> None:
    try:
        result = subprocess.run(
            [sys.executable, "-W", "error", program],
            check=False,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
    except subprocess.TimeoutExpired as expired:
        pytest.fail(
            f"still running after {TIME_LIMIT} seconds; it had printed {expired.stdout!r} {expired.stderr!r}"
        )
    assert (result.returncode, result.stderr) == (0, "")
    if expected is not None:
        assert result.stdout == expected


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    """One that did not would be run by no test."""
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert "" not in fences[::2]
    assert set(fences[1::2]) <= {""}


@pytest.mark.parametrize(("program", "expected"), list(examples()))
def test_example_runs_and_prints_what_it_says(program: Path, expected: str | None, tmp_path: Path) -> None:
    run(program, tmp_path, expected)


@pytest.mark.parametrize(("source", "expected"), list(blocks()))
def test_code_block_runs_and_prints_what_it_says(source: str, expected: str | None, tmp_path: Path) -> None:
    program = tmp_path / "block.py"
    program.write_text(source)
    run(program, tmp_path, expected)
