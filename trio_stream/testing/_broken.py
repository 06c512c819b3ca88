"""What a check raises."""

from typing_extensions import override


class PromiseBroken(AssertionError):
    """Something does not keep what it promises; the first thing that was found.

    Not a state to go on from: read it, mend what was checked, check again.
    """

    promise: str
    """Which one: a number of the documentation as "D3", or the rule of a handler or store in a few words."""
    index: int | None
    """The index at which it shows; None where there is none."""
    difference: str
    """What was found, and what should have been."""

    def __init__(self, promise: str, index: int | None, difference: str) -> None:
        super().__init__(promise, index, difference)
        self.promise = promise
        self.index = index
        self.difference = difference

    @override
    def __str__(self) -> str:
        place = "" if self.index is None else f" at index {self.index}"
        return f"{self.promise}{place}: {self.difference}"
