"""Which library is under test."""

import hashlib
from pathlib import Path
from typing import Final

import trio_stream

PACKAGE: Final = Path(trio_stream.__file__).parent


def digest() -> str:
    """Of the library that is installed."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]
