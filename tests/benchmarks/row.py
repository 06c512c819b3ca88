"""What a row of the benchmark is: the same work done by several contenders, and the figures that come out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Sample: TypeAlias = Mapping[str, float]
"""The figures of one measurement, by name."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much work one measurement does: `n` of what the row counts, for about `seconds` of the processor."""

    n: int
    seconds: float


Contender: TypeAlias = Callable[[Load], Sample]
"""Does the work once, in a process of its own. A partial of a function of a module, so that it can be named."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that a row measures."""

    name: str
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True, slots=True)
class Aim:
    """A bound for a figure of a contender at a size, as a ratio to another contender or size if one is named."""

    figure: str
    contender: str
    n: int
    at_least: float = 0.0
    at_most: float = float("inf")
    versus: str | None = None
    versus_n: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row; the contenders by name, ours first, and the one that the others are compared with."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    contenders: Mapping[str, Contender]
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    counts: str = "readers"
    baseline: str | None = None
    aims: tuple[Aim, ...] = ()
    # The most of what it counts that a contender is given; beyond, it would take minutes.
    limits: Mapping[str, int] | None = None
    # Rounds, if a measurement is too long for as many as the others have.
    rounds: int | None = None
    # What is not there and is needed for the row; None if nothing is.
    missing: Callable[[], str | None] = lambda: None
