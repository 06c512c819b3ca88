"""The back ends that every test marked `anyio` runs on, and what is noted when all have run."""

from importlib.util import find_spec
from typing import Any

import pytest
from evidence import note_counts
from hypothesis import settings

# How long one example takes depends on the machine; a test that hangs is stopped by faulthandler_timeout.
settings.register_profile(
    "trio_stream", settings.get_profile(settings.get_current_profile_name()), deadline=None
)
settings.load_profile("trio_stream")


@pytest.fixture(
    params=[
        pytest.param(("trio", {}), id="trio"),
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(
            ("asyncio", {"use_uvloop": True}),
            id="asyncio+uvloop",
            marks=pytest.mark.skipif(
                find_spec("uvloop") is None, reason="uvloop is not installed: no build for this Python"
            ),
        ),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """A name and the options, as anyio's pytest plugin wants them."""
    return request.param


def pytest_sessionfinish() -> None:
    note_counts()
