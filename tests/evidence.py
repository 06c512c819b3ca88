"""Figures that tests find out, for the report: where TRIO_STREAM_EVIDENCE names a file they are added to it."""

import json
import os
from collections import Counter
from pathlib import Path

# {(kind, what): how often} of what is counted while tests run, for `note_counts`.
_counts: Counter[tuple[str, str]] = Counter()


def note(kind: str, what: str, value: object) -> None:
    """Adds a figure, as one JSON object in a line."""
    if target := os.environ.get("TRIO_STREAM_EVIDENCE"):
        with Path(target).open("a") as file:
            file.write(json.dumps({"kind": kind, "what": what, "value": value}) + "\n")


def count(kind: str, what: str, more: int = 1) -> None:
    """Adds to a figure that is noted when all tests have run."""
    _counts[kind, what] += more


def note_counts() -> None:
    for (kind, what), value in _counts.items():
        note(kind, what, value)
