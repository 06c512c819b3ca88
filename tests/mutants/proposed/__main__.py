"""Changes the core and the views in all the ways that are proposed, and finds what no test notices.

`python tests/mutants/proposed` takes all of them, `--sample 600` some, `--only view/_table.py` those of files whose
path begins so.
What was found out is kept in `.mutants`: a run that was stopped goes on, and only what was changed is tried again.
`--fresh` forgets it, which is due when tests have changed.
What no test notices is printed, unless `judged.txt` says why it is no fault; then the exit code is 1.
"""

import argparse
import gc
import hashlib
import json
import os
import pickle
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final

import anyio.pytest_plugin
import hypothesis
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from evidence import note
from mutants.proposed import changes
from mutants.proposed.changes import Change
from mutants.proposed.children import Say, Task, forked, results
from mutants.proposed.judged import JUDGED
from mutants.proposed.trial import (
    PACKAGE,
    TESTS,
    Collected,
    Functions,
    Seconds,
    killer_when_imported,
    run_pytest,
    trace,
)

KEPT: Final = TESTS.parent / ".mutants"
PASSED: Final = KEPT / "passed.json"  # the changes that no quick test notices
START: Final = time.monotonic()
AT_ONCE: Final = os.cpu_count() or 1
PORTIONS: Final = 4 * AT_ONCE  # in which the map is drawn
# The tests of the core and the views; of another directory only what is named.
OTHERS: Final = ("view", "testing", "model", "schedules", "sweep", "memory")
# Not about the core, as the kit for stores; and what counts bytes, which depends on what ran before.
APART: Final = (
    "test_packaging.py",
    "test_report.py",
    "test_store.py",
    "test_memory_store.py",
    "test_bytes.py",
    "test_slow_readers.py",
)
SLOW: Final = ("model/", "schedules/", "sweep/", "memory/")
# Of what the quick tests do not notice: what no test notices that is among the quickest of the others, which take this
# long together, counts as not noticed.
LIMIT: Final = 60.0  # seconds
# The imports that each process would have to do again; the package is not among them.
IMPORTED: Final = (anyio.pytest_plugin, hypothesis, trio)


class Map:
    """Which tests run which lines. Only what has changed is found out again."""

    def __init__(self) -> None:
        kept = KEPT / "map.json"
        package = _digest(*sorted(PACKAGE.rglob("*.py")))
        tests = {name: _digest(TESTS / name) for name in test_files()}
        # {file of tests: {"of": digests, "seconds": {test: seconds}, "lines": {file: {line: [test]}}}}
        parts: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        parts = {name: part for name, part in parts.items() if part["of"] == [package, tests.get(name)]}
        if missing := sorted(tests.keys() - parts.keys()):
            say(f"finding out which lines are run by {', '.join(missing)}")
            places = {KEPT / f"drawn{at}.json": missing[at::PORTIONS] for at in range(PORTIONS)}
            tasks = ((place, partial(_draw, place, files)) for place, files in places.items() if files)
            for place, failure in results(tasks, AT_ONCE):
                if failure is not None:
                    raise RuntimeError(f"without any change: {failure}")
                for name, part in json.loads(place.read_text()).items():
                    parts[name] = {"of": [package, tests[name]], **part}
                place.unlink()
            _write(kept, parts)
        self._parts = parts.values()
        self._seconds: dict[str, float] = {}
        for part in self._parts:
            self._seconds |= part["seconds"]

    def tests(self, change: Change) -> Seconds:
        """Those that run what is changed; none if it runs when the package is imported, which any may notice."""
        names = {
            name
            for part in self._parts
            for line, names in part["lines"].get(change.file, {}).items()
            if int(line) in change.lines
            for name in names
        }
        return {name: self._seconds[name] for name in names & self._seconds.keys()}

    @property
    def all(self) -> Seconds:
        return self._seconds


def _draw(place: Path, files: Sequence[str], say: Say) -> str | None:
    say("finding out which lines are run", 3600)
    failures: list[str] = []

    def draw(collected: Collected) -> None:
        parts, failed = trace(collected)
        failures.extend(failed)
        _write(place, parts)

    with suppress(RuntimeError):  # of pytest, when a test has failed
        run_pytest(Collected(draw), files)
    return next(iter(failures), None)


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value))


