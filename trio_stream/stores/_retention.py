"""How much of a store's log is kept without anybody calling `compact`."""

from dataclasses import dataclass
from datetime import timedelta
from math import isfinite


@dataclass(frozen=True, slots=True)
class Retention:
    """What whoever commits forgets of the log, now and then and in small steps; the state stays.

    The log may have a little more than is said here, and a process that commits nothing forgets nothing.
    With both, a commit is forgotten as soon as one of them says so.
    """

    commits: int | None = None
    """Commits that are kept; None: all."""
    age: timedelta | float | None = None
    """How long a commit is kept, as a `timedelta` or in seconds; None: for ever.

    The time of a commit is never before that of the one before it, also where the clock was set back.
    """

    def __post_init__(self) -> None:
        if self.commits is not None and (isinstance(self.commits, bool) or not isinstance(self.commits, int)):
            raise TypeError(f"commits is a number of commits, not {self.commits!r}")
        if self.commits is not None and self.commits < 0:
            raise ValueError(f"commits is a number of commits from 0, not {self.commits}")
        if self.age is not None:
            if isinstance(self.age, bool) or not isinstance(self.age, timedelta | float | int):
                raise TypeError(f"age is a timedelta or a number of seconds, not {self.age!r}")
            if not (self.seconds >= 0 and isfinite(self.seconds)):
                raise ValueError(f"age is a finite time from 0, not {self.age!r}")

    @property
    def seconds(self) -> float:
        """The age in seconds; infinite without one."""
        if self.age is None:
            return float("inf")
        return self.age.total_seconds() if isinstance(self.age, timedelta) else float(self.age)
