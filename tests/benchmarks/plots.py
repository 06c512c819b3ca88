"""The plots of the documentation: figures over the number of readers, ours and the peers'."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .row import Figure
from .rows import ROWS
from .run import Measurement
from .table import Results

PLOTS: Mapping[str, tuple[str, ...]] = {
    "deliveries-live.svg": ("live-trio", "live-asyncio"),
    "deliveries-backlog.svg": ("backlog-trio", "backlog-asyncio"),
    "bytes.svg": ("memory-idle", "memory-stalled"),
}


def draw(measured: Mapping[str, Sequence[Measurement]], directory: Path) -> None:
    """Draws each plot whose rows were measured; the same figures give the same file."""
    mpl.rcParams.update({"svg.hashsalt": "trio_stream", "font.size": 9})
    for name, rows in PLOTS.items():
        if all(row in measured for row in rows):
            figure, axes = plt.subplots(1, len(rows), figsize=(11, 4.5), layout="constrained")
            for axis, row in zip(axes, rows, strict=True):
                _plot(axis, row, measured[row])
            figure.savefig(directory / name, metadata={"Date": None, "Creator": None})
            plt.close(figure)


def _plot(axis: Axes, row: str, measurements: Sequence[Measurement]) -> None:
    figure: Figure = ROWS[row].figures[0]
    results = Results(measurements, figure.name)
    sizes = sorted({each.n for each in measurements})
    for contender in ROWS[row].contenders:
        points = [(n, value) for n in sizes if (value := results.median((contender, n))) is not None]
        ours = contender.startswith("trio_stream")
        axis.loglog(
            [n for n, _ in points],
            [value for _, value in points],
            marker="o",
            linewidth=2.5 if ours else 1.2,
            linestyle="-" if ours else "--",
            label=contender,
        )
    axis.set(title=ROWS[row].title.partition(":")[0], xlabel=ROWS[row].counts, ylabel=figure.unit)
    axis.grid(visible=True, which="major", alpha=0.3)
    axis.legend(fontsize=7)