def quick(tests: Seconds) -> Seconds:
    """Those on plain asyncio, where tasks run in a given order, and those that run on no event loop."""
    return {
        name: seconds
        for name, seconds in tests.items()
        if "[trio" not in name and "asyncio+" not in name and not name.startswith(SLOW)
    }


def others(tests: Seconds, those: Seconds) -> Seconds:
    """The quickest that are not among `those`, as many as the limit allows."""
    left = sorted(tests.keys() - those.keys(), key=lambda name: (tests[name], name))
    ends = accumulate(tests[name] for name in left)
    return {name: tests[name] for name, end in zip(left, ends, strict=True) if end <= LIMIT}


class Known:
    """What was found out before. What no test noticed is tried again when there are other tests."""

    def __init__(self) -> None:
        self._file = KEPT / "results.jsonl"
        self._tests = _digest(*(TESTS / name for name in test_files()))
        # {(name, digest): who notices, or which tests do not}
        self._killers: dict[tuple[str, str], tuple[str | None, str]] = {}
        if self._file.exists():
            for line in self._file.read_text().splitlines():
                name, digest, killer, tests = json.loads(line)
                self._killers[name, digest] = killer, tests

    def add(self, change: Change, killer: str | None) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps([change.name, change.digest, killer, self._tests]) + "\n")

    def forget(self, killer: str) -> None:
        """What this has noticed was perhaps none of what was changed."""
        lines = self._file.read_text().splitlines(keepends=True) if self._file.exists() else []
        self._file.write_text("".join(line for line in lines if json.loads(line)[2] != killer))

    def __contains__(self, change: Change) -> bool:
        killer, tests = self._killers.get((change.name, change.digest), (None, ""))
        return killer is not None or tests == self._tests

    def is_noticed(self, change: Change) -> bool:
        return self._killers[change.name, change.digest][0] is not None


def say(line: str) -> None:
    sys.stdout.write(f"{time.monotonic() - START:.0f} s: {line}\n")
    sys.stdout.flush()


def test_files() -> list[str]:
    paths = [path for part in ("", *OTHERS) for path in sorted((TESTS / part).glob("test_*.py"))]
    return [str(path.relative_to(TESTS)) for path in paths if path.name not in APART]


def proposals(prefixes: tuple[str, ...]) -> list[Change]:
    """All changes of the files whose path begins so."""
    files = {
        str(file.relative_to(PACKAGE)): file
        for path in ("", "view/")
        for file in PACKAGE.glob(f"{path}_*.py")
    }
    places = {
        name: (file, KEPT / f"{_digest(file, Path(changes.__file__))}.pickle")
        for name, file in sorted(files.items())
        if name.startswith(prefixes) and not file.name.startswith("__")
    }
    tasks = (
        (name, partial(_save, name, file, place))
        for name, (file, place) in places.items()
        if not place.exists()
    )
    for name, failure in results(tasks, AT_ONCE):
        if failure is not None:
            raise RuntimeError(f"{name}: {failure}")
    return [change for _, place in places.values() for change in pickle.loads(place.read_bytes())]


def _save(name: str, file: Path, place: Path, say: Say) -> None:
    say(name, 600)
    place.write_bytes(pickle.dumps(list(changes.propose(name, file.read_text()))))


def _rank(change: Change) -> bytes:
    """A random place in the order in which they are chosen; that of the others does not depend on it."""
    return hashlib.sha256(change.name.encode()).digest()


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def checked(
    control: Task, tasks: Iterable[tuple[Change, Task]], known: Known
) -> Iterator[tuple[Change, str | None]]:
    """What notices each change. Raises if the control, which changes nothing and is run beside them, has a failure."""
    all_: Iterable[tuple[Change | None, Task]] = chain([(None, control)], tasks)
    for change, killer in results(all_, AT_ONCE):
        if change is not None:
            yield change, killer
        elif killer is not None:
            known.forget(killer)
            raise RuntimeError(f"without any change: {killer}")


