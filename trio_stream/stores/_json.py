"""Operations as JSON text and back.

The text of a commit is a list with an item for each change:

- `["put", topic, namespace, key, value]`, or `["final", ...]` if the value is the last one of its key;
- `["delete", topic, namespace, key]`.

Where there was a value before, `[previous]` follows as one more element.
The first edition wrote no `previous`, and knew no "final".
"""

import json
from collections.abc import Container
from functools import lru_cache
from typing import Any, Final, NamedTuple, assert_never

from ._values import JSON, MAX_DEPTH, Change, Delete, Put

_PLAIN: Final = frozenset({type(None), bool, int, float, str})  # needs no look inside

# `json.dumps` makes an encoder at each call.
_to_text: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_to_sorted_text: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def encode_value(put: Put) -> str:
    """The value as JSON; a `ValueError` that names the key if JSON cannot hold it."""
    try:
        _check(put.value, MAX_DEPTH)
        text = _to_text(put.value)
        if not text.isascii():
            text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"the value of {put.name} is not JSON: {error}") from error
    return text


def encode_change(change: Change, value: str) -> str:
    """The item for a change, with the JSON of its value."""
    names = f"{_place(change.topic, change.namespace)},{_to_text(change.key)}"
    match change:
        case Put(final=True):
            return f'["final",{names},{value}]'
        case Put():
            return f'["put",{names},{value}]'
        case Delete():
            return f'["delete",{names}]'
        case _:
            assert_never(change)


def with_previous(item: str, previous: str) -> str:
    """The same item, with the JSON of the value that was there before."""
    return f"{item[:-1]},[{previous}]]"


def is_same_json(one: str, other: str) -> bool:
    """Whether two texts of `encode_value` are of equal values: 1, 1.0 and True differ, the order of keys is free."""
    if one == other:
        return True
    # Equal objects with another order of their keys have the same characters.
    return len(one) == len(other) and "{" in one and _sorted(one) == _sorted(other)


class Decoded(NamedTuple):
    """What can be read of a commit."""

    operations: tuple[Change, ...]
    """Those of the topics that can be read, in order."""
    unreadable: frozenset[str] | None
    """The topics of the others; None if it is not known which they are."""


def decode_operations(text: bytes, topics: Container[str] | None = None) -> Decoded:
    """The operations of a commit, or only those of some topics."""
    try:
        items = json.loads(text.decode())
    except (ValueError, RecursionError):
        items = None
    operations: list[Change] = []
    unreadable: set[str] = set()
    for item in items if isinstance(items, list) else [None]:
        match item:
            case [str(), str(topic), *_]:
                if topics is not None and topic not in topics:
                    continue
                operation = _decode(item)
                if operation is None:
                    unreadable.add(topic)
                else:
                    operations.append(operation)
            case _:
                return Decoded((), None)
    if unreadable:
        operations = [operation for operation in operations if operation.topic not in unreadable]
    return Decoded(tuple(operations), frozenset(unreadable))


def quoted(topic: str) -> str:
    """What stands in the text of every commit of this topic."""
    return _to_text(topic).encode(errors="replace").decode()


@lru_cache(maxsize=64)
def _place(topic: str, namespace: str) -> str:
    """The same again and again in most commits."""
    return f"{_to_text(topic)},{_to_text(namespace)}"


def _decode(item: Any) -> Change | None:
    """None if it is not of our form."""
    try:
        match item:
            case ["put" | "final" as kind, str(topic), str(namespace), str(key), value]:
                return Put(topic, key, value, namespace, final=kind == "final")
            case ["put" | "final" as kind, str(topic), str(namespace), str(key), value, [previous]]:
                return Put(
                    topic, key, value, namespace, final=kind == "final", previous=previous, replaces=True
                )
            case ["delete", str(topic), str(namespace), str(key)]:
                return Delete(topic, key, namespace)
            case ["delete", str(topic), str(namespace), str(key), [previous]]:
                return Delete(topic, key, namespace, previous=previous, replaces=True)
            case _:
                return None
    except ValueError:  # a name that nothing can have
        return None


def _sorted(text: str) -> str:
    return _to_sorted_text(json.loads(text))


def _check(value: JSON, depth: int) -> None:
    """Raises for what `json.dumps` would take and change, and for more than `depth` levels."""
    if depth == 0 and isinstance(value, list | tuple | dict):
        raise ValueError(f"more than {MAX_DEPTH} levels deep")
    match value:
        case None | bool() | int() | float() | str():
            pass
        case list() | tuple():
            for item in value:
                if type(item) not in _PLAIN:
                    _check(item, depth - 1)
        case dict():
            for key, item in value.items():
                if type(key) is not str and not isinstance(key, str):
                    raise TypeError(f"a key of an object is of type {type(key).__name__}, not a string")
                if type(item) not in _PLAIN:
                    _check(item, depth - 1)
        case _:
            raise TypeError(f"something in it is of type {type(value).__name__}")
