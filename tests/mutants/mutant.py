"""What a mutant is: one small change of the package that breaks a promise."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` occurs exactly once in `file` and becomes `new`; `killers` are the test files that should notice.

    `origin` names the promise it breaks, or who has shipped that bug: see `SHIPPED`.
    """

    name: str
    origin: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]
