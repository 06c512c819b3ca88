"""How much of its log a store keeps by itself."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

EVERY: Final = 64
"""Commits of a process, of which the first one has it applied."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What is beyond this is compacted now and then, by those who commit.

    A commit stays as long as it is within both bounds.
    The log may have some more: it is looked at with one commit in 64 of each process, and shortened by small steps.
    """

    commits: int | None = None
    """The newest so many; None: however many there are."""
    age: timedelta | float | None = None
    """Those that are at most so old; a number is seconds; None: however old they are.

    Times never decrease in the order of the commits: a clock that is set back makes them stay longer.
    """

    def __post_init__(self) -> None:
        if self.commits is not None:
            if isinstance(self.commits, bool) or not isinstance(self.commits, int):
                raise TypeError(f"commits are a number, not {self.commits!r}")
            if self.commits < 0:
                raise ValueError(f"commits are a number from 0, not {self.commits}")
        if self.age is not None:
            if isinstance(self.age, bool) or not isinstance(self.age, timedelta | int | float):
                raise TypeError(f"an age is a timedelta or a number of seconds, not {self.age!r}")
            if not self.seconds >= 0:  # nor is it NaN
                raise ValueError(f"an age is not negative: {self.age!r}")

    @property
    def seconds(self) -> float:
        """The age; infinite if there is no bound."""
        if self.age is None:
            return float("inf")
        return self.age.total_seconds() if isinstance(self.age, timedelta) else float(self.age)
