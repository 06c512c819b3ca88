"""The commands that look at a store as it is now: their arguments and their help."""

from typing import Final

import click

from trio_stream.stores import JSON, DescribedStore, StoreStatus

from . import _arguments as arguments
from ._lines import entry_fields, entry_line, json_line, key_text, value_text
from ._opening import opening_of
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

    The engine and its version, where the store is, the newest index (head) and the mark of that commit, the newest
    commit that the log no longer has (floor), the epoch that they belong to, the commits in the log, and the bytes:
    of the file and of the write-ahead log beside it, or of the tables on the server.

    \b
    With --json:
      {"engine", "version", "file" or "place", "epoch", "head", "mark",
       "floor", "commits", "bytes", "log_bytes"}
    place      of a store on a server: without a password
    log_bytes  of a store in a file only
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped

    async def main() -> None:
        async with opening_of(url, reads=True) as store:
            assert isinstance(store, DescribedStore)  # as all are that a URL can name
            status = await store.status()
        await Output().write(json_line(_fields(status)) if as_json else _text(status))

    run_async(main)


def _fields(status: StoreStatus) -> dict[str, JSON]:
    head, sizes = status.head, status.sizes
    fields: dict[str, JSON] = {
        "engine": status.engine,
        "version": status.version,
        "file" if "file" in sizes else "place": status.place,
        "epoch": head.epoch,
        "head": head.index,
        "mark": head.mark,
        "floor": head.floor,
        "commits": status.commits,
    }
    if "file" in sizes:
        return {**fields, "bytes": sizes["file"], "log_bytes": sizes["write_ahead_log"]}
    return {**fields, "bytes": sum(sizes.values())}


def _text(status: StoreStatus) -> str:
    head = status.head
    rows = {
        "engine": f"{status.engine} {status.version}",
        "file" if "file" in status.sizes else "place": key_text(status.place),
        "epoch": key_text(head.epoch),
        "head": f"{head.index}",
        "mark": head.mark or "none",
        "floor": f"{head.floor}",
        "commits": f"{status.commits:,} in the log",
        "size": ", ".join(
            f"{_size(size)} of {what.replace('_', ' ')}" for what, size in status.sizes.items()
        ),
    }
    return "".join(f"{name:<8} {text}\n" for name, text in rows.items())


def _size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
