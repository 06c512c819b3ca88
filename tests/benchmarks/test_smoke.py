"""The benchmark itself works: the smallest work, looked at for its form and never for its speed."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from benchmarks import by_hand
from benchmarks.against import Case, Comparison, Pair, compare, is_fine, table_of
from benchmarks.interval import interval
from benchmarks.row import Load
from benchmarks.rows import ROWS
from benchmarks.run import Measurement
from benchmarks.table import aims_of, table_of as rows_of

import trio_stream
from trio_stream.stores import Put, open_store

SMALL = (
    "import",
    "live-trio",
    "live-asyncio",
    "backlog-trio",
    "backlog-filtered",
    "publish-matching",
    "publish-many",
    "herd-cold",
    "close-one",
    "resume",
    "where",
    "conflate",
    "replay",
)
OF_STORES = (
    "commits",
    "commits-normal",
    "commits-processes",
    "store-idle",
    "store-first",
    "store-busy",
    "store-import",
    "store-start",
    "store-start-import",
    "store-snapshot",
    "store-replay",
    "postgresql-commits",
    "postgresql-receive",
    "postgresql-start",
    "postgresql-replay",
    "fleet-relay",
    "fleet-reader",
    "fleet-follow",
)
OPTIONAL = {"broadcaster", "aio-broadcast", "reactivex (no tasks)"}  # of the dependency group `bench`


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in OF_STORES)]
)
def test_every_contender_of_a_row_has_every_figure(name: str) -> None:
    row = ROWS[name]
    lacking = row.missing()
    if lacking is not None:
        pytest.skip(f"the row needs {lacking}")
    for contender, measure in row.contenders.items():
        if contender not in OPTIONAL:
            sample = measure(Load(2, 0.0))
            assert set(sample) == {figure.name for figure in row.figures}


def contents(path: Path) -> list[object]:
    """What two stores with the same commits have in common: no times, marks and epochs."""
    with by_hand.connected(path) as connection:
        return [
            connection.execute("PRAGMA auto_vacuum").fetchall(),
            connection.execute("PRAGMA journal_mode").fetchall(),
            connection.execute("SELECT idx, floor FROM ts_head").fetchall(),
            connection.execute("SELECT * FROM ts_state ORDER BY topic, namespace, key").fetchall(),
            connection.execute("SELECT idx, length(mark), operations, revoked FROM ts_log").fetchall(),
        ]


def test_what_is_done_by_hand_is_what_the_store_does(tmp_path: Path) -> None:
    """The same rows, in a file of the same form: with previous values, and a mark."""
    commits: list[list[tuple[str, Any]]] = [
        [("a", 1), ("b", {"é": [None]})],
        [("a", 2.5)],
        [("b", "x"), ("c", True)],
    ]

    async def commit(path: Path) -> None:
        async with open_store(f"sqlite:{path}") as store:
            for items in commits:
                await store.commit([Put("values", key, value) for key, value in items])

    anyio.run(commit, tmp_path / "store.db")
    by_hand.create(tmp_path / "hand.db")
    with by_hand.connected(tmp_path / "hand.db") as connection:
        for items in commits:
            by_hand.commit(connection, "values", items)
    assert contents(tmp_path / "hand.db") == contents(tmp_path / "store.db")


def test_a_log_that_is_loaded_is_one_that_was_committed(tmp_path: Path) -> None:
    count = by_hand.KEYS + 2
    for name in ("loaded", "committed"):
        by_hand.create(tmp_path / name)
    with by_hand.connected(tmp_path / "loaded") as connection:
        by_hand.load_log(connection, "values", count)
    with by_hand.connected(tmp_path / "committed", "OFF") as connection:
        for number in range(1, count + 1):
            by_hand.commit(connection, "values", [(f"key-{number % by_hand.KEYS}", number)])
    assert contents(tmp_path / "loaded") == contents(tmp_path / "committed")


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
    table = rows_of(row, measurements)
    assert "| trio_stream, async for | 60 ±50% | 60 ±50% (3.00 x) | n^0.00 |" in table
    assert aims_of(row, measurements) == [
        "- met: live-trio, trio_stream, async for at 1,000: 3.00 x trio channels; aim at least 1.5 x"
    ]


def test_what_failed_is_shown() -> None:
    row = ROWS["resume"]
    table = rows_of(row, [Measurement(row.name, "trio_stream", 100, 0, {}, "it broke")])
    assert "FAILED: trio_stream, n = 100: it broke" in table


def test_an_interval_leaves_out_as_many_averages_as_the_tables_of_signed_ranks_say() -> None:
    # The critical values are those of the tables for 0.025 on one side: 0 of 6, 8 of 10, 25 of 15.
    for n, below in ((6, 0), (10, 8), (15, 25)):
        values = [2.0**number for number in range(n)]
        averages = sorted((values[i] + values[j]) / 2 for i in range(n) for j in range(i + 1))
        low, middle, high = interval(values)
        assert (low, high) == (averages[below], averages[-1 - below])
        assert low < middle < high
    assert interval([3.0] * 6) == (3.0, 3.0, 3.0)


def test_a_ratio_is_one_of_cost_and_says_whether_it_is_worse() -> None:
    slower, faster, larger = (
        Comparison(Case("live-trio", "trio_stream, async for", 1)),
        Comparison(Case("resume", "trio_stream", 100)),
        Comparison(Case("memory-idle", "trio_stream", 100)),
    )
    for turn in range(1, 7):
        slower.pairs.append(Pair({"rate": 100.0 * turn}, {"rate": 80.0 * turn}))
        faster.pairs.append(Pair({"each": 10.0 * turn}, {"each": 8.0 * turn}))
        larger.pairs.append(Pair({"bytes": 100.0}, {"bytes": 104.0}))
    lines = table_of([slower, faster, larger]).splitlines()
    assert "1.250 (1.250 to 1.250) | WORSE" in lines[2]
    assert "0.800 (0.800 to 0.800) | better" in lines[3]
    assert "1.040 (1.040 to 1.040) | not worse" in lines[4]
    assert is_fine([faster, larger])
    assert not is_fine([faster, slower])


def wheel(directory: Path, files: Mapping[str, str]) -> str:
    """A wheel of these files; nothing has to be built for it."""
    about = {
        "METADATA": "Metadata-Version: 2.1\nName: trio_stream\nVersion: 0.0.1\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    path = directory / "trio_stream-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        for name, text in about.items():
            archive.writestr(f"trio_stream-0.0.1.dist-info/{name}", text)
    return str(path)


@pytest.mark.slow
def test_another_version_is_measured_in_turn_with_this_one(tmp_path: Path) -> None:
    library = Path(trio_stream.__file__).parent
    files = {str(path.relative_to(library.parent)): path.read_text() for path in library.rglob("*.py")}
    comparison = Comparison(Case("resume", "trio_stream", 2))
    for _ in compare(wheel(tmp_path, files), [comparison], pairs=2, seconds=0.0):
        pass
    assert not comparison.error
    assert [set(sample) for pair in comparison.pairs for sample in pair] == [{"each"}] * 4


@pytest.mark.slow
def test_what_another_version_lacks_is_said(tmp_path: Path) -> None:
    comparison = Comparison(Case("resume", "trio_stream", 2))
    files = {"trio_stream/__init__.py": "Topic = object()\n"}
    for _ in compare(wheel(tmp_path, files), [comparison], pairs=2, seconds=0.0):
        pass
    assert "FAILED: resume trio_stream 2: ImportError: cannot import name" in table_of([comparison])
    assert not is_fine([comparison])
