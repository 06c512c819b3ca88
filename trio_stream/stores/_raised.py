"""What a store has raised, taken out of the exception groups of an engine that has tasks of its own."""

from collections.abc import Iterator
from typing import Any

from ._errors import StoreError


def error_of(raised: StoreError | BaseExceptionGroup) -> StoreError:
    """The store's error; raises what else is in the groups."""
    if isinstance(raised, StoreError):
        return raised
    _, others = raised.split(StoreError)
    if others is not None:
        raise others
    # The first that tells more than that there was an error.
    return min(_leaves(raised), key=lambda each: type(each) is StoreError)


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[StoreError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            assert isinstance(each, StoreError)
            yield each
