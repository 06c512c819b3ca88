"""Members of objects in objects, by a path like `metadata.name`."""

from typing import Final

from trio_stream.stores import JSON


class Missing:
    """There is no such member."""


MISSING: Final = Missing()


def member(value: JSON, path: str) -> "JSON | Missing":
    """What the path leads to.

    A member of that very name comes first; then the longest name that the path begins with and that leads on.
    """
    if not isinstance(value, dict):
        return MISSING
    if path in value:
        found: JSON | Missing = value[path]
        return found
    end = path.rfind(".")
    while end != -1:
        if path[:end] in value:
            found = member(value[path[:end]], path[end + 1 :])
            if not isinstance(found, Missing):
                return found
        end = path.rfind(".", 0, end)
    return MISSING


def is_same(one: "JSON | Missing", other: "JSON | Missing") -> bool:
    """Whether both are the same JSON: 1 and 1.0 are, 1 and true are not."""
    match one, other:
        case bool(), _:
            return one is other
        case _, bool():
            return False
        case list(), list():
            return len(one) == len(other) and all(map(is_same, one, other))
        case dict(), dict():
            return one.keys() == other.keys() and all(
                is_same(each, other[name]) for name, each in one.items()
            )
        case _:
            return one == other
