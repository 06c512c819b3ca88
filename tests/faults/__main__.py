"""Does faults of every kind until there are as many as the report has, each under readers: `python tests/faults`.

`--until 20` at most so many of each kind, `--only PostgreSQL` the kinds with these words in the name, `--minutes 5` no
new trial after that.
What was done is kept in `.faults`: a run that was stopped goes on, and its counts add up with those of the runs before,
as long as the library is the same. `--fresh` forgets it, which is due when the trials have changed.
A trial that fails says how to do it again, `--again`, and then the exit code is 1.
"""

import argparse
import json
import logging
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import anyio

sys.path.insert(0, str(Path(__file__).parents[1]))

from evidence import note
from faults.kinds import KINDS, Kind
from faults.trials import Found
from library import digest
from stores.postgresql.server import missing

KEPT: Final = Path(__file__).parents[2] / ".faults" / "done.jsonl"
BACKENDS: Final = ("trio", "asyncio")


class Done:
    """What was done before to the library as it is."""

    def __init__(self) -> None:
        self._library = digest()
        self.times: Counter[str] = Counter()
        self.resumes: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()
        self.repeats: Counter[str] = Counter()
        # {kind: the seeds that were used}
        self.seeds: Counter[str] = Counter()
        if KEPT.exists():
            for line in KEPT.read_text().splitlines():
                self._count(json.loads(line))

    def add(self, kind: str, found: Found) -> None:
        if digest() != self._library:
            raise RuntimeError("the library was changed meanwhile: nobody can say what was tried")
        line = {
            "library": self._library,
            "kind": kind,
            "times": found.times,
            "resumes": found.resumes,
            "settled": found.settled,
            "repeats": len(found.repeats),
        }
        KEPT.parent.mkdir(exist_ok=True)
        with KEPT.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        if line["library"] == self._library:
            kind = line["kind"]
            self.seeds[kind] += 1
            for counts, name in (
                (self.times, "times"),
                (self.resumes, "resumes"),
                (self.settled, "settled"),
                (self.repeats, "repeats"),
            ):
                counts[kind] += line[name]


def try_once(kind: Kind, seed: int, times: int) -> Found:
    """One trial, on one of the back ends."""
    with tempfile.TemporaryDirectory(prefix="ts-faults-") as folder, kind.place(Path(folder)) as place:
        found: Found = anyio.run(
            kind.trial, place, random.Random(seed), times, backend=BACKENDS[seed % len(BACKENDS)]
        )
        return found


def run(names: Sequence[str], done: Done, until: int | None, end: float) -> bool:
    """Trials of all kinds in turn, as many as are missing; whether all have passed."""
    missing = set(names)
    for name in cycle(names):
        if not missing or time.monotonic() > end:
            return True
        kind = KINDS[name]
        times = min(kind.at_once, min(kind.aim, until or kind.aim) - done.times[name])
        if times <= 0:
            missing.discard(name)
            continue
        seed = done.seeds[name]
        try:
            found = try_once(kind, seed, times)
        except Exception:  # noqa: BLE001 - whatever it is, it is shown
            traceback.print_exc()
            say(f"FAILED: python tests/faults --only '{name}' --again {seed} {times}")
            return False
        done.add(name, found)
        say(f"{name}: {done.times[name]} of {kind.aim}")
    return True


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note_all(names: Iterable[str], done: Done) -> None:
    for name in names:
        if done.times[name]:
            note("fault", KINDS[name].what, done.times[name])
            note("resumed", name, done.resumes[name])
            say(
                f"{name}: {done.times[name]}, {done.resumes[name]} resumes, {done.repeats[name]} errors after which"
                f" a commit was made again, {done.settled[name]} commits made that nobody was told of"
            )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python tests/faults", description="Does faults to stores.")
    parser.add_argument("--until", type=int, metavar="N")
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--again", type=int, nargs=2, metavar=("SEED", "TIMES"))
    options = parser.parse_args()
    # It warns of every fault, as it should.
    logging.getLogger("trio_stream").setLevel(logging.ERROR)
    names = [name for name in KINDS if options.only in name]
    if (lacking := missing()) is not None:
        say(f"a PostgreSQL server of one's own needs {lacking}")
        names = [name for name in names if "PostgreSQL" not in name]
    if not names:
        parser.error(f"no kind is left of {options.only!r}: there are {', '.join(KINDS)}")
    if options.again:
        for name in names:
            say(f"{name}: {try_once(KINDS[name], *options.again)}")
        return 0
    if options.fresh:
        KEPT.unlink(missing_ok=True)
    done = Done()
    has_passed = run(names, done, options.until, time.monotonic() + 60 * options.minutes)
    note_all(names, done)
    return 0 if has_passed else 1


if __name__ == "__main__":
    sys.exit(main())
