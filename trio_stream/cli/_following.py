"""The commands that follow a store: their arguments and their help."""

import logging
import sys
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial

import anyio
import click

from trio_stream import Cursor, SubscribeRequest
from trio_stream.stores import Name, Store, topic as topic_of
from trio_stream.view import ViewEnded

from . import _arguments as arguments
from ._arguments import check_cursor, check_finite, check_names, check_optional_name, check_text, is_given
from ._demo import Demo
from ._demo_writer import Task, write
from ._lines import entry_fields, json_line, value_text
from ._opening import opening_of
from ._output import Output
from ._run import Backend, SignalError, run_async
from ._view import ViewWatch
from ._wait import Condition, Field, check_fields, wait_for
from ._watch import Watch
from ._watched import Watched


@click.command()
@arguments.topic
@click.argument("key", required=False, callback=check_optional_name)
@click.option(
    "--topic",
    "more",
    metavar="TOPIC",
    multiple=True,
    callback=check_names,
    help="Watch this topic as well; may be given several times.",
)
@click.option("--prefix", default="", callback=check_text, help="Only the keys that begin with this.")
@click.option("--all-namespaces", "is_everywhere", is_flag=True, help="The keys of all namespaces.")
@click.option(
    "--from",
    "start",
    metavar="CURSOR",
    callback=check_cursor,
    help="Go on from here, INDEX@EPOCH, without a snapshot.",
)
@click.option(
    "--latest",
    "is_latest",
    is_flag=True,
    help="When behind, print only the newest change of each key.",
)
@click.option(
    "--view",
    "as_view",
    is_flag=True,
    help="Show the current state as a table; without a terminal, in the end.",
)
@click.option(
    "--exit-after-snapshot",
    "exits",
    is_flag=True,
    help="End when the state is printed; with --from, when all that is committed is.",
)
@arguments.namespace
@arguments.as_json
@arguments.backend
@click.pass_context
def watch(
    context: click.Context,
    *,
    topic: str,
    key: str | None,
    more: tuple[str, ...],
    prefix: str,
    is_everywhere: bool,
    start: Cursor | None,
    is_latest: bool,
    as_view: bool,
    exits: bool,
    namespace: str,
    as_json: bool,
    backend: Backend,
) -> None:
    """Print TOPIC, then follow its changes.

    First the state of TOPIC, or of one KEY of it; then every change as it is committed, by whatever process.

    With --topic there are several topics in one order, and a commit over several of them is one change. KEY, --prefix
    and the namespaces are those of each topic. A line then says the topic, and with --all-namespaces the namespace,
    before the key.

    Ends with Ctrl-C, SIGTERM, or when nobody reads its output; then it prints the cursor to go on from with
    --from (on stderr with --json). Where that is too old, or of another store, the state is printed anew.

    With --latest, whoever reads the output too slowly gets the newest change of each key in the place of all that came
    meanwhile, and so keeps up.

    \b
    With --json, a line is one commit, all of it:
      {"type": ..., "index": ..., "epoch": ..., "cursor": ..., "events": [...]}
    type    "snapshot": keys of the state, as put at `index`
            "end-of-snapshot": the state is complete, as of `index`
            "commit": a change
            "latest": with --latest, the newest of each key of several commits
            "new-snapshot-to-follow": there is a gap; forget the state
    cursor  what --from takes to go on after this line; null inside a snapshot
    events  {"type": "put", "namespace": ..., "key": ..., "value": ...},
            or "delete"; none in the lines that are about the stream;
            of several topics with "topic": ... as well

    \b
    A line also says what is watched:
    topics  with --topic: all of them
    key     the only one, if KEY is given; or "prefix"
    all_namespaces  true, with --all-namespaces

    Apply a line as a whole, and the state is right at every commit.
    """  # noqa: D301 - see above
    if key and prefix:
        raise click.UsageError("--prefix does not go with a KEY")
    if is_everywhere and is_given(context, "namespace"):
        raise click.UsageError("--all-namespaces does not go with --namespace")
    watched = Watched(
        topics=tuple(dict.fromkeys((topic, *more))),
        key=key or prefix,
        is_prefix=prefix != "",
        namespace=None if is_everywhere else namespace,
    )
    opening = opening_of(context.obj, makes_store=True, reads=True)
    logging.basicConfig(format="trio-stream: %(message)s")
    if as_view:
        if start or as_json or is_latest:
            raise click.UsageError("--view goes with none of --from, --latest and --json")
        _watch_view(opening, watched, backend, exits=exits)
        return
    following = Watch(watched, start, Output(), as_json=as_json, exits=exits, is_latest=is_latest)
    return_of_line = ""
    try:
        run_async(partial(following.run, opening), backend=backend)
    except (SignalError, KeyboardInterrupt):
        if sys.stderr is not None and sys.stderr.isatty() and sys.stdout.isatty():
            return_of_line = "\r"  # on a terminal the line has a ^C in it already
    cursor = following.cursor
    end = f"-- go on with --from {cursor}" if cursor else "-- ended inside the snapshot: there is no cursor"
    click.echo(f"{return_of_line}{end}", err=as_json)


