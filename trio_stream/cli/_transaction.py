"""Reading the operations of `txn`, and what they expect."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import click

from trio_stream.stores import JSON, Change, Delete, Name, Put

from ._formats import Record, format_of, missing, read_json, read_ndjson
from ._input import name_of, open_input
from ._lines import value_text
from ._records import Line, check_values, key_of
from ._text import RecordError, TextReader

# "index" is that of a line of `list --json`.
_MEMBERS: Final = ("type", "topic", "namespace", "key", "value", "final", "expect", "index")


class Transaction(NamedTuple):
    """What to do as a whole or not at all."""

    operations: list[Change]
    expect: dict[Name, int]


def read_transaction(path: str, *, topic: str | None, namespace: str) -> Transaction:
    """What the file asks for; a `click.ClickException` that names file and line if it does not say so rightly."""
    name = name_of(path)
    try:
        with open_input(path) as file:
            text = TextReader(file)
            records = read_json(text, None) if format_of("", text) == "json" else read_ndjson(text)
            transaction = _transaction(records, topic, namespace)
    except RecordError as error:
        raise click.ClickException(f"{name}:{error.line}: {error.reason}") from error
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror}") from error
    if not transaction.operations:
        raise click.ClickException(f"{name}: no operations")
    return transaction


def _transaction(records: Iterator[tuple[int, Record]], topic: str | None, namespace: str) -> Transaction:
    lines: list[Line] = []
    expect: dict[Name, int] = {}
    for number, record in records:
        try:
            operation = _operation(number, record, topic, namespace)
        except ValueError as error:
            raise RecordError(number, str(error)) from error
        index = record.get("expect")
        if index is not None:
            name = Name(*operation.name)
            if expect.setdefault(name, _index(number, index)) != index:
                raise RecordError(number, f"expects another index of {name} than a line before")
        lines.append(Line(number, operation))
    check_values(lines)
    return Transaction([line.operation for line in lines], expect)


def _operation(number: int, record: Record, topic: str | None, namespace: str) -> Change:
    for member in record:
        if member not in _MEMBERS:
            raise RecordError(number, f"{value_text(member)} is no member of an operation")
    if "key" not in record:
        raise missing(number, "key", record, "")
    key = key_of(number, record["key"])
    if topic is None and "topic" not in record:
        raise missing(number, "topic", record, "; --topic is for operations that name none")
    where = _name(number, "topic", record.get("topic", topic))
    within = _name(number, "namespace", record.get("namespace", namespace))
    match record.get("type", "put"):
        case "put":
            if "value" not in record:
                raise missing(number, "value", record, "")
            return Put(where, key, record["value"], within, final=_final(number, record))
        case "delete":
            if record.get("value") is not None or _final(number, record):
                raise RecordError(number, "a delete has no value, and is not final")
            return Delete(where, key, within)
        case kind:
            raise RecordError(number, f'the type is {value_text(kind)}, neither "put" nor "delete"')


def _name(number: int, what: str, name: JSON) -> str:
    if not isinstance(name, str):
        raise RecordError(number, f"the {what} is {value_text(name)}, not a text")
    return name


def _index(number: int, index: JSON) -> int:
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise RecordError(number, f"expects {value_text(index)}, which is no index")
    return index


def _final(number: int, record: Record) -> bool:
    final = record.get("final", False)
    if not isinstance(final, bool):
        raise RecordError(number, f"final is true or false, not {value_text(final)}")
    return final
