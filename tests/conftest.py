"""The back ends that every test marked `anyio` runs on, and what is noted when all have run."""

import logging
from typing import Any

import pytest
from backends import ASYNCIO, TRIO
from evidence import note_counts
from hypothesis import settings

# How long one example takes depends on the machine; a test that hangs is stopped by faulthandler_timeout.
settings.register_profile(
    "trio_stream", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("trio_stream")

# In its debug mode asyncio warns of callbacks that took long, which is the machine's affair and not the tests'.
logging.getLogger("asyncio").setLevel(logging.ERROR)


@pytest.fixture(params=[*TRIO, *ASYNCIO])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """A name and the options, as anyio's pytest plugin wants them."""
    return request.param


def pytest_sessionfinish() -> None:
    note_counts()
