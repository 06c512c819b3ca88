"""The text of a file, in whatever encoding, piece by piece, and the line on which it cannot be read."""

import codecs
from collections.abc import Iterator
from io import BufferedReader
from typing import Final

_CHUNK: Final = 1 << 18  # bytes that are read in one go, at most
_DEFAULT: Final = "utf-8"

# The longer ones first: that of UTF-32 begins with that of UTF-16.
_MARKS: Final = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_LONGEST_MARK: Final = 4
_MARK: Final = "\ufeff"


class RecordError(Exception):
    """A record that cannot be read or imported."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


class TextReader:
    """Decodes a file; blocks. `encoding`: None is what a byte order mark says, and UTF-8 without one."""

    def __init__(self, file: BufferedReader, encoding: str | None = None) -> None:
        self.bytes = 0  # read so far
        self._file = file
        self._encoding = encoding
        self._decoder: codecs.IncrementalDecoder | None = None  # once the encoding is known
        self._line = 1  # on which that begins which is decoded next
        self._ready = ""  # read ahead
        self._error: RecordError | None = None  # behind what is ready
        self._is_at_end = False

    def first(self) -> str:
        """The first character that is no white space, which is still to come; empty if there is none."""
        while not (text := self._ready.lstrip()):
            if not (more := self._decode_some()):
                return ""
            self._ready += more
        return text[0]

    def read(self) -> str:
        """Some of the text; empty at the end. `RecordError` where bytes are no text."""
        if self._ready:
            text, self._ready = self._ready, ""
            return text
        return self._decode_some()

    def lines(self) -> Iterator[str]:
        """With the newline that ends them; a carriage return is left alone."""
        pieces: list[str] = []
        while text := self.read():
            if "\n" not in text:
                pieces.append(text)
                continue
            lines = text.split("\n")
            pieces.append(lines[0])
            lines[0] = "".join(pieces)
            pieces = [lines.pop()]
            for line in lines:
                yield f"{line}\n"
        if last := "".join(pieces):
            yield last

    def _decode_some(self) -> str:
        text = ""
        while not (text or self._is_at_end):
            if self._error is not None:
                raise self._error
            data = self._read_bytes()
            self._is_at_end = not data
            text = self._decode(data)
        self._line += text.count("\n")
        return text

    def _read_bytes(self) -> bytes:
        data = self._file.read1(_CHUNK)
        while self._decoder is None and 0 < len(data) < _LONGEST_MARK and (more := self._file.read1(_CHUNK)):
            data += more
        self.bytes += len(data)
        return data

    def _decode(self, data: bytes) -> str:
        if self._decoder is None:
            self._decoder = self._decoder_for(data)
            return self._decode(data).removeprefix(_MARK)
        try:
            return self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            text = _before(error)
            self._refuse(self._line + text.count("\n"))
            return text
        except UnicodeError:
            self._refuse(self._line)
            return ""

    def _refuse(self, line: int) -> None:
        self._is_at_end = False
        self._error = RecordError(line, f"not {(self._encoding or _DEFAULT).upper()}")

    def _decoder_for(self, data: bytes) -> codecs.IncrementalDecoder:
        if self._encoding is None:
            self._encoding = next((each for mark, each in _MARKS.items() if data.startswith(mark)), _DEFAULT)
        return codecs.getincrementaldecoder(self._encoding)()


def _before(error: UnicodeDecodeError) -> str:
    """What comes before the bytes that are no text."""
    try:
        return error.object[: error.start].decode(error.encoding)
    except (LookupError, UnicodeError):
        return ""
