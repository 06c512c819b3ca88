"""The VALUE of `put`: an argument, a file or standard input; JSON or a text."""

import click

from trio_stream.stores import JSON

from ._input import name_of, open_input, read_input
from ._json import NotJSONError, decode, fault_of
from ._text import RecordError, TextReader


def read_value(argument: str, *, is_raw: bool) -> JSON:
    """What the argument stands for: "-" for standard input, "@FILE" for a file, anything else for itself.

    `is_raw`: the text as it is; otherwise JSON.
    A wrong argument is a usage error; what is wrong in a file is told with its name and line.
    """
    if argument == "@":
        raise _refusal("'@' is without the name of a file")
    if argument == "-" or argument.startswith("@"):
        path = argument.removeprefix("@") if argument != "-" else argument
        return _read_text(path) if is_raw else _read_json(path)
    return _raw_argument(argument) if is_raw else _json_argument(argument)


def _raw_argument(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refusal("is not UTF-8") from None
    return text


def _json_argument(text: str) -> JSON:
    try:
        value = decode(text)
        reason = fault_of(value)
    except ValueError as error:
        value, reason = None, str(error)
    if reason:
        hint = f"""; text needs quotes of its own: '"{text}"', or --raw""" if text.isalnum() else ""
        raise _refusal(f"{text!r} is {reason}{hint}")
    return value


def _refusal(reason: str) -> click.BadParameter:
    return click.BadParameter(reason, param_hint="'VALUE'")


def _read_text(path: str) -> str:
    data = read_input(path)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise click.ClickException(f"{name_of(path)}:{line}: not UTF-8") from None


def _read_json(path: str) -> JSON:
    name = name_of(path)
    try:
        with open_input(path) as file:
            text = TextReader(file)
            value = decode("".join(iter(text.read, "")))
    except RecordError as error:
        raise click.ClickException(f"{name}:{error.line}: {error.reason}") from error
    except NotJSONError as error:
        raise click.ClickException(f"{name}:{error.line}: {error}") from error
    except ValueError as error:
        raise click.ClickException(f"{name}: {error}") from error
    except OSError as error:
        raise click.ClickException(f"{name}: {error.strerror}") from error
    if reason := fault_of(value):
        raise click.ClickException(f"{name}: {reason}")
    return value
