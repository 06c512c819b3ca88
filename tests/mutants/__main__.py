"""Runs the mutants: `python tests/mutants` all, `--quick` a sample, `--only WORDS` those with these in the name.

Each is applied to a copy of the package in a directory of its own, which comes first on the path.
Its own tests run first and then, if they have not noticed, all tests of the core.
Who has noticed is kept in `.mutants`, and counts as long as the library, that file of tests and what tests have in
common are the same: so a run that was stopped goes on. `--fresh` forgets it.
The exit code is 1 if a mutant survives or no longer applies.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from evidence import note
from library import digest
from mutants.catalogue import CHECKOUT, MUTANTS, problem
from mutants.mutant import Mutant

TESTS = CHECKOUT / "tests"
SAMPLE = 50  # every so many is in the sample
SECONDS = 1800  # that a run of tests may take; all of them need some 10 minutes of one processor
HANGS = 15  # seconds after which a contract test that hangs is stopped, and has noticed
LONG = 120  # the same for the model and the schedules, which take their time
KEPT = CHECKOUT / ".mutants" / "killed.jsonl"
APART = {"benchmarks", "docs", "mutants"}  # directories of tests
PYTEST = ("-x", "-v", "--tb=no", "-p", "no:cacheprovider")


def everything() -> list[str]:
    """The tests of the core, quickest first."""
    core = sorted(path.name for path in TESTS.glob("test_*.py") if path.name != "test_packaging.py")
    return ["model", "schedules", *core]


def run_tests(package: Path, files: list[str]) -> str | None:
    """Runs tests against this copy of the package; the name of the first that fails, None if none does."""
    existing = [str(TESTS / file) for file in files if (TESTS / file).exists()]
    if not existing:
        return None
    takes_time = any(file.startswith(("model", "schedules", "sweep", "memory", "faults")) for file in files)
    hangs = LONG if takes_time else HANGS
    hanging = ("-o", f"faulthandler_timeout={hangs}")
    command = [sys.executable, "-P", "-m", "pytest", *PYTEST, *hanging, *existing]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
        "PYTHONPATH": str(package),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRIO_STREAM_FIRST_FAILURE": "1",  # is enough
    }
    for name in ("TRIO_STREAM_PROOF", "TRIO_STREAM_EVIDENCE"):
        environment.pop(name, None)
    try:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{existing[0]} hangs"
    if done.returncode == 0:
        return None
    output = done.stdout.decode(errors="replace")
    if failed := re.search(r"^(?:FAILED|ERROR) tests/(.+?)(?: - .*)?$", output, re.MULTILINE):
        return failed[1]
    started = re.findall(r"^tests/(\S+::.+?\S)(?: [A-Z]+ +\[.*)?$", output, re.MULTILINE)
    return (
        f"{started[-1].partition(' Timeout')[0]} hangs" if started else f"pytest ends with {done.returncode}"
    )


class Kept:
    """Who has noticed what, in runs before."""

    def __init__(self, file: Path) -> None:
        self._file = file
        common = [path for path in sorted(TESTS.rglob("*.py")) if _is_common(path.relative_to(TESTS))]
        self._common = hashlib.sha256(b"".join(path.read_bytes() for path in common)).hexdigest()
        lines = file.read_text().splitlines() if file.exists() else []
        # {name of a mutant: [digest of what was found, and of all that it depends on; what was found]}
        self._found: dict[str, tuple[str, dict[str, object]]] = dict(map(json.loads, lines))

    def get(self, mutant: Mutant) -> dict[str, object] | None:
        """What was found, if that still counts."""
        of, found = self._found.get(mutant.name, ("", {"killer": ""}))
        return found if of == self._of(mutant, str(found["killer"])) else None

    def add(self, mutant: Mutant, found: dict[str, object]) -> None:
        """Keeps it, if somebody has noticed."""
        if found["killer"] is None:
            return
        self._file.parent.mkdir(exist_ok=True)
        of = self._of(mutant, str(found["killer"]))
        with self._file.open("a") as file:
            file.write(json.dumps([mutant.name, [of, found]]) + "\n")

    def _of(self, mutant: Mutant, killer: str) -> str:
        tests = TESTS / killer.partition("::")[0]
        content = tests.read_bytes() if tests.is_file() else b""
        parts = [digest(), self._common, *mutant[:5], killer, hashlib.sha256(content).hexdigest()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _is_common(path: Path) -> bool:
    """Whether tests of the core may have something from this module."""
    return not path.name.startswith(("test_", "report")) and path.parts[0] not in APART


def kill(kept: Kept, mutant: Mutant) -> dict[str, object]:
    """Applies it and finds who notices."""
    result: dict[str, object] = {"name": mutant.name, "origin": mutant.origin, "file": mutant.file}
    if (why := problem(mutant)) is not None:
        return {**result, "killer": None, "problem": why}
    if (found := kept.get(mutant)) is not None:
        return found
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        package = Path(directory) / "trio_stream"
        shutil.copytree(CHECKOUT / "trio_stream", package, ignore=shutil.ignore_patterns("__pycache__"))
        file = package / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        tries = [[file] for file in mutant.killers] + [everything()]
        killer = next(filter(None, (run_tests(package.parent, files) for files in tries)), None)
    found = {**result, "killer": killer, "seconds": round(time.monotonic() - start, 1)}
    kept.add(mutant, found)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a sample only")
    parser.add_argument("--only", default="", help="those with this in the name")
    parser.add_argument("--fresh", action="store_true", help="forget what was found before")
    arguments = parser.parse_args()
    if arguments.fresh:
        KEPT.unlink(missing_ok=True)
    kept = Kept(KEPT)
    mutants = [mutant for mutant in MUTANTS if arguments.only in mutant.name]
    if arguments.quick:
        mutants = mutants[::SAMPLE]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = []
        for result in pool.map(partial(kill, kept), mutants):
            results.append(result)
            note("mutant", str(result["name"]), result)
            shown = result["killer"] or result.get("problem") or "SURVIVES"
            sys.stdout.write(f"{result['name']}: {shown} ({result.get('seconds', '-')} s)\n")
            sys.stdout.flush()
    alive = [result["name"] for result in results if result["killer"] is None]
    sys.stdout.write(f"{len(results) - len(alive)} of {len(results)} mutants killed\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
