"""The back ends of the tests of the test kit: what it tests is tried on all of them."""

from typing import Any

import pytest
from backends import USUAL


@pytest.fixture(params=USUAL)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """A name and the options, as anyio's pytest plugin wants them."""
    return request.param
