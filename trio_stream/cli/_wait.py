"""`wait`: until a key is there, is gone, or has what one waits for in its value."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import click
from typing_extensions import override

from trio_stream import Event, SubscribeRequest
from trio_stream.stores import JSON, Entry, Record, Store, open_store_publisher
from trio_stream.view import Reducer, open_view

from ._json import parse_json
from ._paths import Missing, is_same, member


class Field(NamedTuple):
    """A part of the value, and what it must be; by itself it must be there."""

    path: str
    value: "JSON | Missing"

    @classmethod
    def from_text(cls, text: str) -> "Field":
        """PATH or PATH=VALUE; what is not JSON is a text."""
        path, separator, value = text.partition("=")
        if not separator:
            return cls(path, Missing())
        try:
            return cls(path, parse_json(value))
        except ValueError:
            return cls(path, value)

    def is_met(self, value: JSON) -> bool:
        """Whether the value has it."""
        found = member(value, self.path)
        if isinstance(self.value, Missing):
            return not isinstance(found, Missing)
        return is_same(found, self.value)


def check_fields(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> tuple[Field, ...]:
    """Each PATH or PATH=VALUE."""
    fields = tuple(map(Field.from_text, texts))
    if not all(field.path for field in fields):
        raise click.BadParameter("there is no path before the =")
    return fields


class Condition(NamedTuple):
    """What is waited for."""

    is_gone: bool
    fields: Sequence[Field]

    def is_met(self, entry: Entry | None) -> bool:
        """Whether it is so."""
        if entry is None:
            return self.is_gone
        return not self.is_gone and all(field.is_met(entry.value) for field in self.fields)


async def wait_for(store: Store, request: SubscribeRequest[Record], condition: Condition) -> Entry | None:
    """The first entry of the key that meets the condition, and is seen."""
    async with (
        open_store_publisher(store, [request.topic.name]) as publisher,
        open_view(publisher.subscribe, request, reducer=_Entries()) as view,
    ):
        state = await view.wait_for(lambda state: condition.is_met(state.get(request.key)))
    return state.get(request.key)


class _Entries(Reducer[Record, str, Entry]):
    """The newest put of each key, with its index."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    @override
    def reset(self) -> None:
        self._entries = {}

    @override
    def apply(self, events: Sequence[Event[Record]], /) -> Mapping[str, Entry]:
        entries = dict(self._entries)
        for event in events:
            for single in event.events:
                record = single.payload
                assert isinstance(record, Record)
                if record.is_delete:
                    entries.pop(record.key, None)
                else:
                    entries[record.key] = Entry(record.value, single.index)
        self._entries = entries
        return entries
