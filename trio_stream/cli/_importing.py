"""The command `import`: its arguments and its help."""

import codecs
from collections.abc import Iterator

import click

from . import _arguments as arguments
from ._formats import Format, Record, delimiter_of, format_of, read_csv, read_json, read_ndjson
from ._import import Import, Imported
from ._input import name_of, open_input, size_of
from ._lines import json_line
from ._opening import opening_of
from ._output import Output
from ._records import KEY_HINT, Reader
from ._run import SignalError, run_async
from ._text import TextReader


def _check_encoding(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    """A codec for text that Python knows."""
    if name is None:
        return None
    try:
        codecs.getincrementaldecoder(name)
        b"a".decode(name)
    except UnicodeDecodeError:
        pass  # a letter is more than one byte there
    except (LookupError, ValueError):
        raise click.BadParameter(f"{name!r} is not the name of an encoding") from None
    return name


def _check_delimiter(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """One character; a backslash and a t are a tab."""
    if text is None:
        return None
    delimiter = text.replace("\\t", "\t")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise click.BadParameter(f"{text!r} is not one character, or is one that CSV needs itself")
    return delimiter


@click.command("import")
@arguments.topic
@click.argument("file", metavar="FILE")
@click.option(
    "--format",
    "form",
    type=click.Choice(["ndjson", "csv", "json"]),
    help="By default .csv and .tsv are CSV, and what begins with [ is JSON, anything else NDJSON.",
)
@click.option(
    "--key",
    "column",
    metavar="COLUMN",
    callback=arguments.check_optional_name,
    help="The column or member that is the key of its record; a.b is member b of a.",
)
@click.option(
    "--items",
    metavar="PATH",
    callback=arguments.check_optional_name,
    help="FILE is one JSON object, and this the path to the array of records in it.",
)
@click.option(
    "--delimiter",
    metavar="CHARACTER",
    callback=_check_delimiter,
    help=r"Between the fields of CSV: a comma, and in .tsv a tab, by default; \t is a tab.",
)
@click.option(
    "--encoding",
    metavar="NAME",
    callback=_check_encoding,
    help="Of FILE; by default what its byte order mark says, and UTF-8 without one.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=1000, show_default=True, help="Records in one commit."
)
@arguments.namespace
@arguments.as_json
@click.pass_obj
def import_(
    url: str,
    *,
    topic: str,
    file: str,
    form: Format | None,
    column: str | None,
    items: str | None,
    delimiter: str | None,
    encoding: str | None,
    batch: int,
    namespace: str,
    as_json: bool,
) -> None:
    """Put the records of FILE into TOPIC.

    FILE is NDJSON, CSV with a header, or a JSON array of objects; "-" is standard input.

    With --key the value of a key is its whole record, from CSV an object of texts.
    Without, records are {"key": ..., "value": ...}, as `list --json` prints them; other members are ignored.

    Lines of `watch --json` are done as they say: puts, deletes, and at the end of a snapshot TOPIC has no other keys
    than that.

    At the first bad line it stops, and nothing of that batch is committed; what was committed before stays.
    """
    if items is not None and (form not in {None, "json"} or delimiter is not None):
        raise click.UsageError("--items is for JSON, and goes with no other --format and no --delimiter")
    if delimiter is not None and form not in {None, "csv"}:
        raise click.UsageError("--delimiter is for CSV, and goes with no other --format")
    if items is not None:
        form = "json"
    if delimiter is not None:
        form = "csv"
    done = Imported()

    async def main() -> None:
        with open_input(file) as opened:
            text = TextReader(opened, encoding)
            records = _records(text, file, form, items, delimiter, column)
            async with opening_of(url, makes_store=True) as store:
                reader = Reader(records, topic=topic, namespace=namespace, column=column)
                importing = Import(store, topic=topic, namespace=namespace, batch=batch, done=done)
                await importing.run(reader, text, name=name_of(file), size=size_of(opened))
        fields = {
            "records": done.records,
            "commits": done.commits,
            "keys": len(done.keys),
            "index": done.index,
        }
        await Output().write(json_line(fields) if as_json else f"{done}\n")

    try:
        run_async(main)
    except (SignalError, KeyboardInterrupt):
        click.echo(f"Interrupted: {done}.", err=True)
        raise


def _records(
    text: TextReader,
    file: str,
    form: Format | None,
    items: str | None,
    delimiter: str | None,
    column: str | None,
) -> Iterator[tuple[int, Record]]:
    """Not before the first record is asked for: that the format is looked at, which blocks."""
    match form or format_of(file, text):
        case "ndjson":
            yield from read_ndjson(text)
        case "json":
            yield from read_json(text, items)
        case "csv":
            needed, hint = (["key", "value"], KEY_HINT) if column is None else ([column], "")
            yield from read_csv(text, delimiter or delimiter_of(file), needed, hint)
