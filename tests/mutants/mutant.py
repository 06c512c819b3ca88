"""What a mutant is: one small change of the package that breaks a promise."""

from typing import NamedTuple


class Mutant(NamedTuple):
    """`old` occurs exactly once in `file` and becomes `new`; `killers` are the test files that should notice.

    `origin` names who shipped that bug (corpus.md, section 2), or the promise it breaks.
    """

    name: str
    origin: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]
