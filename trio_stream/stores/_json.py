"""Operations as JSON text and back."""

import json
from collections.abc import Container, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, assert_never

from ._values import JSON, MAX_DEPTH, Delete, Operation, Put

_PLAIN: Final = frozenset({type(None), bool, int, float, str})  # needs no look inside

# `json.dumps` makes an encoder at each call.
_to_text: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


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


def encode_operations(operations: Sequence[tuple[Operation, str]]) -> str:
    """Operations, each with the JSON of its value, as one JSON list."""
    return f"[{','.join(_encode(operation, value) for operation, value in operations)}]"


class Decoded(NamedTuple):
    """What can be read of a commit."""

    operations: tuple[Operation, ...]
    """Those of the topics that can be read, in order."""
    unreadable: frozenset[str] | None
    """The topics of the others; None if it is not known which they are."""


def decode_operations(text: bytes, topics: Container[str] | None = None) -> Decoded:
    """The operations of `encode_operations`, or only those of some topics."""
    try:
        items = json.loads(text.decode())
    except (ValueError, RecursionError):
        items = None
    operations: list[Operation] = []
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


def _encode(operation: Operation, value: str) -> str:
    names = f"{_place(operation.topic, operation.namespace)},{_to_text(operation.key)}"
    match operation:
        case Put():
            return f'["put",{names},{value}]'
        case Delete():
            return f'["delete",{names}]'
        case _:
            assert_never(operation)


@lru_cache(maxsize=64)
def _place(topic: str, namespace: str) -> str:
    """The same again and again in most commits."""
    return f"{_to_text(topic)},{_to_text(namespace)}"


def _decode(item: Any) -> Operation | None:
    """None if it is not of our form."""
    try:
        match item:
            case ["put", str(topic), str(namespace), str(key), value]:
                return Put(topic, key, value, namespace)
            case ["delete", str(topic), str(namespace), str(key)]:
                return Delete(topic, key, namespace)
            case _:
                return None
    except ValueError:  # a name that nothing can have
        return None


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
                    raise TypeError(f"the key {key!r} of an object is not a string")
                if type(item) not in _PLAIN:
                    _check(item, depth - 1)
        case _:
            raise TypeError(f"{value!r} is of type {type(value).__name__}")
