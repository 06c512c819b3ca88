"""What fuzz tests share: their settings, and texts, values and lines that somebody may come with."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from evidence import count
from hypothesis import HealthCheck, settings, strategies as st
from proof import amount


def fuzzed(test: Any) -> Callable[..., None]:
    """Above `@given`: tries many inputs, and counts them for the report."""
    inner: Callable[..., None] = test.hypothesis.inner_test
    promise = inner.__name__.removeprefix("test_").replace("_", " ")

    @wraps(inner)
    def counted(*args: Any, **kwargs: Any) -> None:
        count("fuzz", promise)
        inner(*args, **kwargs)

    test.hypothesis.inner_test = counted
    fuzzed: Callable[..., None] = settings(
        max_examples=amount(15, 300),
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )(test)
    return fuzzed


numbers = st.integers() | st.sampled_from([0, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30])
texts = st.text(max_size=8) | st.sampled_from(
    ["", "a", "web", "\0", "a\0b", "\ud800", "ä", "😀", "a" * 3000, "\n", "../x"]
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
objects: st.SearchStrategy[Any] = (
    json_values
    | texts
    | st.binary(max_size=4)
    | st.floats()
    | st.just(object())
    | st.sampled_from([(), {1: 2}, {1, 2}, Ellipsis])
)


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value
