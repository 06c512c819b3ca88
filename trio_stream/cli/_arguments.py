"""What the arguments of the commands may be, and what is said where one is not."""

import math
from dataclasses import dataclass
from typing import Final

import click
from typing_extensions import override

_MOST_DIGITS: Final = 20  # of an index; more than any store counts to


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a watch can go on."""

    index: int
    epoch: str

    @override
    def __str__(self) -> str:
        return f"{self.index}@{self.epoch}"


def check_name(_: click.Context, __: click.Parameter, text: str) -> str:
    """A topic, a key or a namespace."""
    if not text:
        raise click.BadParameter("must not be empty")
    return check_text(_, __, text)


def check_text(_: click.Context, __: click.Parameter, text: str) -> str:
    """What may be empty."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8") from None
    return text


def check_path(_: click.Context, __: click.Parameter, path: str) -> str:
    """The name of a file, which need not be UTF-8."""
    if not path:
        raise click.BadParameter("must not be empty")
    return path


def check_optional_name(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """A name that need not be given."""
    return None if text is None else check_name(context, parameter, text)


def check_cursor(_: click.Context, __: click.Parameter, text: str | None) -> Cursor | None:
    """INDEX@EPOCH, as `watch` prints it."""
    if text is None:
        return None
    index, _separator, epoch = text.partition("@")
    if not (index.isascii() and index.isdecimal() and len(index) < _MOST_DIGITS and epoch):
        raise click.BadParameter(f"{text!r} is not of the form INDEX@EPOCH, which watch prints when it ends")
    return Cursor(int(index), epoch)


def check_finite(_: click.Context, __: click.Parameter, number: float | None) -> float | None:
    """A number that is neither infinite nor none at all, if it is given."""
    if number is not None and not math.isfinite(number):
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
