"""One measurement in a process of its own: `python -m benchmarks.measure ROW CONTENDER N SECONDS` prints JSON.

It says which library it has measured, so that nobody compares a version with itself.
"""

import json
import sys

import trio_stream

from .row import Load
from .rows import ROWS


def main(row: str, contender: str, n: str, seconds: str) -> None:
    sample = ROWS[row].contenders[contender](Load(int(n), float(seconds)))
    sys.stdout.write(json.dumps({"library": trio_stream.__file__, "sample": sample}))


if __name__ == "__main__":
    main(*sys.argv[1:])
