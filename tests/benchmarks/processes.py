"""How a row starts another process of the benchmark."""

import os
import sys
from pathlib import Path
from typing import Final

# Where this package is found, and what the library is found by besides.
ENVIRONMENT: Final = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(
        filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ),
}


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"{__package__}.{module}", *map(str, arguments)]
