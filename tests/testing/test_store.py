"""`check_store`: the store of SQLite passes every check."""

from pathlib import Path

import anyio
import pytest

from trio_stream.stores import open_store
from trio_stream.testing import STORE_CHECKS, StoreCheck

pytestmark = pytest.mark.anyio

PATIENCE = 15.0  # seconds after which a check hangs


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_the_sqlite_store_conforms(check: StoreCheck, tmp_path: Path) -> None:
    with anyio.fail_after(PATIENCE):
        await check(lambda: open_store(f"sqlite:{tmp_path / 'checked.db'}", synchronous="OFF"))
