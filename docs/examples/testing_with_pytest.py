"""Each check of a store as a test of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from trio_stream.stores import open_store
from trio_stream.testing import STORE_CHECKS, StoreCheck

A_FEW = STORE_CHECKS[:6]  # of yours, try all


@pytest.mark.anyio
@pytest.mark.parametrize("check", A_FEW, ids=lambda check: check.__name__)
async def test_my_store_conforms(check: StoreCheck, tmp_path: Path) -> None:
    reason = await check(lambda: open_store(f"sqlite:{tmp_path / 'checked.db'}"))
    if reason is not None:
        pytest.skip(reason)


if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-q", "-k", "trio", "-p", "no:cacheprovider", __file__]
    sys.exit(subprocess.call(command))
