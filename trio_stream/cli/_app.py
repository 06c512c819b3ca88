"""The program, what it exits with, and the commands that are done at once: their arguments and their help."""

from typing import Final

import click

from trio_stream.stores import (
    JSON,
    Delete,
    Name,
    Operation,
    Put,
    StoreError,
)

from . import _arguments as arguments
from ._arguments import check_json
from ._following import demo, demo_writer, watch
from ._import import Imported, import_records, open_input, size_of
from ._lines import entry_fields, entry_line, json_line, value_text
from ._opening import opening_of
from ._output import Output, ReaderLeftError, guarded_output
from ._records import Format, Reader
from ._run import SignalError, run_async

_STORE: Final = "sqlite:trio-stream.db"
_ROWS: Final = 256  # of `list` that are written in one go


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--store",
    "url",
    metavar="URL",
    default=_STORE,
    show_default=True,
    envvar="TRIO_STREAM_STORE",
    show_envvar=True,
    help="The store: sqlite:PATH. `put`, `import` and `watch` make it if there is none.",
)
@click.version_option(package_name="trio-stream")
@click.pass_context
def app(context: click.Context, url: str) -> None:
    """Put JSON values into a store, and watch them change.

    \b
      trio-stream put jobs build '{"state": "running"}'
      trio-stream watch jobs

    A store holds topics; a topic holds keys, in namespaces; each commit has an index.
    Exit codes: 0 done, 1 it failed, 2 wrong usage, 130 interrupted.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    context.obj = url


@app.command()
@arguments.topic
@arguments.key
@click.argument("value", metavar="JSON", callback=check_json)
@arguments.namespace
@arguments.expect
@arguments.as_json
@click.pass_obj
def put(
    url: str, *, topic: str, key: str, value: JSON, namespace: str, expect: int | None, as_json: bool
) -> None:
    """Set KEY of TOPIC to a JSON value.

    Prints the index of the commit. A negative number comes after "--": `put jobs retries -- -1`.
    """
    _commit(url, Put(topic, key, value, namespace), expect, makes_store=True, as_json=as_json)


@app.command()
@arguments.topic
@arguments.key
@arguments.namespace
@arguments.expect
@arguments.as_json
@click.pass_obj
def delete(url: str, *, topic: str, key: str, namespace: str, expect: int | None, as_json: bool) -> None:
    """Remove KEY of TOPIC.

    Prints the index of the commit. It is no error if there is no such key; `--expect` makes it one.
    """
    _commit(url, Delete(topic, key, namespace), expect, makes_store=False, as_json=as_json)


def _commit(url: str, operation: Operation, expect: int | None, *, makes_store: bool, as_json: bool) -> None:
    async def main() -> None:
        async with opening_of(url, makes_store=makes_store) as store:
            expected = {} if expect is None else {Name(*operation.name): expect}
            index = await store.commit([operation], expect=expected)
        await Output().write(json_line({"index": index}) if as_json else f"{index}\n")

    run_async(main)


@app.command()
@arguments.topic
@arguments.key
@arguments.namespace
@arguments.as_json
@click.pass_obj
def get(url: str, *, topic: str, key: str, namespace: str, as_json: bool) -> None:
    """Print the value of KEY of TOPIC.

    It is JSON in any case. With --json: {"topic", "namespace", "key", "index", "value"}; the index is that of the
    commit which put it.
    """

    async def main() -> None:
        async with opening_of(url) as store:
            entry = await store.get(topic, key, namespace=namespace)
        if entry is None:
            raise click.ClickException(f"no key {key!r} in namespace {namespace!r} of topic {topic!r}")
        fields = entry_fields(topic, namespace, key, entry)
        await Output().write(json_line(fields) if as_json else f"{value_text(entry.value)}\n")

    run_async(main)


@app.command("list")
@arguments.topic
@arguments.namespace
@arguments.as_json
@click.pass_obj
def list_(url: str, *, topic: str, namespace: str, as_json: bool) -> None:
    """Print all keys of TOPIC.

    In the order of the keys: the index at which each was put, the key, the value.
    With --json, per line: {"topic", "namespace", "key", "index", "value"}, which `import` reads.
    """

    async def main() -> None:
        output = Output()
        lines: list[str] = []
        async with opening_of(url) as store, store.list(topic, namespace=namespace) as entries:
            async for key, entry in entries:
                fields = entry_fields(topic, namespace, key, entry)
                lines.append(json_line(fields) if as_json else entry_line(key, entry))
                if len(lines) == _ROWS:
                    await output.write("".join(lines))
                    lines.clear()
        await output.write("".join(lines))

    run_async(main)


@app.command("import")
@arguments.topic
@click.argument("file", metavar="FILE")
@click.option(
    "--format",
    "form",
    type=click.Choice(["ndjson", "csv"]),
    help="By default .csv is CSV, anything else NDJSON.",
)
@click.option("--key", "column", metavar="COLUMN", help="The column or member that is the key of its record.")
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
    batch: int,
    namespace: str,
    as_json: bool,
) -> None:
    """Put the records of FILE into TOPIC.

    FILE is NDJSON, or CSV with a header, in UTF-8; "-" is standard input.

    With --key the value of a key is its whole record, from CSV an object of texts.
    Without, records are {"key": ..., "value": ...}, as `list --json` prints them; other members are ignored.

    At the first bad line it stops, and nothing of that batch is committed; what was committed before stays.
    """
    done = Imported()

    async def main() -> None:
        with open_input(file) as lines:
            kind: Format = form or ("csv" if file.lower().endswith(".csv") else "ndjson")
            reader = Reader(lines, kind, topic=topic, namespace=namespace, column=column)
            async with opening_of(url, makes_store=True) as store:
                name = "standard input" if file == "-" else file
                await import_records(store, reader, name=name, batch=batch, done=done, size=size_of(lines))
        fields = {"records": done.records, "commits": done.commits, "index": done.index}
        await Output().write(json_line(fields) if as_json else f"{done}\n")

    try:
        run_async(main)
    except (SignalError, KeyboardInterrupt):
        click.echo(f"Interrupted: {done}.", err=True)
        raise


@app.command()
@click.argument("index", required=False, type=click.IntRange(min=0))
@click.pass_obj
def compact(url: str, *, index: int | None) -> None:
    """Forget old commits.

    Those up to INDEX, or all there are; the state stays. Who wants to go on from an older index gets a new snapshot.
    """

    async def main() -> None:
        async with opening_of(url) as store:
            head = await store.head()
            upto = head.index if index is None else index
            if upto > head.index:
                raise click.ClickException(f"{upto} is not reached yet: the newest index is {head.index}")
            await store.compact(upto)
        await Output().write(f"commits up to {max(upto, head.floor)} are gone\n")

    run_async(main)


for following in (watch, demo, demo_writer):
    app.add_command(following)


def run() -> int:
    """Does what the command line asks for; returns the exit code of the process."""
    try:
        with guarded_output():
            return app.main(prog_name="trio-stream", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except StoreError as error:
        click.ClickException(str(error)).show()
        return 1
    except SignalError as interrupted:
        return 128 + interrupted.signum
    except (click.Abort, KeyboardInterrupt):
        return 130
    except ReaderLeftError:
        return 0
