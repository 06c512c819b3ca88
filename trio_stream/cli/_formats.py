"""Reading records, which are objects, out of NDJSON, CSV and JSON arrays."""

import csv
from collections.abc import Iterator
from itertools import chain
from typing import Literal, TypeAlias

from trio_stream.stores import JSON

from ._json import DECODER, decode
from ._lines import key_text
from ._scanner import Scanner
from ._text import RecordError, TextReader

Format: TypeAlias = Literal["ndjson", "csv", "json"]
Record: TypeAlias = "dict[str, JSON]"

csv.field_size_limit(2**31 - 1)  # the default of 131,072 characters is too short for some files


def format_of(name: str, text: TextReader) -> Format:
    """What a file is: CSV by the end of its name, a JSON array by how it begins, NDJSON otherwise."""
    if name.lower().endswith((".csv", ".tsv")):
        return "csv"
    return "json" if text.first() == "[" else "ndjson"


def delimiter_of(name: str) -> str:
    """What is between the fields of a CSV file, by the end of its name."""
    return "\t" if name.lower().endswith(".tsv") else ","


def read_ndjson(text: TextReader) -> Iterator[tuple[int, Record]]:
    """Records and the numbers of their lines."""
    raw_decode = DECODER.raw_decode
    hint = "; for one object of many lines --items says where its records are"
    for number, line in enumerate(text.lines(), 1):
        try:
            record, end = raw_decode(line)
            is_whole = end + 1 == len(line) or not line[end:].strip(" \t\r\n")
        except (ValueError, RecursionError):
            record, is_whole = None, False
        if not is_whole:  # which few are; why, the slower way says
            if line.isspace():
                continue
            try:
                record = decode(line)
            except ValueError as error:
                raise RecordError(number, f"{error}{hint if line.strip() == '{' else ''}") from None
        if not isinstance(record, dict):
            raise RecordError(number, "not an object")
        hint = ""  # it is no object of many lines
        yield number, record


def read_json(text: TextReader, items: str | None) -> Iterator[tuple[int, Record]]:
    """Records, which are the elements of an array, and the lines on which they begin.

    `items`: the path to the array, where the text is an object.
    """
    scanner = Scanner(text)
    for number, record in scanner.array() if items is None else scanner.array_in_object(items):
        if not isinstance(record, dict):
            raise RecordError(number, "not an object")
        yield number, record


def read_csv(text: TextReader, delimiter: str, needed: list[str], hint: str) -> Iterator[tuple[int, Record]]:
    """Records of texts and the numbers of their last lines. `hint`: what to do where a needed column is missing."""
    number = 0  # of the line read last

    def count() -> Iterator[str]:
        nonlocal number
        for line in text.lines():
            number += 1
            yield line

    lines = count()
    first = next((line for line in lines if not line.isspace()), None)
    if first is None:
        return
    if _is_object(first):
        raise RecordError(number, "JSON, not the names of columns; NDJSON needs --format ndjson")
    rows = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    try:
        header = next(rows)
        _check_header(number, header, needed, hint)
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise RecordError(number, f"{len(row)} fields under {len(header)} columns")
            yield number, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise RecordError(number, str(error)) from error


def missing(number: int, name: str, record: Record, hint: str) -> RecordError:
    """What to raise where a record has no such member."""
    names = ", ".join(map(key_text, record)) or "none"
    return RecordError(number, f"no {name!r} here (there is: {names}){hint}")


def _check_header(number: int, header: list[str], needed: list[str], hint: str) -> None:
    for name in needed:
        if name not in header:
            raise missing(number, name, dict.fromkeys(header), hint)
    if len(set(header)) < len(header):
        raise RecordError(number, "two columns have one name")


def _is_object(line: str) -> bool:
    try:
        return isinstance(decode(line), dict)
    except ValueError:
        return False
