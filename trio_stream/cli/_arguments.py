"""What the arguments of the commands may be, and what is said where one is not."""

import math

import click

from trio_stream import Cursor


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
    """The text of a cursor, as `watch` prints it."""
    if text is None:
        return None
    try:
        return Cursor.parse(text)
    except ValueError:
        raise click.BadParameter(
            f"{text[:100]!r} is not of the form INDEX@EPOCH, which watch prints when it ends"
        ) from None


def check_names(
    context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[str, ...]:
    """Names of which there may be any number."""
    return tuple(check_name(context, parameter, text) for text in texts)


def is_given(context: click.Context, parameter: str) -> bool:
    """Whether it is on the command line, and not by default."""
    return context.get_parameter_source(parameter) is click.core.ParameterSource.COMMANDLINE


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
