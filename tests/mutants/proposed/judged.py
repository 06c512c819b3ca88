"""What no test notices and yet is no fault, with the reason: `judged.txt`.

A line that begins with `#` gives the reason of all that follows, up to the next.
Then comes the place, the line as it is (`-`) and as it was changed (`+`), more than one where several have the reason.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final


def read(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """(name of the change, reason)."""
    reason = place = old = ""
    is_reason = False
    for line in lines:
        kind, text = line[:2], line.rstrip()
        match kind:
            case "# ":
                reason = f"{reason} {text[2:]}" if is_reason else text[2:]
            case "- ":
                old = text
            case "+ " | "+":
                yield f"{place}\n{old}\n{text}", reason
            case _ if text:
                place = text
        is_reason = kind == "# "


JUDGED: Final = dict(read(iter((Path(__file__).parent / "judged.txt").read_text().splitlines())))
