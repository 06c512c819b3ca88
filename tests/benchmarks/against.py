"""Compares the installed library with another version of it: whether any row has become slower or larger.

Both versions run the same rows from this directory, so those must keep to what both have.
The other version is put into a directory of its own, in front of the installed one: interpreter and dependencies
are the same for both.
Each measurement has a fresh process; a pair is one of each version, right after each other, and who begins alternates.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import trio_stream

from .interval import Interval, interval
from .row import Figure, Sample
from .rows import ROWS
from .table import cells, short

WORSE: Final = 1.05  # worse is: the whole interval of the ratio is above this
TESTS: Final = Path(__file__).parents[1]


class Case(NamedTuple):
    """A row of one contender at one size."""

    row: str
    contender: str
    n: int


CASES: Final = (
    Case("live-trio", "trio_stream, async for", 1),
    Case("live-trio", "trio_stream, async for", 1_000),
    Case("live-asyncio", "trio_stream, async for", 1),
    Case("live-asyncio", "trio_stream, async for", 1_000),
    Case("backlog-trio", "trio_stream, async for", 1_000),
    Case("backlog-trio", "trio_stream, receive", 1_000),
    Case("backlog-trio", "trio_stream, receive_batch", 1_000),
    Case("backlog-asyncio", "trio_stream, async for", 1_000),
    Case("backlog-asyncio", "trio_stream, receive", 1_000),
    Case("backlog-filtered", "trio_stream, async for", 1_000),
    Case("backlog-filtered", "trio_stream, receive_batch", 1_000),
    Case("publish-matching", "trio_stream", 1),
    Case("publish-others", "trio_stream", 10_000),
    Case("publish-many", "trio_stream", 1_000),
    Case("threads", "trio_stream on trio", 4_000),
    Case("herd-cold", "trio_stream on trio", 10_000),
    Case("resume", "trio_stream", 10_000),
    Case("close-one", "trio_stream on trio", 10_000),
    Case("close-one", "trio_stream on asyncio", 10_000),
    Case("snapshot", "trio_stream on trio", 100_000),
    Case("snapshot", "trio_stream on asyncio", 100_000),
    Case("memory-idle", "trio_stream", 1_000),
    Case("memory-stalled", "trio_stream", 100),
    Case("view", "trio_stream.view", 10_000),
)


class Pair(NamedTuple):
    """What the two versions have measured."""

    old: Sample
    new: Sample


class Comparison:
    """A case, and its pairs so far, or why there are no more."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.pairs: list[Pair] = []
        self.error = ""

    def ratio(self, figure: Figure) -> Interval:
        """Of the cost of the new version to that of the old one: above 1 the new one is slower or larger."""
        logs = [math.log(new[figure.name] / old[figure.name]) for old, new in self.pairs]
        of = interval([-log for log in logs] if figure.more_is_better else logs)
        return Interval(*map(math.exp, of))


def install(version: str, directory: str) -> None:
    """`version`: a wheel, a source tree, or anything else that pip installs."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*command, "--target", directory, version], check=True)


def compare(version: str, comparisons: Sequence[Comparison], pairs: int, seconds: float) -> Iterator[None]:
    """Adds a pair to each; all of them once, and again, so that a disturbance meets many of them a little."""
    with tempfile.TemporaryDirectory() as directory:
        install(version, directory)
        for turn in range(pairs):
            for each in comparisons:
                if not each.error:
                    try:
                        each.pairs.append(_pair(each.case, seconds, directory, old_first=bool(turn % 2)))
                    except subprocess.CalledProcessError as error:
                        each.error = error.stderr.strip().rpartition("\n")[2]
            yield


def _pair(case: Case, seconds: float, directory: str, *, old_first: bool) -> Pair:
    if old_first:
        old = _measure(case, seconds, directory)
        return Pair(old, _measure(case, seconds))
    new = _measure(case, seconds)
    return Pair(_measure(case, seconds, directory), new)


def _measure(case: Case, seconds: float, directory: str = "") -> Sample:
    """Of the version in the directory; of the installed one if none is named."""
    paths = [directory, str(TESTS)] if directory else [str(TESTS)]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",
    }
    command = [sys.executable, "-m", f"{__package__}.measure", *map(str, (*case, seconds))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    answer = json.loads(done.stdout)
    expected = Path(directory, "trio_stream", "__init__.py") if directory else Path(trio_stream.__file__)
    assert Path(answer["library"]) == expected, f"measured {answer['library']}, not {expected}"
    sample: Sample = answer["sample"]
    return sample


def verdict(ratio: Interval) -> str:
    if ratio.low > WORSE:
        return "WORSE"
    return "better" if ratio.high < 1 / WORSE else "not worse"


def table_of(comparisons: Sequence[Comparison]) -> str:
    """Markdown: a line for each figure of each case."""
    head = ("row", "contender", "n", "figure", "old", "new", "new / old, as cost", "verdict")
    lines = [cells(head), cells(["---", "---", "---:", "---", "---:", "---:", "---:", "---"])]
    for each in comparisons:
        if not each.error:
            lines += [_line(each, figure) for figure in ROWS[each.case.row].figures]
    lines += [
        "",
        *(f"FAILED: {' '.join(map(str, each.case))}: {each.error}" for each in comparisons if each.error),
    ]
    return "\n".join(lines)


def _line(comparison: Comparison, figure: Figure) -> str:
    row, contender, n = comparison.case
    old, new = (
        median(sample[figure.name] for sample in version) for version in zip(*comparison.pairs, strict=True)
    )
    ratio = comparison.ratio(figure)
    shown = f"{ratio.middle:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
    return cells((row, contender, f"{n:,}", figure.unit, short(old), short(new), shown, verdict(ratio)))


def is_fine(comparisons: Sequence[Comparison]) -> bool:
    """Nothing has failed, and nothing is worse."""
    return not any(
        each.error or any(verdict(each.ratio(figure)) == "WORSE" for figure in ROWS[each.case.row].figures)
        for each in comparisons
    )
