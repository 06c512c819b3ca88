"""wait: until a key is there, is gone, or has what one waits for."""

import signal
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from cli.console import PATIENCE, Command, put, run, started

from trio_stream.stores import Delete, open_store

pytestmark = pytest.mark.anyio

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


def is_there(name: str) -> bool:
    return Path(name).exists()


async def delete(key: str) -> None:
    async with open_store("sqlite:trio-stream.db") as store:
        await store.commit([Delete("jobs", key)])


@BACKENDS
async def test_it_waits_until_the_key_exists(backend: str) -> None:
    async with started("watch", "jobs") as watch, started("wait", "jobs", "a", "--backend", backend) as wait:
        await watch.until("end of snapshot")
        await put("b", "0")
        await put("a", '{"x": 1}')
        ended = await wait.end()
    assert (ended.code, ended.out, ended.err) == (0, '{"x": 1}\n', "")


async def test_json_has_the_index_of_the_put_for_expect() -> None:
    await put("a", "1")
    await put("b", "1")
    result = await run("wait", "jobs", "a", "--json")
    assert result.objects == [{"topic": "jobs", "namespace": "default", "key": "a", "index": 1, "value": 1}]
    async with started("wait", "jobs", "a", "--field", "x", "--json") as wait:
        await put("a", '{"x": null}')
        await put("b", "2")
        assert (await wait.object())["index"] == 3
        assert (await wait.end()).code == 0


@BACKENDS
async def test_it_waits_until_the_key_is_gone(backend: str) -> None:
    await put("a", "1")
    async with started("wait", "jobs", "a", "--gone", "--backend", backend) as wait:
        await put("a", "2")
        await delete("a")
        ended = await wait.end()
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (await run("wait", "jobs", "never-was", "--gone")).code == 0


async def test_it_waits_until_all_fields_have_their_values() -> None:
    await put("a", '{"state": "queued", "spec": {"n": 1}}')
    async with started(
        "wait", "jobs", "a", "--field", "state=done", "--field", "spec.n=2", "--field", "spec"
    ) as wait:
        await put("a", '{"state": "done", "spec": {"n": 1}}')
        await put("a", '{"state": "running", "spec": {"n": 2}}')
        await delete("a")
        await put("a", '{"state": "done", "spec": {"n": 2}}')
        assert await wait.line() == '{"state": "done", "spec": {"n": 2}}'
        assert (await wait.end()).code == 0


MET = [
    ('{"x": 1}', "x=1"),
    ('{"x": 1.0}', "x=1"),
    ('{"x": "1"}', 'x="1"'),
    ('{"x": true}', "x=true"),
    ('{"x": null}', "x=null"),
    ('{"x": null}', "x"),
    ('{"x": "two words"}', "x=two words"),
    ('{"x": "a=b"}', "x=a=b"),
    ('{"x": ""}', "x="),
    ('{"x": [1, {"y": 2}]}', 'x=[1, {"y": 2.0}]'),
    ('{"x": {"b": 1, "a": 2}}', 'x={"a": 2, "b": 1}'),
    ('{"a.b": 1, "a": {"b": 2}}', "a.b=1"),
    ('{"a": {"b.c": 1}}', "a.b.c=1"),
    ('{"a.b": {"d": 1}, "a": {"b": {"c": 2}}}', "a.b.c=2"),
    ('{"a": {"b": {"c": 1}}}', "a.b.c=1"),
]
UNMET = [
    ('{"x": 1}', "x=true"),
    ('{"x": true}', "x=1"),
    ('{"x": "1"}', "x=1"),
    ('{"x": 1}', 'x="1"'),
    ('{"x": false}', "x=0"),
    ('{"x": [1]}', "x=[true]"),
    ('{"x": [1]}', "x=[1, 1]"),
    ('{"x": {"a": 1}}', 'x={"a": 1, "b": 1}'),
    ('{"x": {"a": 1}}', 'x={"b": 1}'),
    ('{"y": 1}', "x"),
    ('{"y": 1}', "x=null"),
    ('{"a": {"b": 1}}', "a.c"),
    ('{"a": 1}', "a.b"),
    ("[1]", "0"),
    ("null", "x"),
]


@pytest.mark.parametrize(("value", "field"), MET)
def test_a_field_that_has_its_value_is_not_waited_for(command: Command, value: str, field: str) -> None:
    command("put", "jobs", "a", value)
    result = command("wait", "jobs", "a", "--field", field, "--timeout", "0")
    assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize(("value", "field"), UNMET)
def test_a_field_that_has_another_value_is_waited_for(command: Command, value: str, field: str) -> None:
    command("put", "jobs", "a", value)
    result = command("wait", "jobs", "a", "--field", field, "--timeout", "0")
    assert (result.code, result.out) == (1, "")


@pytest.mark.parametrize("options", [["--timeout", "0"], ["--timeout", "0.05"]], ids=" ".join)
def test_after_the_timeout_it_says_what_has_not_come(command: Command, options: list[str]) -> None:
    result = command("wait", "jobs", "a", *options)
    assert (result.code, result.out) == (1, "")
    assert result.err == (
        f"Error: timed out after {options[1]} s waiting for key 'a' in namespace 'default' of topic 'jobs'\n"
    )
    command("put", "jobs", "a", "1")
    assert command("wait", "jobs", "a", "--gone", *options).code == 1
    assert command("wait", "jobs", "a", "--namespace", "n", *options).code == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--gone", "--field", "x"],
        ["--field", ""],
        ["--field", "=1"],
        ["--timeout", "-1"],
        ["--timeout", "nan"],
        ["--timeout", "inf"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(command: Command, options: list[str]) -> None:
    result = command("wait", "jobs", "a", *options)
    assert (result.code, result.out) == (2, "")


@BACKENDS
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_it(backend: str, number: signal.Signals, code: int) -> None:
    async with started("wait", "jobs", "a", "--backend", backend, "--timeout", "60") as wait:
        with anyio.fail_after(PATIENCE):
            while not is_there("trio-stream.db"):  # which it makes when it takes signals already
                await anyio.lowlevel.checkpoint()
        ended = await wait.end(number)
    assert (ended.code, ended.out, ended.err) == (code, "", "")
