"""Runs rows: every measurement in a process of its own, the contenders in turn, all of them several times."""

import multiprocessing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from .row import Load, Row, Sample

TIMEOUT: Final = 300.0  # seconds for one measurement


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one process has measured, or why it could not."""

    row: str
    contender: str
    n: int
    round: int
    sample: Sample
    error: str = ""


def run_row(row: Row, sizes: Iterable[int], rounds: int, seconds: float) -> Iterator[Measurement]:
    """Round after round, so that what else the machine does meets all contenders alike."""
    sizes = tuple(sizes)
    for turn in range(rounds):
        for n in sizes:
            for contender in row.contenders:
                if n <= (row.limits or {}).get(contender, n):
                    sample, error = _in_a_process(row.name, contender, Load(n, seconds))
                    yield Measurement(row.name, contender, n, turn, sample, error)


def _in_a_process(row: str, contender: str, load: Load) -> tuple[Sample, str]:
    # The server has imported everything and done nothing; each measurement is a fork of it.
    context = (
        multiprocessing.get_context("forkserver")
        if "forkserver" in multiprocessing.get_all_start_methods()
        else multiprocessing.get_context("spawn")
    )
    context.set_forkserver_preload([f"{__package__}.rows", __name__])
    result, report = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(report, row, contender, load))
    process.start()
    report.close()
    try:
        if not result.poll(TIMEOUT):
            return {}, f"nothing after {TIMEOUT:.0f} seconds"
        answer: tuple[Sample, str] = result.recv()
    except EOFError:
        return {}, "the process has ended without a result"
    finally:
        process.kill()
        process.join()
    return answer


def _measure(report: Connection, row: str, contender: str, load: Load) -> None:
    from .rows import ROWS

    try:
        report.send((ROWS[row].contenders[contender](load), ""))
    except Exception as error:  # noqa: BLE001 - it is shown in the place of the figure
        report.send(({}, repr(error)))
