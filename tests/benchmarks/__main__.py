"""`python -m benchmarks`: runs the rows, prints their tables and how the aims were met, writes JSON.

With `--against` it compares the installed library with another version instead.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from . import against
from .interval import LEAST
from .machine import describe
from .row import Row
from .rows import FILES, ROWS
from .run import Measurement, run_row
from .table import aims_of, table_of

QUICK_SECONDS, SECONDS = 0.08, 0.5
QUICK_ROUNDS, ROUNDS = 2, 5
PAIRS, PAIR_SECONDS = 15, 0.2


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="few sizes, short measurements, no plots: 5 minutes"
    )
    parser.add_argument(
        "--row", action="append", choices=ROWS, metavar="NAME", help=f"one of: {', '.join(ROWS)}"
    )
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument(
        "--seconds", type=float, help="of the processor for one measurement, where it is free"
    )
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the figures go")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="DIRECTORY",
        help="write the tables and plots for the documentation there",
    )
    parser.add_argument(
        "--against",
        metavar="VERSION",
        help="a wheel or a source tree: compare with it, and end with an error if a row is worse",
    )
    parser.add_argument(
        "--pairs", type=int, default=PAIRS, help=f"how often both versions are measured, at least {LEAST}"
    )
    return parser.parse_args(arguments)


def run(row: Row, arguments: argparse.Namespace) -> list[Measurement]:
    sizes = row.quick if arguments.quick else row.sizes
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else ROUNDS)
    rounds = min(rounds, row.rounds or rounds)
    seconds = arguments.seconds or (QUICK_SECONDS if arguments.quick else SECONDS)
    return list(run_row(row, sizes, rounds, seconds))


def show(*lines: str) -> None:
    sys.stdout.write("\n".join((*lines, "")))
    sys.stdout.flush()


def main(arguments: argparse.Namespace) -> int:
    before = describe()
    show(*(f"{name}: {value}" for name, value in before.items()), "")
    measured: dict[str, list[Measurement]] = {}
    tables: dict[str, str] = {}
    aims: dict[str, list[str]] = {}
    for name in arguments.row or ROWS:
        if lacking := ROWS[name].missing():
            show(f"`{name}` is left out: it needs {lacking}", "")
            continue
        measured[name] = run(ROWS[name], arguments)
        aims[name] = aims_of(ROWS[name], measured[name])
        tables[name] = table_of(ROWS[name], measured[name])
        show(tables[name])
    machine = {**before, "load at the end": describe()["load"]}
    show("### Aims", "", *chain(*aims.values()), "", f"load at the end: {machine['load at the end']}")
    every = [asdict(each) for name in measured for each in measured[name]]
    arguments.json.write_text(json.dumps({"machine": machine, "measurements": every}, indent=1) + "\n")
    if arguments.report:
        write_report(arguments.report, machine, measured, tables, aims)
    return 1 if any(each["error"] for each in every) else 0


def compare(arguments: argparse.Namespace) -> int:
    cases = [case for case in against.CASES if case.row in (arguments.row or ROWS)]
    if not cases:
        sys.exit(
            f"the rows of a comparison are {', '.join(dict.fromkeys(case.row for case in against.CASES))}"
        )
    show(*(f"{name}: {value}" for name, value in describe().items()), "")
    comparisons = [against.Comparison(case) for case in cases]
    pairs = max(arguments.pairs, LEAST)
    for _ in against.compare(arguments.against, comparisons, pairs, arguments.seconds or PAIR_SECONDS):
        arguments.json.write_text(json.dumps([vars(each) for each in comparisons], indent=1) + "\n")
        sys.stderr.write(".")
        sys.stderr.flush()
    show("", against.table_of(comparisons))
    return 0 if against.is_fine(comparisons) else 1


def write_report(
    directory: Path,
    machine: Mapping[str, str],
    measured: Mapping[str, Sequence[Measurement]],
    tables: Mapping[str, str],
    aims: Mapping[str, Sequence[str]],
) -> None:
    """What docs/explanation/performance.md includes: the files of which all rows were measured."""
    for file, names in FILES.items():
        if measured.keys() >= set(names):
            lines = [
                *(f"- {name}: {value}" for name, value in machine.items()),
                "",
                *(tables[name] for name in names),
            ]
            if met := [*chain(*(aims[name] for name in names))]:
                lines += ["### Aims", "", *met]
            (directory / file).write_text("\n".join(lines) + "\n")
    if measured.keys() >= set(FILES["performance.inc"]):
        from .plots import draw

        draw(measured, directory)


if __name__ == "__main__":
    chosen = parse()
    sys.exit(compare(chosen) if chosen.against else main(chosen))
