"""What a commit is while somebody waits for it, in every engine."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from ._values import EpochIndex, Name, Operation


class Order(NamedTuple):
    """A commit that somebody waits for."""

    operations: Sequence[Operation]
    expect: Mapping[Name, int]
    epoch: str
    """The one that the store was known to be in when this was asked for."""


Outcome: TypeAlias = EpochIndex | Exception
"""The index of a commit, or why it was not made. A `BusyError` says that it was not begun, and may be asked again."""
