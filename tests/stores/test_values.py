"""What a store is given and gives: names, values, records, URLs."""

from pathlib import Path
from typing import Any

import pytest

from trio_stream import Subject, Topic
from trio_stream.stores import Delete, Name, Put, Record, open_store, topic


def test_a_topic_of_a_store_is_a_topic_of_records() -> None:
    assert topic("jobs") == Topic[Record]("jobs")


def test_a_record_is_about_its_key_in_its_namespace() -> None:
    assert Record("a", 1, "put", "blue").subject == Subject("a", "blue", "default")


def test_a_record_says_whether_its_key_is_gone() -> None:
    assert Record("a", None, "delete").is_delete
    assert not Record("a", None).is_delete


@pytest.mark.parametrize("bad", [("a", 1, "upsert"), ("a", 1, "delete"), ("a", None, "")])
def test_a_record_that_is_neither_a_put_nor_a_delete_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"operation|delete"):
        Record(*bad)


def test_who_may_read_a_record_is_up_to_the_authorizer() -> None:
    def reads_a(record: Record) -> bool:
        return record.key == "a"

    assert Record("a").has_read_permission(reads_a)
    assert not Record("b").has_read_permission(reads_a)


@pytest.mark.parametrize(
    "value", [Record("a"), Put("t", "a", 1), Delete("t", "a")], ids=["record", "put", "delete"]
)
def test_what_a_store_gives_cannot_be_changed(value: Any) -> None:
    with pytest.raises(AttributeError):
        value.key = "b"


def test_an_operation_says_what_it_is_about() -> None:
    assert Put("t", "a", 1, "blue").name == Name("t", "a", "blue") == Delete("t", "a", "blue").name


@pytest.mark.parametrize("bad", ["", "a\0b", "\ud800"], ids=["empty", "NUL", "lone surrogate"])
@pytest.mark.parametrize("part", ["topic", "key", "namespace"])
def test_a_name_that_not_every_store_can_hold_is_refused(part: str, bad: str) -> None:
    names: dict[str, Any] = {"topic": "t", "key": "k", "namespace": "n", part: bad}
    with pytest.raises(ValueError):
        Put(**names, value=1)
    with pytest.raises(ValueError):
        Delete(**names)


def test_a_name_that_is_not_a_string_is_refused() -> None:
    key: Any = 7
    with pytest.raises(TypeError, match="a key is a string, not 7"):
        Put("t", key, 1)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        *[(url, url) for url in ("jobs.db", "sqlite", "sqlite://host/jobs.db", "sqlite:", "sqlite::memory:")],
        ("redis://user:password@host", "redis:"),  # there may be a password in what follows
    ],
)
def test_a_url_that_names_no_store_is_refused_at_the_call(url: str, shown: str) -> None:
    with pytest.raises(ValueError, match=shown) as raised:
        open_store(url)
    assert "password" not in str(raised.value)


def test_a_path_is_not_taken_for_a_url(tmp_path: Path) -> None:
    path: Any = tmp_path / "jobs.db"
    with pytest.raises(TypeError, match=r"'sqlite:PATH', not .*Path"):
        open_store(path)


@pytest.mark.parametrize(
    "options",
    [{"synchronous": "half"}, {"busy_timeout": -1}, {"poll_interval": 0}],
    ids=lambda o: next(iter(o)),
)
def test_an_option_that_makes_no_sense_is_refused_at_the_call(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        open_store("sqlite:jobs.db", **options)


@pytest.mark.anyio
@pytest.mark.parametrize("form", ["sqlite:{}", "sqlite://{}"])
async def test_an_absolute_path_is_written_either_way(form: str, tmp_path: Path) -> None:
    path = tmp_path / "with space, % and ?.db"
    async with open_store(form.format(path)) as store:
        await store.commit([Put("t", "k", 1)])
    assert path.exists()


@pytest.mark.anyio
async def test_a_relative_path_is_that_of_the_directory_at_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opening = open_store("sqlite:jobs.db")
    monkeypatch.chdir("/")
    async with opening:
        assert (tmp_path / "jobs.db").exists()
