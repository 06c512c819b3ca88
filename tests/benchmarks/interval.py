"""A confidence interval for the middle of few values, by Wilcoxon's signed ranks.

The two measurements of a pair meet the same noise.
So the logarithm of their ratio lies symmetrically around that of the true ratio, which is all that the method asks for;
unlike Student's interval it does not ask for a normal distribution, and a single disturbed pair does not move it far.

Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd edition (2014): 3.2, the estimate by Hodges and
Lehmann; 3.3, the interval by Tukey.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from statistics import median
from typing import Final, NamedTuple

LEVEL: Final = 0.95
LEAST: Final = 6  # values; of fewer no interval has this level


class Interval(NamedTuple):
    """The estimate of the middle, and its bounds."""

    low: float
    middle: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """At least six values; the level is exact for values without ties, and otherwise at least 95 %."""
    averages = sorted((one + other) / 2 for one, other in combinations_with_replacement(values, 2))
    outside = max(_outside(len(values)), 1)
    return Interval(averages[outside - 1], median(averages), averages[-outside])


def _outside(n: int) -> int:
    """The rank, from below and from above, of the average that is the bound."""
    ways = [1]  # [sum of ranks]: how many sets of ranks have that sum
    for rank in range(1, n + 1):
        longer = [*ways, *[0] * rank]
        for total, count in enumerate(ways):
            longer[total + rank] += count
        ways = longer
    below = 0
    for total, count in enumerate(ways):
        below += count
        if below > (1 - LEVEL) / 2 * 2**n:
            return total
    raise AssertionError
