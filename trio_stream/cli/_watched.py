"""What a watch is about, and what the lines that it writes must say so that one knows where they are from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from trio_stream import ALL, SubscribeRequest
from trio_stream.stores import JSON, Record, topic


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """Keys of one topic or several, in one namespace or in all."""

    topics: Sequence[str]
    key: str = ""
    """The only one, or with `is_prefix` what they begin with; "" is all keys."""
    is_prefix: bool = False
    namespace: str | None = "default"
    """None: all of them."""

    @property
    def request(self) -> SubscribeRequest[Record]:
        """What asks for it."""
        namespace = ALL if self.namespace is None else self.namespace
        requests = (
            SubscribeRequest(topic(name), self.key, prefix=self.is_prefix, namespace=namespace)
            for name in self.topics
        )
        return reduce(or_, requests)

    @property
    def columns(self) -> Sequence[str]:
        """What a line says of a key."""
        return [
            *(["topic"] if len(self.topics) > 1 else []),
            *(["namespace"] if self.namespace is None else []),
            "key",
        ]

    def place(self, topic: str, record: Record) -> Sequence[str]:
        """These columns of a record."""
        topics = (topic,) if len(self.topics) > 1 else ()
        namespaces = (record.namespace,) if self.namespace is None else ()
        return (*topics, *namespaces, record.key)

    def members(self) -> Mapping[str, JSON]:
        """What each line of JSON says of it; nothing if it is about all keys of a topic in one namespace."""
        members: dict[str, JSON] = {}
        if len(self.topics) > 1:
            members["topics"] = list(self.topics)
        if self.namespace is None:
            members["all_namespaces"] = True
        if self.key:
            members["prefix" if self.is_prefix else "key"] = self.key
        return members

    def fields(self, topic: str, record: Record) -> dict[str, JSON]:
        """A change, for programs."""
        where: dict[str, JSON] = {"topic": topic} if len(self.topics) > 1 else {}
        return {
            "type": record.operation,
            **where,
            "namespace": record.namespace,
            "key": record.key,
            "value": record.value,
        }
