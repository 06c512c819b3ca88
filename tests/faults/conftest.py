"""A store on a file of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from stores.storehouse import open_at

from trio_stream.stores import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the store's file is, or will be."""
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    async with open_at(path) as store:
        yield store
