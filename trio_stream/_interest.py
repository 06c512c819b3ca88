"""What a request asks for: the one place that says which events match.

An interest is a slice of one topic: one key, all keys that begin with a prefix, or all keys, each of one namespace and
partition or of all of them.
A blank key is every key; it is the prefix that every key begins with, and is never called a prefix here.

A request has one interest or several, in a canonical order: none twice, and none that another one covers.
So two requests that ask for the same in other words are equal, and share a snapshot.
"""

import enum
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from typing_extensions import override

from ._events import Subject, Topic


class All(enum.Enum):
    """The type of `ALL`."""

    ALL = "all"

    @override
    def __repr__(self) -> str:
        return "ALL"


ALL: Final = All.ALL
"""In the place of a namespace or partition of a request: every one of them."""

Name: TypeAlias = str | All
"""Of a namespace or partition that is asked for."""


class Interest(NamedTuple):
    """A slice of one topic."""

    topic: Topic[Any]
    key: str = ""
    """"" is every key."""
    prefix: bool = False
    """Whether every key is meant that begins with `key`."""
    namespace: Name = "default"
    partition: Name = "default"

    def covers(self, topic: Topic[Any], subject: Subject | str) -> bool:
        """Whether it asks for an event of this topic and subject; a string means `Subject(that)`."""
        if isinstance(subject, str):
            subject = Subject(subject)
        mine, key, prefix, namespace, partition = self
        its_key, its_namespace, its_partition = subject
        return (
            (key == its_key or not key or (prefix and its_key.startswith(key)))
            and (namespace == its_namespace or namespace is ALL)
            and (partition == its_partition or partition is ALL)
            and (mine is topic or mine == topic)
        )


def is_single(interest: Interest) -> bool:
    """Whether it is of one key."""
    _, key, prefix, namespace, partition = interest
    return key != "" and not prefix and namespace is not ALL and partition is not ALL


def canonical(interests: Iterable[Interest]) -> tuple[Interest, ...]:
    """In order, without those that another one covers."""
    every = set(interests)
    lengths = {len(each.key) for each in every if each.prefix or not each.key}
    kept = (each for each in every if every.isdisjoint(_wider(each, lengths)))
    return tuple(sorted(kept, key=_order))


def _wider(interest: Interest, lengths: Iterable[int]) -> Iterator[Interest]:
    """The interests that cover this one and more; prefixes of these lengths only."""
    topic, key, prefix, namespace, partition = interest
    keys = [(key, prefix)]
    keys += [(key[:length], length > 0) for length in lengths if length < len(key)]
    if key and not prefix:
        keys.append((key, True))
    for its_key, its_prefix in keys:
        for its_namespace in {namespace, ALL}:
            for its_partition in {partition, ALL}:
                wider = Interest(topic, its_key, its_prefix, its_namespace, its_partition)
                if wider != interest:
                    yield wider


def _order(interest: Interest) -> tuple[object, ...]:
    topic, key, prefix, namespace, partition = interest
    return (
        topic.name,
        (partition is ALL, "" if partition is ALL else partition),
        (namespace is ALL, "" if namespace is ALL else namespace),
        key,
        prefix,
    )


def described(interests: Iterable[Interest]) -> str:
    """For people: one after the other."""
    return " | ".join(map(_described, interests))


def _described(interest: Interest) -> str:
    topic, key, prefix, namespace, partition = interest
    subject = f"{_shown(partition)}/{_shown(namespace)}/{key}{'*' if prefix else ''}"
    return f"topic={topic.name!r} subject={subject!r}"


def _shown(name: Name) -> str:
    return "*" if name is ALL else name
