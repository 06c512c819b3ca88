"""Each check of a store as a test of its own."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import pytest

from trio_stream.stores import Store, open_store
from trio_stream.testing import STORE_CHECKS

Check = Callable[[Callable[[], AbstractAsyncContextManager[Store]]], Awaitable[None]]


@pytest.mark.anyio
@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_my_store_conforms(check: Check, tmp_path: Path) -> None:
    with anyio.fail_after(30):
        await check(lambda: open_store(f"sqlite:{tmp_path / 'checked.db'}"))


if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "-q", "-k", "trio", "-p", "no:cacheprovider", __file__]
    sys.exit(subprocess.call(command))
