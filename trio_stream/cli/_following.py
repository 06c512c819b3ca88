"""The commands that follow a store: their arguments and their help."""

import logging
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

import click

from trio_stream import SubscribeRequest
from trio_stream.stores import Record, Store, topic as topic_of

from . import _arguments as arguments
from ._arguments import Cursor, check_cursor, check_finite, check_optional_name
from ._demo import Demo
from ._demo_writer import Task, write
from ._opening import opening_of
from ._output import Output
from ._run import Backend, SignalError, run_async
from ._view import ViewWatch
from ._watch import Watch


@click.command()
@arguments.topic
@click.argument("key", required=False, callback=check_optional_name)
@click.option(
    "--from",
    "start",
    metavar="INDEX@EPOCH",
    callback=check_cursor,
    help="Go on from here, without a snapshot.",
)
@click.option(
    "--view",
    "as_view",
    is_flag=True,
    help="Show the current state as a table; without a terminal, in the end.",
)
@arguments.namespace
@arguments.as_json
@arguments.backend
@click.pass_obj
def watch(
    url: str,
    *,
    topic: str,
    key: str | None,
    start: Cursor | None,
    as_view: bool,
    namespace: str,
    as_json: bool,
    backend: Backend,
) -> None:
    """Print TOPIC, then follow its changes.

    First the state of TOPIC, or of one KEY of it; then every change as it is committed, by whatever process.

    Ends with Ctrl-C, SIGTERM, or when nobody reads its output; then it prints the cursor to go on from with
    --from (on stderr with --json). Where that is too old, or of another store, the state is printed anew.

    \b
    With --json, a line is one commit, all of it:
      {"type": ..., "index": ..., "epoch": ..., "cursor": ..., "events": [...]}
    type    "snapshot": keys of the state, as put at `index`
            "end-of-snapshot": the state is complete, as of `index`
            "commit": a change
            "new-snapshot-to-follow": there is a gap; forget the state
    cursor  what --from takes to go on after this line; null inside a snapshot
    events  {"type": "put", "namespace": ..., "key": ..., "value": ...},
            or "delete"; none in the lines that are about the stream

    Apply a line as a whole, and the state is right at every commit.
    """  # noqa: D301 - see above
    request = SubscribeRequest(topic_of(topic), key or "", namespace=namespace)
    opening = opening_of(url, makes_store=True)
    logging.basicConfig(format="trio-stream: %(message)s")
    if as_view:
        if start or as_json:
            raise click.UsageError("--view goes with neither --from nor --json")
        _watch_view(opening, request, backend)
        return
    if start:
        request = replace(request, index=start.index, epoch=start.epoch)
    following = Watch(request, start, Output(), as_json=as_json)

    try:
        run_async(partial(following.run, opening), backend=backend)
    except (SignalError, KeyboardInterrupt):
        cursor = following.cursor
        end = (
            f"-- go on with --from {cursor}" if cursor else "-- ended inside the snapshot: there is no cursor"
        )
        # On a terminal the line has a ^C in it already.
        click.echo(f"\r{end}" if sys.stderr.isatty() and sys.stdout.isatty() else end, err=as_json)


def _watch_view(
    opening: AbstractAsyncContextManager[Store], request: SubscribeRequest[Record], backend: Backend
) -> None:
    watching = ViewWatch(request)
    try:
        run_async(partial(watching.run, opening), backend=backend)
    except (SignalError, KeyboardInterrupt):
        click.echo(watching.final, nl=False)


@click.command()
@click.option("--input", "file", metavar="FILE", help="A list like /etc/services, which is the default.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.5),
    callback=check_finite,
    default=10.0,
    show_default=True,
    help="How long changes are made.",
)
@arguments.backend
@click.pass_context
def demo(context: click.Context, *, file: str | None, seconds: float, backend: Backend) -> None:
    """Show the library at work.

    Processes change a catalogue of services, and subscribers in this one follow: one everything, two by a view of
    everything and of a single service, one comes and goes, and one has its token revoked.
    In the end what each had is compared with the store, at every index that it saw; exit code 1 if anything differs.
    It makes a store of its own, or uses that of --store (not of the environment), in a topic that it removes.
    """
    parent = context.parent
    assert parent is not None
    is_given = parent.get_parameter_source("url") is click.core.ParameterSource.COMMANDLINE
    if is_given:
        opening_of(context.obj, makes_store=True)
    show = Demo(file, seconds=seconds, backend=backend, url=context.obj if is_given else None)
    run_async(show.run, backend=backend)


@click.command("demo-writer", hidden=True)
@click.argument("argument")
@arguments.backend
def demo_writer(*, argument: str, backend: Backend) -> None:
    """A process of the demonstration that changes its catalogue; prints how many commits were acknowledged."""
    click.echo(run_async(partial(write, Task.from_argument(argument)), backend=backend))