def try_in_place(left: Sequence[Change], drawn: Map, known: Known, collected: Collected) -> None:
    """Notes which are noticed by the quick tests, without importing anything anew; and which are not."""
    functions = Functions()
    gc.freeze()  # children do not go through it, and leave its memory shared

    def task(change: Change, say: Say) -> str | None:
        tests = quick(drawn.tests(change))
        replace = functions.replacement(change) if tests else None
        if replace is None:
            return None
        replace()
        return collected.first_failure(tests, say) or ""

    passed: list[str] = []
    tasks = ((change, partial(task, change)) for change in left)
    all_ = quick(drawn.all)
    for change, killer in checked(lambda say: collected.first_failure(all_, say), tasks, known):
        if killer:
            known.add(change, killer)
        elif killer is not None:
            passed.append(change.name)
        say(f"{change.name}\n  {killer or 'is left'}")
    _write(PASSED, passed)


def try_imported(left: Sequence[Change], drawn: Map, known: Known) -> None:
    """Tries the others; any test may notice what has to do with the import only."""
    passed = set(json.loads(PASSED.read_text()))
    tests = {}
    for change in left:
        of = drawn.tests(change) or drawn.all
        tests[change.name] = others(of, quick(of) if change.name in passed else {})
    all_ = {name: seconds for of in tests.values() for name, seconds in of.items()}
    tasks = ((change, partial(killer_when_imported, change, tests[change.name])) for change in left)
    for change, killer in checked(partial(killer_when_imported, None, all_), tasks, known):
        known.add(change, killer)
        say(f"{change.name}\n  {killer or 'NOT NOTICED'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="PATH",
        help="those of files whose path in the package begins so",
    )
    parser.add_argument(
        "--sample", type=int, help="so many of them, always the same as long as they are proposed"
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was found out before")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # children are ended, then
    evidence = os.environ.pop("TRIO_STREAM_EVIDENCE", "")  # what the tests note is of changed code
    os.environ.pop("TRIO_STREAM_PROOF", None)
    os.environ["TRIO_STREAM_FIRST_FAILURE"] = "1"  # is enough
    KEPT.mkdir(exist_ok=True)
    if arguments.fresh:
        (KEPT / "results.jsonl").unlink(missing_ok=True)
    only = tuple(arguments.only)
    proposed = proposals(only)
    names = {change.name for change in proposed}
    stale = [name for name in JUDGED if name.startswith(only) and name not in names]
    chosen = proposed
    if arguments.sample is not None:
        chosen = sorted(proposed, key=_rank)[: arguments.sample]
    drawn = Map()
    known = Known()
    left = [change for change in chosen if change not in known and change.name not in JUDGED]
    say(f"{len(proposed)} changes, {len(chosen)} chosen, {len(left)} to be tried")
    if left:
        forked(partial(run_pytest, Collected(partial(try_in_place, left, drawn, known)), test_files()))
        known = Known()
        try_imported([change for change in left if change not in known], drawn, known)
        known = Known()
    os.environ["TRIO_STREAM_EVIDENCE"] = evidence
    return tell(proposed, chosen, stale, known)


def tell(proposed: Sequence[Change], chosen: Sequence[Change], stale: Sequence[str], known: Known) -> int:
    judged = Counter(JUDGED[change.name] for change in chosen if change.name in JUDGED)
    tried = [change for change in chosen if change.name not in JUDGED]
    unnoticed = [change for change in tried if not known.is_noticed(change)]
    note("proposed", "proposed", len(proposed))
    note("proposed", "tried", len(tried))
    note("proposed", "noticed", len(tried) - len(unnoticed))
    for reason, count in judged.items():
        note("judged", reason, count)
    for name in stale:
        say(f"{name}\n  is judged and is not proposed any more")
    for change in unnoticed:
        say(f"{change.name}\n  NO TEST NOTICES")
    say(
        f"{len(chosen)} of {len(proposed)} changes: {len(tried) - len(unnoticed)} noticed, "
        f"{judged.total()} judged to be no fault, {len(unnoticed)} not noticed"
    )
    return 1 if unnoticed or stale else 0


if __name__ == "__main__":
    sys.exit(main())
