"""What every engine must pass, on a PostgreSQL server."""

import anyio
import pytest
from stores.storehouse import PATIENCE

from trio_stream.stores import open_store
from trio_stream.testing import STORE_CHECKS, StoreCheck

pytestmark = pytest.mark.anyio


@pytest.mark.usefixtures("distance")
@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_the_engine_keeps(check: StoreCheck, url: str) -> None:
    with anyio.fail_after(5 * PATIENCE):
        await check(lambda: open_store(url))
