"""The commands that look at a store as it is now: their arguments and their help."""

from typing import Final

import click

from trio_stream.stores import JSON, Head
from trio_stream.stores.sqlite import Sizes

from . import _arguments as arguments
from ._lines import entry_fields, entry_line, json_line, key_text, value_text
from ._opening import opening_of, path_of
from ._output import Output
from ._run import run_async

_ROWS: Final = 256  # of `list` that are written in one go


@click.command()
@arguments.topic
@arguments.key
@click.option("--raw", "is_raw", is_flag=True, help="Print a text as it is, without quotes and newline.")
@arguments.namespace
@arguments.as_json
@click.pass_obj
def get(url: str, *, topic: str, key: str, is_raw: bool, namespace: str, as_json: bool) -> None:
    """Print the value of KEY of TOPIC.

    It is JSON in any case, except a text with --raw. With --json: {"topic", "namespace", "key", "index", "value"};
    the index is that of the commit which put it.
    """
    if is_raw and as_json:
        raise click.UsageError("--raw does not go with --json")

    async def main() -> None:
        async with opening_of(url, reads=True) as store:
            entry = await store.get(topic, key, namespace=namespace)
        if entry is None:
            raise click.ClickException(f"no key {key!r} in namespace {namespace!r} of topic {topic!r}")
        fields = entry_fields(topic, namespace, key, entry)
        if is_raw and isinstance(entry.value, str):
            await Output().write(entry.value)
        else:
            await Output().write(json_line(fields) if as_json else f"{value_text(entry.value)}\n")

    run_async(main)


@click.command("list")
@arguments.topic
@click.option(
    "--prefix", default="", callback=arguments.check_text, help="Only the keys that begin with this."
)
@arguments.namespace
@arguments.as_json
@click.pass_obj
def list_(url: str, *, topic: str, prefix: str, namespace: str, as_json: bool) -> None:
    """Print the keys of TOPIC.

    In the order of the keys: the index at which each was put, the key, the value.
    With --json, per line: {"topic", "namespace", "key", "index", "value"}, which `import` and `txn` read.
    """

    async def main() -> None:
        output = Output()
        lines: list[str] = []
        async with (
            opening_of(url, reads=True) as store,
            store.list(topic, namespace=namespace, prefix=prefix) as entries,
        ):
            async for key, entry in entries:
                fields = entry_fields(topic, namespace, key, entry)
                lines.append(json_line(fields) if as_json else entry_line(key, entry))
                if len(lines) == _ROWS:
                    await output.write("".join(lines))
                    lines.clear()
        await output.write("".join(lines))

    run_async(main)


@click.command()
@arguments.as_json
@click.pass_obj
def topics(url: str, *, as_json: bool) -> None:
    """Print the topics that have a key.

    With --json, per line: {"topic"}.
    """

    async def main() -> None:
        async with opening_of(url, reads=True) as store:
            names = await store.topics()
        lines = [json_line({"topic": name}) if as_json else f"{key_text(name)}\n" for name in names]
        await Output().write("".join(lines))

    run_async(main)


@click.command()
@arguments.as_json
@click.pass_obj
def status(url: str, *, as_json: bool) -> None:
    """Say how far and how large the store is.

    The newest index (head), the newest commit that the log no longer has (floor), the epoch that they belong to, the
    commits in the log, and the bytes of the file and of the write-ahead log beside it.

    \b
    With --json:
      {"engine", "file", "epoch", "head", "floor", "commits",
       "bytes", "log_bytes"}
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped

    async def main() -> None:
        async with opening_of(url, reads=True) as store:
            head, sizes = await store.head(), await store.sizes()
        fields = _status(str(path_of(url)), head, sizes)
        await Output().write(json_line(fields) if as_json else _status_text(fields, sizes))

    run_async(main)


def _status(file: str, head: Head, sizes: Sizes) -> dict[str, JSON]:
    return {
        "engine": "sqlite",
        "file": file,
        "epoch": head.epoch,
        "head": head.index,
        "floor": head.floor,
        "commits": sizes.commits,
        "bytes": sizes.file,
        "log_bytes": sizes.write_ahead_log,
    }


def _status_text(fields: dict[str, JSON], sizes: Sizes) -> str:
    rows = {
        "engine": fields["engine"],
        "file": key_text(str(fields["file"])),
        "epoch": key_text(str(fields["epoch"])),
        "head": f"{fields['head']}",
        "floor": f"{fields['floor']}",
        "commits": f"{sizes.commits:,} in the log",
        "size": f"{_size(sizes.file)}, and {_size(sizes.write_ahead_log)} of write-ahead log",
    }
    return "".join(f"{name:<8} {text}\n" for name, text in rows.items())


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
