"""Row: what importing the library takes, beyond trio and anyio, in an interpreter of its own."""

import os
import subprocess
import sys
from functools import partial
from statistics import median

from .row import Aim, Figure, Load, Row, Sample

_PROGRAM = "import time, trio, anyio; begin = time.process_time(); {}; print(time.process_time() - begin)"
_WARM_UP = 1


def importing(statement: str, load: Load) -> Sample:
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    # What is imported has been compiled before, as in an application.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds = [
        float(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
        for _ in range(_WARM_UP + load.n)
    ]
    return {"import": median(seconds[_WARM_UP:]) * 1000}


ROWS = (
    Row(
        "import",
        "Importing, once trio and anyio are there",
        (Figure("import", "ms"),),
        {
            name: partial(importing, f"import {name}")
            for name in ("trio_stream", "trio_stream.view", "trio_stream.stores", "asyncio")
        },
        (5,),
        (5,),
        counts="interpreters",
        baseline="asyncio",
        aims=(Aim("import", "trio_stream", 5, at_most=30),),
    ),
)
