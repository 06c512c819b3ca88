"""Runs the whole programme and writes `docs/reference/evidence.md`: `python tests/report.py`.

It needs the installed package, and two cores to be done within 15 minutes.
`--short` runs the short profile and writes nothing that is not measured in it; `--output` names another page.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
CHECKOUT = TESTS.parent
PAGE = CHECKOUT / "docs" / "reference" / "evidence.md"
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "sweeps", "-o", "faulthandler_timeout=900")
KITS = ("memory", "faults", "fuzz", "testing")
# Run side by side, each in its order: what to run, as arguments of the interpreter.
LANES = (
    ((*PYTEST, "tests/model", "tests/schedules"),),
    (
        (*PYTEST, *(f"tests/{name}" for name in ("test_cancellation.py", "test_promises.py", *KITS))),
        ("tests/mutants",),
    ),
)

# What is left to run, what runs, and since when.
Lane = tuple[list[tuple[str, ...]], "subprocess.Popen[bytes] | None", float]


@dataclass
class Figures:
    """What the tests have noted, {kind: {what: value}}; what a test notes on several back ends is kept once."""

    noted: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Figures":
        figures = cls()
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            figures.noted.setdefault(entry["kind"], {})[entry["what"]] = entry["value"]
        return figures

    def of(self, kind: str) -> dict[str, Any]:
        return self.noted.get(kind, {})


def run_lanes(evidence: Path, *, short: bool) -> list[tuple[str, int, float]]:
    """(command, exit code, seconds) of each."""
    environment = {
        **os.environ,
        "TRIO_STREAM_EVIDENCE": str(evidence),
        "TRIO_STREAM_PROOF": "0" if short else "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(TESTS)))),
    }
    done: list[tuple[str, int, float]] = []
    running: list[Lane] = [(list(lane), None, 0.0) for lane in LANES]
    while running:
        waiting: list[Lane] = []
        for left, process, start in running:
            if process is not None:
                if process.poll() is None:
                    waiting.append((left, process, start))
                    continue
                done.append((shown(process.args), process.returncode, time.monotonic() - start))
            if left:
                command = [sys.executable, *existing(left.pop(0))]
                if short and command[-1] == "tests/mutants":
                    command.append("--quick")
                waiting.append(
                    (left, subprocess.Popen(command, cwd=CHECKOUT, env=environment), time.monotonic())
                )
        running = waiting
        time.sleep(0.2)
    return done


def existing(arguments: tuple[str, ...]) -> list[str]:
    return [part for part in arguments if not part.startswith("tests/") or (CHECKOUT / part).exists()]


def shown(command: Any) -> str:
    return " ".join(["python", *command[1:]])


def page(figures: Figures, runs: list[tuple[str, int, float]]) -> Iterator[str]:
    """The page, line by line."""
    yield "# Evidence\n"
    yield "<!-- Written by `python tests/report.py`; do not edit. -->\n"
    yield "What was tried to prove the [promises](promises.md) wrong, and how often, in the run that wrote this page."
    yield f"It ran on Python {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores.\n"
    yield "`nox -s proof` runs it again and writes this page anew.\n"
    yield "## What was run\n"
    yield from table(
        ("command", "result", "seconds"),
        ((f"`TRIO_STREAM_PROOF=1 {c}`", "passed" if not r else "FAILED", f"{s:.0f}") for c, r, s in runs),
    )
    yield from model_part(figures)
    yield from schedules_part(figures)
    yield from sweep_part(figures)
    yield from mutants_part(figures)
    yield from bytes_part(figures)
    known = {"model", "lives", "life orders", "life events", "sweep", "mutant", "bytes"}
    for kind in sorted(set(figures.noted) - known):
        if not kind.startswith("script orders"):
            yield f"\n## {kind.capitalize()}\n"
            yield from table(("what", "outcome"), figures.of(kind).items())


def table(head: tuple[str, ...], rows: Any) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"


def model_part(figures: Figures) -> Iterator[str]:
    names = {
        "examples": "courses of events",
        "rules": "states checked, one after each rule",
        "steps": "steps of tasks, each chosen by the test",
        "events": "events received and judged",
    }
    yield "\n## The model\n"
    yield "Hypothesis does whatever can be done to a publisher in any order, one step of one task at a time;"
    yield "after each the publisher is compared with a model that is a list of commits.\n"
    yield from table(("what", "number"), ((names.get(k, k), v) for k, v in figures.of("model").items()))
    yield "\nReproduce: `TRIO_STREAM_PROOF=1 python -m pytest tests/model`.\n"


def schedules_part(figures: Figures) -> Iterator[str]:
    yield "## Orders of tasks\n"
    yield "The same rules with real tasks, whose order is permuted by a seed:"
    yield "on trio that of each batch of ready tasks, on asyncio that of the ready task steps,"
    yield "while every other handle stays in its place."
    yield "uvloop keeps its queue in C, out of reach, so that only its one order is tried there,"
    yield "with as many courses of events.\n"
    lives = figures.of("lives")
    rows = (
        (b, n, figures.of("life orders").get(b), figures.of("life events").get(b)) for b, n in lives.items()
    )
    yield from table(("event loop", "random lives", "distinct orders", "events judged"), rows)
    yield "\nSmall scripts of at most three tasks are run in every order, depth first, and where these are too many in"
    yield "the first of them and in random ones."
    yield "The event loop `manual` is the model's own, where any task that can go on may be the next.\n"
    rows = (
        (*what.split(": ", 1), number, scope)
        for scope in ("all", "some")
        for what, number in figures.of(f"script orders {scope}").items()
    )
    yield from table(("event loop", "script", "distinct orders", "of all"), rows)
    yield "\nReproduce: `TRIO_STREAM_PROOF=1 python -m pytest tests/schedules`."
    yield "A failure prints the command that replays it.\n"


def sweep_part(figures: Figures) -> Iterator[str]:
    yield "## Cancellation\n"
    yield "Every public async call is cancelled at its first, second, third ... suspension until it completes,"
    yield "by a scope on every event loop and natively on asyncio.\n"
    yield from table(("what", "number"), figures.of("sweep").items())
    yield "\nReproduce: `PYTHONPATH=tests python -m pytest -p sweeps tests/test_cancellation.py`.\n"


def mutants_part(figures: Figures) -> Iterator[str]:
    mutants = figures.of("mutant")
    killed = sum(result["killer"] is not None for result in mutants.values())
    yield "## Mutants\n"
    yield f"{killed} of {len(mutants)} small changes that break a promise were noticed by a test.\n"
    rows = (
        (
            name,
            result["origin"],
            f"`{result['file']}`",
            f"`{result['killer']}`" if result["killer"] else "SURVIVES",
        )
        for name, result in mutants.items()
    )
    yield from table(
        ("mutant", "who shipped it, or what it breaks", "in", "the first test that notices"), rows
    )
    yield "\nReproduce: `python tests/mutants`, or one with `--only NAME`.\n"


def bytes_part(figures: Figures) -> Iterator[str]:
    yield "## Bytes\n"
    yield from table(("what", "bytes"), figures.of("bytes").items())
    yield "\nReproduce: `TRIO_STREAM_PROOF=1 python -m pytest tests/memory`.\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="the short profile, for a look at the page")
    parser.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        evidence = Path(directory) / "evidence.jsonl"
        evidence.touch()
        runs = run_lanes(evidence, short=arguments.short)
        figures = Figures.read(evidence)
    arguments.output.write_text("\n".join(page(figures, runs)).rstrip() + "\n")
    return max(code != 0 for _, code, _ in runs)


if __name__ == "__main__":
    sys.exit(main())
