"""Refuses arguments that make no sense: at the call, by one sentence, before anything is changed."""

from collections.abc import Iterable
from inspect import isasyncgenfunction, isgeneratorfunction


def check_integer(what: str, value: object) -> None:
    """Raises unless `value` is a whole number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} is an integer, not {value!r}")


def check_index(index: int) -> None:
    """Raises unless `index` is a whole number from 0."""
    if type(index) is not int:
        check_integer("an index", index)
    if index < 0:
        raise ValueError(f"an index is not negative: {index}")


def check_seconds(what: str, seconds: float) -> None:
    """Raises unless this is a number of seconds from 0; there may be no end to them."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{what} is a number of seconds, not {seconds!r}")
    if not seconds >= 0:
        raise ValueError(f"{what} is a number of seconds from 0, not {seconds}")
    try:
        float(seconds)
    except OverflowError:
        raise ValueError(f"{what} is too great a number of seconds: use math.inf") from None


def check_events(call: str, events: object) -> None:
    """Raises unless this is something to iterate over; a string, which is read letter by letter, is not meant."""
    if isinstance(events, (list, tuple)):  # the common case, in a fifth of the time
        return
    if isinstance(events, str | bytes | bytearray) or not isinstance(events, Iterable):
        raise TypeError(f"{call}() takes an iterable of events, not {type(events).__name__}")


def check_handler(topic: str, handler: object) -> None:
    """Raises for what certainly is no async function; a plain one may return something to await."""
    if not callable(handler):
        raise TypeError(f"the handler of {topic!r} is an async function, not {type(handler).__name__}")
    for function in (handler, type(handler).__call__):
        if isasyncgenfunction(function) or isgeneratorfunction(function):
            raise TypeError(f"the handler of {topic!r} yields: it appends events and returns an index")
