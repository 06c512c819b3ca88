"""Runs the whole programme, and writes what it found to `docs/reference/evidence.md`: `python tests/report.py`.

It needs the package installed, what its tests need, and mutmut.
If anything fails the page is left as it was. What each command that has passed found is kept in `.proof`, so that the
next run does the others only, as long as the library is the same; what tries mutants and faults keeps what it has
found, too. `--fresh` forgets all of it, which is due when tests have changed.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from library import digest

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "reference" / "evidence.md"
KEPT = CHECKOUT / ".proof"
# A test that hangs ends its run after ten minutes: some take two of them on a busy machine.
PYTEST = "-m pytest -q -p no:cacheprovider -o faulthandler_timeout=600"
OTHERS = (
    "test_cancellation.py test_promises.py sweep view stores/test_cancellation.py memory faults fuzz testing"
)
# Arguments of the interpreter; those of one line side by side, one line after the other.
COMMANDS = (
    ("tests/mutants/proposed --sample 300",),
    ("tests/mutants",),
    (
        f"{PYTEST} tests/model tests/schedules",
        f"{PYTEST} {' '.join(f'tests/{name}' for name in OTHERS.split())}",
        "tests/faults",
    ),
)
KEEPING = ("tests/mutants", "tests/faults")  # which keep what they have found themselves


@dataclass
class Run:
    """One command that has ended."""

    command: str
    seconds: float
    has_passed: bool
    noted: Sequence[str]  # lines of figures


class Figures:
    """What the tests have noted."""

    def __init__(self, lines: Iterable[str]) -> None:
        # By kind, and by what they are of.
        self._noted: dict[str, dict[str, Any]] = {}
        for line in lines:
            noted = json.loads(line)
            self._add(self._noted.setdefault(noted["kind"], {}), noted["what"], noted["value"])

    def of(self, kind: str) -> Mapping[str, Any]:
        return self._noted.get(kind, {})

    def total(self, *kinds: str) -> int:
        return sum(sum(self.of(kind).values()) for kind in kinds)

    @staticmethod
    def _add(noted: dict[str, Any], what: str, value: Any) -> None:
        match noted.get(what):
            case int(before):  # counted by several runs
                noted[what] = before + value
            case float(before):  # measured on several back ends
                noted[what] = max(before, value)
            case _:
                noted[what] = value


def run(command: str, *, is_fresh: bool) -> Run:
    """Runs it, unless it has passed before."""
    kept = KEPT / f"{hashlib.sha256(f'{digest()} {command}'.encode()).hexdigest()[:16]}.json"
    if kept.exists():
        return Run(**json.loads(kept.read_text()))
    arguments = [*command.split(), *(["--fresh"] if is_fresh and command.startswith(KEEPING) else [])]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        evidence = Path(directory) / "evidence.jsonl"
        evidence.touch()
        environment = {
            **os.environ,
            "TRIO_STREAM_EVIDENCE": str(evidence),
            "TRIO_STREAM_PROOF": "1",
            "PYTHONUNBUFFERED": "1",
        }
        done = subprocess.run([sys.executable, *arguments], cwd=CHECKOUT, env=environment, check=False)
        noted = evidence.read_text().splitlines()
    found = Run(
        f"TRIO_STREAM_PROOF=1 python {command}", time.monotonic() - start, done.returncode == 0, noted
    )
    if found.has_passed:
        KEPT.mkdir(exist_ok=True)
        kept.write_text(json.dumps(asdict(found)))
    return found


def page(figures: Figures, runs: Sequence[Run], minutes: float) -> Iterator[str]:
    """The page, part by part."""
    yield "# Evidence"
    yield "<!-- Written by `nox -s proof`; do not edit. -->"
    yield (
        "What was tried to prove the [promises](promises.md) wrong, and how often, in the run that wrote this page.\n"
        f"On Python {platform.python_version()}, {platform.system()} and {os.cpu_count()} cores it took "
        f"{minutes:.0f} minutes, and nothing was found.\n"
        "What was found before of the same library, in a run that was stopped, was not tried again and took no time.\n"
        "`nox -s proof` runs all of it again and writes this page anew.\n"
        "Each part names the command that runs it alone; where `TRIO_STREAM_EVIDENCE` names a file, "
        "the figures are added to that.\n"
        "The default tests are a short profile of the same."
    )
    yield table(("what was tried", "number"), summary(figures))
    yield table(("what was run", "seconds"), ((f"`{each.command}`", f"{each.seconds:.0f}") for each in runs))
    yield from model_part(figures)
    yield from orders_part(figures)
    yield from sweep_part(figures)
    yield from mutants_part(figures)
    yield from proposed_part(figures)
    yield from bytes_part(figures)
    yield from faults_part(figures)
    yield from fuzz_part(figures)


def summary(figures: Figures) -> Iterator[tuple[str, str]]:
    mutants = figures.of("mutant").values()
    killed = sum(result["killer"] is not None for result in mutants)
    yield (
        "states compared with the model",
        grouped(figures.of("model")["states checked, one after each rule"]),
    )
    yield "distinct orders of tasks", grouped(distinct_orders(figures))
    yield "calls cancelled at one of their suspensions", grouped(figures.total("swept", "cancelled"))
    yield "mutants killed", f"{killed} of {len(mutants)}"
    proposed = figures.of("proposed")
    yield "proposed mutants noticed", f"{grouped(proposed['noticed'])} of {grouped(proposed['tried'])}"
    yield "faults injected", grouped(figures.total("fault"))
    yield "inputs of any shape", grouped(figures.total("fuzz"))


def distinct_orders(figures: Figures) -> int:
    """Those of scripts, and one for each random course of events whose order was permuted."""
    longer: int = sum(count for count, _ in figures.of("orders of longer scripts").values())
    lives: int = sum(count for loop, count in figures.of("lives").items() if loop != "uvloop")
    return figures.total("orders of small scripts") + longer + lives


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(shown, line))} |" for line in lines)


def shown(cell: object) -> str:
    return str(cell).replace("|", "\\|")


def again(arguments: str) -> str:
    return f"To see it again: `TRIO_STREAM_PROOF=1 python {arguments}`."


def model_part(figures: Figures) -> Iterator[str]:
    yield "## The model"
    yield (
        "Hypothesis does whatever can be done to a publisher in any order, one step of one task at a time.\n"
        "After each rule the publisher is compared with a model, which is a list of commits."
    )
    yield table(("what", "number"), ((what, grouped(n)) for what, n in figures.of("model").items()))
    yield again("-m pytest tests/model")


def orders_part(figures: Figures) -> Iterator[str]:
    small, longer = figures.of("orders of small scripts"), figures.of("orders of longer scripts")
    lives = figures.of("lives")
    yield "## Orders of tasks"
    yield (
        f"{grouped(distinct_orders(figures))} distinct orders of tasks were tried, "
        "and the same model judged everything received.\n"
        "On trio the tasks of each batch that is ready are permuted, on asyncio the task steps of each turn, "
        "while every other handle stays in its place.\n"
        "The event loop `manual` is the model's own: of all tasks that can go on, any may be the next.\n"
        "Of small scripts, of at most three tasks with at most six steps each, every order was tried, to the last one:"
    )
    yield table(("script", "manual", "trio", "asyncio"), by_loop(small, str))
    yield "Longer ones in every order too where these are not too many, otherwise in the first and in random ones:"
    yield table(
        ("script", "manual", "trio", "asyncio"),
        by_loop(longer, lambda found: f"{'all' if found[1] else 'some'}: {grouped(found[0])}"),
    )
    yield (
        "Random courses of events by real tasks, each in a random order of its own.\n"
        "uvloop keeps its queue out of reach, so that there only the events vary:"
    )
    yield table(
        ("event loop", "courses of events", "events judged"),
        ((loop, grouped(n), grouped(figures.of("life events")[loop])) for loop, n in lives.items()),
    )
    yield f"{again('-m pytest tests/schedules')}\nA failure prints the command that replays it."


def by_loop(noted: Mapping[str, Any], shown: Any) -> Iterator[list[str]]:
    for name in dict.fromkeys(what.rpartition(": ")[0] for what in noted):
        yield [name, *(shown(noted[f"{name}: {loop}"]) for loop in ("manual", "trio", "asyncio"))]


def sweep_part(figures: Figures) -> Iterator[str]:
    swept = figures.of("swept")
    ways = ("by scope", "natively")
    yield "## Cancellation"
    yield (
        "Every public async call was cancelled at its first, second, third ... suspension until it came to its end, "
        f"{grouped(figures.total('swept'))} times in all: on every event loop by a scope, on asyncio natively too, "
        "alone, and in one tick with what wakes it, in both orders.\n"
        "Then it was made again, and had to give what it gives when it is never cancelled (D12), "
        "and leave nothing (D13)."
    )
    yield table(
        ("call", *ways),
        (
            [f"`{name}`", *(grouped(swept.get(f"{name}: {way}", 0)) for way in ways)]
            for name in dict.fromkeys(what.rpartition(": ")[0] for what in swept)
        ),
    )
    others = figures.of("cancelled")
    yield (
        "Longer stories, in which one reader has each of its calls cancelled, again at every suspension in turn: "
        + ", ".join(f"{grouped(others.get(way, 0))} cancellations {way}" for way in ways)
        + "."
    )
    yield again("-m pytest tests/sweep tests/test_cancellation.py tests/view")


def mutants_part(figures: Figures) -> Iterator[str]:
    mutants = figures.of("mutant")
    killed = sum(result["killer"] is not None for result in mutants.values())
    yield "## Mutants"
    yield f"{killed} of {len(mutants)} small changes that break a promise were noticed by a test."
    yield table(
        ("mutant", "who shipped it, or what it breaks", "in", "the first test that noticed"),
        (
            (name, result["origin"], f"`{result['file']}`", killer(result["killer"]))
            for name, result in mutants.items()
        ),
    )
    yield "To see it again: `python tests/mutants`, or one of them with `--only` and its name."


def proposed_part(figures: Figures) -> Iterator[str]:
    proposed, judged = figures.of("proposed"), figures.of("judged")
    yield "## Proposed mutants"
    yield (
        "A list made by hand has the mutants that somebody thought of.\n"
        "These are proposed by a tool, for every line of the core and the views: with the operators of "
        "[mutmut](https://mutmut.readthedocs.io), and with a few that it has not: a statement left out, "
        "a condition that is always or never true, one side of `and` and `or`, a comparison that is narrower.\n"
        "The runner is our own.\n"
        "That of mutmut passes over every function with a decorator, which is every property and most methods here, "
        "and tests a copy of the checkout, not the installed package; "
        "cosmic-ray starts an interpreter and all the tests anew for each mutant.\n"
        "Here a mutant is tried by the tests that run its lines, the quickest first, on asyncio, "
        "in a fork of a process that has collected all tests; "
        "one that they do not notice by a minute of the others, on trio too, "
        "with the model, the orders and the cancellations.\n"
        "What only a longer test would notice counts as not noticed."
    )
    yield (
        f"Of {grouped(proposed['proposed'])} that are proposed this run chose "
        f"{grouped(proposed['tried'] + sum(judged.values()))} at random: "
        f"{grouped(proposed['noticed'])} of {grouped(proposed['tried'])} were noticed, "
        f"and {grouped(sum(judged.values()))} are known to be no fault:"
    )
    yield table(("why it is none", "mutants"), judged.items())
    yield (
        "To see it again: `python tests/mutants/proposed --sample 300`; without `--sample` it tries all of them.\n"
        "`tests/mutants/proposed/judged.txt` has what is no fault, one by one."
    )


def killer(test: str) -> str:
    name = test.removesuffix(" hangs")
    return f"`{name}`" if name == test else f"`{name}`, which hangs"


def bytes_part(figures: Figures) -> Iterator[str]:
    yield "## Bytes"
    yield "As `tracemalloc` counts them; of the event loops the greatest."
    yield table(("what", "bytes"), figures.of("bytes").items())
    yield again("-m pytest tests/memory")


def faults_part(figures: Figures) -> Iterator[str]:
    yield "## Faults of the store, and of clocks"
    yield f"{grouped(figures.total('fault'))} faults were injected; after each everything that is promised was checked."
    yield table(
        ("fault", "times", "outcome"),
        (
            (what.partition(": ")[0], grouped(n), what.partition(": ")[2])
            for what, n in figures.of("fault").items()
        ),
    )
    yield (
        "Most of these were done under readers that hop by their cursor between two publishers of one store: "
        f"they left and went on at their cursor {grouped(figures.total('resumed'))} times, "
        "and the state of each was that of the log at every commit that it saw.\n"
        "Commits that nobody was told of were made again with their id, and were there once."
    )
    yield again("-m pytest tests/faults")
    yield (
        "That does a few faults of each kind; `python tests/faults` does the rest, may be stopped and goes on, "
        "and its counts add up as long as the library is the same; with `--fresh` it begins anew."
    )


def fuzz_part(figures: Figures) -> Iterator[str]:
    yield "## Fuzz"
    yield "Inputs of any shape: a typed error or a correct result, never a traceback, a hang or a partial commit."
    yield table(("what held", "inputs"), ((what, grouped(n)) for what, n in figures.of("fuzz").items()))
    yield again("-m pytest tests/fuzz")


def grouped(number: int) -> str:
    return f"{number:,}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/report.py", description="Tries all promises.")
    parser.add_argument("--fresh", action="store_true", help="do again what has passed")
    is_fresh = parser.parse_args().fresh
    if is_fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    rows: list[list[Run]] = []
    with ThreadPoolExecutor() as pool:
        rows.extend(
            list(pool.map(partial(run, is_fresh=is_fresh), side_by_side)) for side_by_side in COMMANDS
        )
    runs = [each for row in rows for each in row]
    for each in runs:
        sys.stdout.write(
            f"{'passed' if each.has_passed else 'FAILED'} in {each.seconds:.0f} s: {each.command}\n"
        )
    if not all(each.has_passed for each in runs):
        return 1
    figures = Figures(line for each in runs for line in each.noted)
    minutes = sum(max(each.seconds for each in row) for row in rows) / 60
    PAGE.write_text("\n\n".join(page(figures, runs, minutes)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
