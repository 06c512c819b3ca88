"""What the arguments of the commands may be, and what is said where one is not."""

import json
import math
from dataclasses import dataclass
from typing import Final, NoReturn

import click
from typing_extensions import override

from trio_stream.stores import JSON, MAX_DEPTH

_MOST_DIGITS: Final = 20  # of an index; more than any store counts to


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a watch can go on."""

    index: int
    epoch: str

    @override
    def __str__(self) -> str:
        return f"{self.index}@{self.epoch}"


def parse_json(text: str | bytes) -> JSON:
    """The value; a `ValueError` that says why no store would take it."""
    try:
        value: JSON = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.pos + 1}") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("not JSON: half of a surrogate pair") from None
    except RecursionError:
        raise ValueError("too deeply nested") from None
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    return value


def _is_deeper(value: JSON, depth: int) -> bool:
    match value:
        case list() | tuple():
            return depth == 0 or any(_is_deeper(item, depth - 1) for item in value)
        case dict():
            return depth == 0 or any(_is_deeper(item, depth - 1) for item in value.values())
        case _:
            return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is not a value")


def check_name(_: click.Context, __: click.Parameter, text: str) -> str:
    """A topic, a key or a namespace."""
    if not text:
        raise click.BadParameter("must not be empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8") from None
    return text


def check_optional_name(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """A key that need not be given."""
    return None if text is None else check_name(context, parameter, text)


def check_json(_: click.Context, __: click.Parameter, text: str) -> JSON:
    """A JSON value."""
    try:
        return parse_json(text)
    except ValueError as error:
        hint = f"""; text needs quotes of its own: '"{text}"'""" if text.isalnum() else ""
        raise click.BadParameter(f"{text!r} is {error}{hint}") from None


def check_cursor(_: click.Context, __: click.Parameter, text: str | None) -> Cursor | None:
    """INDEX@EPOCH, as `watch` prints it."""
    if text is None:
        return None
    index, _separator, epoch = text.partition("@")
    if not (index.isascii() and index.isdecimal() and len(index) < _MOST_DIGITS and epoch):
        raise click.BadParameter(f"{text!r} is not of the form INDEX@EPOCH, which watch prints when it ends")
    return Cursor(int(index), epoch)


def check_finite(_: click.Context, __: click.Parameter, number: float) -> float:
    """A number that is neither infinite nor none at all."""
    if not math.isfinite(number):
        raise click.BadParameter(f"{number} is not a finite number")
    return number


topic = click.argument("topic", callback=check_name)
key = click.argument("key", callback=check_name)
namespace = click.option(
    "--namespace",
    default="default",
    show_default=True,
    callback=check_name,
    help="The namespace of the keys.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="Write JSON objects, one a line, and nothing else."
)
backend = click.option(
    "--backend",
    type=click.Choice(["trio", "asyncio"]),
    default="trio",
    show_default=True,
    help="What to run on.",
)
expect = click.option(
    "--expect",
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="Fail unless the key was put last at INDEX (as `get --json` says); 0: unless it does not exist.",
)