def _watch_view(
    opening: AbstractAsyncContextManager[Store],
    watched: Watched,
    backend: Backend,
    *,
    exits: bool,
) -> None:
    watching = ViewWatch(watched, exits=exits)
    with suppress(SignalError, KeyboardInterrupt):
        run_async(partial(watching.run, opening), backend=backend)
    click.echo(watching.final, nl=False)


@click.command()
@arguments.topic
@arguments.key
@click.option("--gone", "is_gone", is_flag=True, help="Wait until KEY does not exist.")
@click.option(
    "--field",
    "fields",
    metavar="PATH[=VALUE]",
    multiple=True,
    callback=check_fields,
    help="Wait until the value has this member, with this value; a.b is member b of a.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    callback=check_finite,
    help="How long to wait at most; for ever by default, 0 is not to wait.",
)
@arguments.namespace
@arguments.as_json
@arguments.backend
@click.pass_obj
def wait(
    url: str,
    *,
    topic: str,
    key: str,
    is_gone: bool,
    fields: tuple[Field, ...],
    timeout: float | None,
    namespace: str,
    as_json: bool,
    backend: Backend,
) -> None:
    """Wait until KEY of TOPIC exists.

    Or with --gone until it does not, or with --field until its value is as you say: `--field state=done`,
    `--field status.ready=true`. VALUE is JSON; what is not JSON is a text. Several of them must be so together.

    Prints the value as `get` does; nothing with --gone. After --timeout the exit code is 1.
    """
    if is_gone and fields:
        raise click.UsageError("--gone does not go with --field")
    request = SubscribeRequest(topic_of(topic), key, namespace=namespace)
    condition = Condition(is_gone, fields)
    logging.basicConfig(format="trio-stream: %(message)s")

    async def main() -> None:
        async with opening_of(url, makes_store=True, reads=True) as store:
            entry = await store.get(topic, key, namespace=namespace)
            if not condition.is_met(entry):
                with anyio.fail_after(timeout):
                    entry = await wait_for(store, request, condition)
        if entry is not None:
            fields = entry_fields(topic, namespace, key, entry)
            await Output().write(json_line(fields) if as_json else f"{value_text(entry.value)}\n")

    try:
        run_async(main, backend=backend)
    except TimeoutError:
        name = Name(topic, key, namespace)
        raise click.ClickException(f"timed out after {timeout:g} s waiting for {name}") from None
    except ViewEnded as ended:
        raise click.ClickException(f"the state cannot be followed: {ended.__cause__}") from ended


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
    has_store = is_given(parent, "url")
    if has_store:
        opening_of(context.obj, makes_store=True)
    show = Demo(file, seconds=seconds, backend=backend, url=context.obj if has_store else None)
    run_async(show.run, backend=backend)


@click.command("demo-writer", hidden=True)
@click.argument("argument")
@arguments.backend
@click.pass_obj
def demo_writer(url: str, *, argument: str, backend: Backend) -> None:
    """A process of the demonstration that changes its catalogue; prints how many commits were acknowledged."""
    click.echo(run_async(partial(write, url, Task.from_argument(argument)), backend=backend))
