"""Reading records out of NDJSON and CSV, and saying where one is that cannot be read."""

import csv
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final, Literal, NamedTuple, TypeAlias

from trio_stream.stores import JSON, Put

from ._arguments import parse_json
from ._lines import key_text

Format: TypeAlias = Literal["ndjson", "csv"]

_BOM: Final = b"\xef\xbb\xbf"

csv.field_size_limit(2**31 - 1)  # whoever writes a file knows how long a field may be; the default is 131072


class RecordError(Exception):
    """A record that cannot be imported."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line = line
        self.reason = reason


class Line(NamedTuple):
    """What a record asks for, and the number of its last line."""

    number: int
    put: Put


class Reader:
    """Iterates over the records of some lines; one thread at a time.

    `column`: the column or member that holds the key, the value is then the whole record.
    None: the records have `key` and `value`, and other columns are ignored.
    """

    def __init__(
        self, lines: Iterable[bytes], form: Format, *, topic: str, namespace: str, column: str | None
    ) -> None:
        self.bytes = 0  # read so far
        self._number = 0  # of the line read last
        self._topic = topic
        self._namespace = namespace
        self._column = column
        self._lines = self._count(lines)
        self._records = self._read_csv() if form == "csv" else self._read_ndjson()

    def read(self, most: int) -> list[Line]:
        """The next records; none at the end. Blocks."""
        puts: list[Line] = []
        while len(puts) < most:
            try:
                record = next(self._records)
                puts.append(Line(self._number, self._put(record)))
            except StopIteration:
                break
            except RecordError:
                raise
            except (ValueError, csv.Error) as error:
                raise RecordError(self._number, str(error)) from error
        return puts

    def _count(self, lines: Iterable[bytes]) -> Iterator[str]:
        for raw in lines:
            self._number += 1
            self.bytes += len(raw)
            line = raw.removeprefix(_BOM) if self._number == 1 else raw
            try:
                yield line.decode()
            except UnicodeDecodeError:
                raise RecordError(self._number, "not UTF-8") from None

    def _read_ndjson(self) -> Iterator[dict[str, JSON]]:
        for line in self._lines:
            if line.isspace() or not line:
                continue
            record = parse_json(line)
            if not isinstance(record, dict):
                raise RecordError(self._number, "not an object")
            yield record

    def _read_csv(self) -> Iterator[dict[str, JSON]]:
        first = next((line for line in self._lines if not line.isspace()), None)
        if first is None:
            return
        if _is_object(first):
            raise RecordError(self._number, "JSON, not the names of columns; NDJSON needs --format ndjson")
        rows = csv.reader(chain([first], self._lines), strict=True)
        header = next(rows)
        self._check_header(header)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise RecordError(self._number, f"{len(row)} fields under {len(header)} columns")
            yield dict(zip(header, row, strict=True))

    def _check_header(self, header: list[str]) -> None:
        for name in [self._column] if self._column else ["key", "value"]:
            self._member(dict.fromkeys(header), name)
        if len(set(header)) < len(header):
            raise RecordError(self._number, "two columns have one name")

    def _put(self, record: dict[str, JSON]) -> Put:
        key = self._member(record, self._column or "key")
        value = record if self._column else self._member(record, "value")
        match key:
            case str():
                return Put(self._topic, key, value, self._namespace)
            case int() if not isinstance(key, bool):
                return Put(self._topic, str(key), value, self._namespace)
            case _:
                raise RecordError(
                    self._number, f"the key is {json.dumps(key)}, neither text nor a whole number"
                )

    def _member(self, record: dict[str, JSON], name: str) -> JSON:
        try:
            return record[name]
        except KeyError:
            hint = "" if self._column else "; --key says which one is the key"
            names = ", ".join(map(key_text, record)) or "none"
            raise RecordError(self._number, f"no {name!r} here (there is: {names}){hint}") from None


def _is_object(line: str) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False
