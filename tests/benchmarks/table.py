"""What the figures say: medians, spreads, ratios to a peer in the same round, growth, and whether the aims are met."""

import math
from collections.abc import Iterable, Sequence
from statistics import linear_regression, median

from .row import Aim, Figure, Row
from .run import Measurement

Key = tuple[str, int]


class Results:
    """The values of one figure: {(contender, n): {round: value}}."""

    def __init__(self, measurements: Iterable[Measurement], figure: str) -> None:
        self._values: dict[Key, dict[int, float]] = {}
        for each in measurements:
            if not each.error:
                self._values.setdefault((each.contender, each.n), {})[each.round] = each.sample[figure]

    def median(self, key: Key) -> float | None:
        values = self._values.get(key)
        return median(values.values()) if values else None

    def spread(self, key: Key) -> float:
        """Half of what lies between the lowest and the highest, as a part of the median."""
        values = self._values[key].values()
        middle = median(values)
        return (max(values) - min(values)) / 2 / middle if middle else 0.0

    def ratio(self, key: Key, other: Key) -> float | None:
        """The median of the ratios within one round."""
        mine, theirs = self._values.get(key, {}), self._values.get(other, {})
        ratios = [mine[each] / theirs[each] for each in mine if theirs.get(each)]
        return median(ratios) if ratios else None

    def growth(self, contender: str, sizes: Sequence[int]) -> float | None:
        """The exponent of the figure over n: 0 is flat, 1 in proportion; n = 0 is left out."""
        points = [(n, value) for n in sizes if n and (value := self.median((contender, n)))]
        if len(points) < 2:
            return None
        logs = [(math.log(n), math.log(value)) for n, value in points]
        return linear_regression([x for x, _ in logs], [y for _, y in logs]).slope


def table_of(row: Row, measurements: Sequence[Measurement]) -> str:
    """Markdown: a table for each figure; in brackets the ratio to the baseline."""
    sizes = sorted({each.n for each in measurements})
    lines = [f"### {row.title} (`{row.name}`)", ""]
    for figure in row.figures:
        results = Results(measurements, figure.name)
        better = "more" if figure.more_is_better else "less"
        head = [
            f"{figure.unit}, {better} is better",
            *(f"{n:,} {row.counts}" for n in sizes),
            *(["growth"] if len(sizes) > 1 else []),
        ]
        body = [_line(row, results, contender, sizes) for contender in row.contenders]
        lines += [cells(head), cells(["---", *("---:" for _ in head[1:])]), *map(cells, body), ""]
    lines += [f"FAILED: {each.contender}, n = {each.n}: {each.error}" for each in measurements if each.error]
    return "\n".join(lines)


def _line(row: Row, results: Results, contender: str, sizes: Sequence[int]) -> list[str]:
    line = [contender]
    for n in sizes:
        value = results.median((contender, n))
        if value is None:
            line.append("-")
            continue
        cell = f"{short(value)} ±{results.spread((contender, n)):.0%}"
        if row.baseline and row.baseline != contender:
            ratio = results.ratio((contender, n), (row.baseline, n))
            cell += f" ({ratio:.2f} x)" if ratio is not None else ""
        line.append(cell)
    if len(sizes) > 1:
        growth = results.growth(contender, sizes)
        line.append("-" if growth is None else f"n^{growth:.2f}")
    return line


def cells(line: Iterable[str]) -> str:
    return f"| {' | '.join(line)} |"


def short(value: float) -> str:
    """Three digits and a unit of thousands."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < size * 1000 else f"{value / size:.0f} {unit}"
    return f"{value:.3g}"


def aims_of(row: Row, measurements: Sequence[Measurement]) -> list[str]:
    """One line for each aim that the run can say something about."""
    lines: list[str] = []
    for aim in row.aims:
        results = Results(measurements, aim.figure)
        figure = next(each for each in row.figures if each.name == aim.figure)
        value = _value(aim, results)
        if value is not None:
            met = aim.at_least <= value <= aim.at_most
            lines.append(f"- {'met' if met else 'MISSED'}: {row.name}, {_sentence(aim, figure, value)}")
    return lines


def _value(aim: Aim, results: Results) -> float | None:
    key = aim.contender, aim.n
    if aim.versus is None:
        return results.median(key)
    return results.ratio(key, (aim.versus, aim.versus_n or aim.n))


def _sentence(aim: Aim, figure: Figure, value: float) -> str:
    bound = f"at least {short(aim.at_least)}" if aim.at_least else f"at most {aim.at_most:g}"
    if aim.versus is None:
        return f"{aim.contender} at {aim.n:,}: {short(value)} {figure.unit}; aim {bound}"
    other = f"{aim.versus} at {aim.versus_n:,}" if aim.versus_n else aim.versus
    return f"{aim.contender} at {aim.n:,}: {value:.2f} x {other}; aim {bound} x"
