"""The benchmark itself works: the smallest work, looked at for its form and never for its speed."""

import pytest
from benchmarks.row import Load
from benchmarks.rows import ROWS
from benchmarks.run import Measurement
from benchmarks.table import aims_of, table_of

SMALL = (
    "import",
    "live-trio",
    "live-asyncio",
    "backlog-trio",
    "publish-matching",
    "herd-cold",
    "close-one",
    "resume",
)
OPTIONAL = {"broadcaster", "aio-broadcast", "reactivex (no tasks)"}  # of the dependency group `bench`


@pytest.mark.parametrize("name", SMALL)
def test_every_contender_of_a_row_has_every_figure(name: str) -> None:
    row = ROWS[name]
    for contender, measure in row.contenders.items():
        if contender not in OPTIONAL:
            sample = measure(Load(2, 0.0))
            assert set(sample) == {figure.name for figure in row.figures}


def test_a_table_shows_medians_ratios_of_one_round_and_growth() -> None:
    row = ROWS["live-trio"]
    rates = {
        ("trio_stream, async for", 1): 30.0,
        ("trio_stream, async for", 1_000): 30.0,
        ("trio channels", 1_000): 10.0,
    }
    measurements = [
        Measurement(row.name, contender, n, turn, {"rate": rate * turn})
        for turn in (1, 2, 3)
        for (contender, n), rate in rates.items()
    ]
    table = table_of(row, measurements)
    assert "| trio_stream, async for | 60 ±50% | 60 ±50% (3.00 x) | n^0.00 |" in table
    assert aims_of(row, measurements) == [
        "- met: live-trio, trio_stream, async for at 1,000: 3.00 x trio channels; aim at least 1.5 x"
    ]


def test_what_failed_is_shown() -> None:
    row = ROWS["resume"]
    table = table_of(row, [Measurement(row.name, "trio_stream", 100, 0, {}, "it broke")])
    assert "FAILED: trio_stream, n = 100: it broke" in table
