"""Reading JSON, and saying why something is none."""

import json
from typing import Final, NoReturn

from trio_stream.stores import JSON, MAX_DEPTH


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is not a value")


DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


class NotJSONError(ValueError):
    """The text is not JSON; `line` and `column` say where, both from 1."""

    def __init__(self, reason: str, line: int, column: int) -> None:
        super().__init__(f"{reason} at column {column}")
        self.line = line
        self.column = column


def decode(text: str) -> JSON:
    """The value; a `ValueError` that says why there is none.

    A store may still refuse the value; see `fault_of`.
    """
    try:
        value: JSON = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NotJSONError(f"not JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise ValueError("too deeply nested") from None
    return value


def parse_json(text: str) -> JSON:
    """The value; a `ValueError` that says why there is none that a store would take."""
    value = decode(text)
    if fault := fault_of(value):
        raise ValueError(fault)
    return value


def fault_of(value: JSON) -> str:
    """Why a store would not take a value that has been read from JSON; empty if it does."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        return "not JSON: half of a surrogate pair"
    except ValueError as error:
        return str(error)
    except RecursionError:
        return "too deeply nested"
    return f"nested more than {MAX_DEPTH} levels deep" if _is_deeper(value, MAX_DEPTH) else ""


def _is_deeper(value: JSON, depth: int) -> bool:
    match value:
        case list() | tuple():
            return depth == 0 or any(_is_deeper(item, depth - 1) for item in value)
        case dict():
            return depth == 0 or any(_is_deeper(item, depth - 1) for item in value.values())
        case _:
            return False
