"""Attempts at what a store may be able to do in a moment."""

import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from ._errors import StoreError
from ._raised import error_of

T = TypeVar("T")

_BOUNDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)  # seconds before each further attempt, at most


async def patiently(attempt: Callable[[], Awaitable[T]], check: Callable[[StoreError], object]) -> T:
    """What comes of it at the first attempt that does not fail; raises the error of the last.

    `check` raises where no other attempt will do better.
    """
    for bound in _BOUNDS:
        try:
            return await attempt()
        except (StoreError, BaseExceptionGroup) as raised:
            check(error_of(raised))
        await anyio.sleep(random.uniform(0, bound))  # noqa: S311 - no secret
    try:
        return await attempt()
    except BaseExceptionGroup as group:
        raise error_of(group) from None
