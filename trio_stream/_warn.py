"""Warnings about failures that are tried again: few, however many fail at once, and without the text of the errors."""

import logging
from dataclasses import dataclass
from itertools import count
from typing import Final

import anyio
from anyio.lowlevel import RunVar

from ._errors import SubscriptionForceClosed

MOST: Final = 10  # warnings of one logger in one period
PERIOD: Final = 60.0  # seconds

_numbers: Final = count()


@dataclass
class _Period:
    end: float  # in the event loop's seconds
    warnings: int = 0


class Warner:
    """Warns through the logger of this name; a few times a minute in each event loop."""

    def __init__(self, name: str) -> None:
        self._logger: Final = logging.getLogger(name)
        # With anyio 4.9 all variables of one name are the same.
        self._period: Final = RunVar[_Period](f"{name} {next(_numbers)}")

    def warn(self, message: str, *args: object) -> None:
        """Logs this, unless there were as many as there may be; the next period begins by saying how many were not."""
        period = self._period.get(None)
        now = anyio.current_time()
        if period is None or now >= period.end:
            left_out = 0 if period is None else max(0, period.warnings - MOST)
            self._period.set(period := _Period(now + PERIOD))
            if left_out:
                self._logger.warning("%d more warnings were not logged", left_out)
        period.warnings += 1
        if period.warnings <= MOST:
            self._logger.warning(message, *args)


def named(error: BaseException) -> str:
    """The types of an error and of its causes; not their text, which may have keys, values or tokens in it."""
    name = type(error).__name__
    if isinstance(error, SubscriptionForceClosed):
        name += f" ({error.reason.value})"
    if isinstance(error, BaseExceptionGroup):
        name += f" of {', '.join(sorted({named(each) for each in error.exceptions}))}"
    return name if error.__cause__ is None else f"{name} because of {named(error.__cause__)}"
