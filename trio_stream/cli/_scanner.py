"""JSON that is longer than memory: the elements of an array, one after the other."""

import json
import re
from collections.abc import Iterator
from typing import Final

from trio_stream.stores import JSON

from ._json import DECODER
from ._lines import key_text
from ._text import RecordError, TextReader

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_MARGIN: Final = (
    16  # characters; a literal, an escape or a number that is cut off begins no further from the end
)


class Scanner:
    """Reads one JSON value of a text, in parts."""

    def __init__(self, text: TextReader) -> None:
        self.number = 1  # of the line that is reached
        self._text = text
        self._buffer = ""
        self._position = 0  # in the buffer
        self._left = 0  # characters of the line that were in front of the buffer
        self._is_found = False  # the array in the object

    def array(self) -> Iterator[tuple[int, JSON]]:
        """The elements of the array that is the text, and the lines on which they begin."""
        if self._peek() != "[":
            raise RecordError(self.number, "not an array; --items says where in an object it is")
        yield from self._elements()
        self._end()

    def array_in_object(self, path: str) -> Iterator[tuple[int, JSON]]:
        """The elements of the array to which the path leads from the object that is the text."""
        if self._peek() != "{":
            raise RecordError(self.number, "not an object")
        yield from self._search(path, path)
        self._end()
        if not self._is_found:
            raise RecordError(self.number, f"no array {key_text(path)} here")

    def _elements(self) -> Iterator[tuple[int, JSON]]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        separator = ","
        while separator == ",":
            self._peek()
            yield self.number, self._value()
            separator = self._take(",]")

    def _search(self, path: str, left: str) -> Iterator[tuple[int, JSON]]:
        """The elements of the array at `left`, in the object that comes next."""
        self._take("{")
        separator = self._take("}") if self._peek() == "}" else ","
        while separator == ",":
            if self._peek() != '"':
                raise self._error("Expecting property name enclosed in double quotes", self._position)
            name = self._value()
            self._take(":")
            following = self._peek()
            if name == left:
                if following != "[":
                    raise RecordError(self.number, f"{key_text(path)} is not an array")
                self._is_found = True
                yield from self._elements()
            elif following == "{" and left.startswith(f"{name}."):
                yield from self._search(path, left.removeprefix(f"{name}."))
            else:
                self._value()
            separator = self._take(",}")

    def _end(self) -> None:
        if self._peek():
            raise self._error("Extra data", self._position)

    def _peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._position)
            assert match is not None
            self._advance(match.end())
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._fill():
                return ""

    def _take(self, expected: str) -> str:
        """The next character, which must be one of these."""
        character = self._peek()
        if not character or character not in expected:
            raise self._error(f"Expecting {' or '.join(map(repr, expected))}", self._position)
        self._advance(self._position + 1)
        return character

    def _value(self) -> JSON:
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if self._is_cut_off(error) and self._fill():
                    continue
                raise self._error(error.msg, error.pos) from None
            except RecursionError:
                raise RecordError(self.number, "too deeply nested") from None
            except ValueError as error:
                raise RecordError(self.number, str(error)) from None
            # A number may go on.
            if isinstance(value, int | float) and end + _MARGIN > len(self._buffer) and self._fill():
                continue
            self._advance(end)
            found: JSON = value
            return found

    def _is_cut_off(self, error: json.JSONDecodeError) -> bool:
        return error.msg.startswith("Unterminated string") or error.pos + _MARGIN > len(self._buffer)

    def _advance(self, position: int) -> None:
        self.number += self._buffer.count("\n", self._position, position)
        self._position = position

    def _fill(self) -> bool:
        """Reads on, at least as much as is there already, so that a long value is not looked at often.

        At the end of the text nothing is changed.
        """
        pieces = [self._buffer[self._position :]]
        missing = max(1, len(pieces[0]))
        while missing > 0 and (text := self._text.read()):
            pieces.append(text)
            missing -= len(text)
        if len(pieces) == 1:
            return False
        newline = self._buffer.rfind("\n", 0, self._position)
        self._left = self._position - newline - 1 + (self._left if newline == -1 else 0)
        self._buffer = "".join(pieces)
        self._position = 0
        return True

    def _error(self, reason: str, position: int) -> RecordError:
        line = self.number + self._buffer.count("\n", self._position, position)
        newline = self._buffer.rfind("\n", 0, position)
        column = position - newline + (self._left if newline == -1 else 0)
        return RecordError(line, f"not JSON: {reason} at column {column}")
