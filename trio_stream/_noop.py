"""A publisher for where events are not wanted: it takes everything and does nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn

import anyio
import anyio.abc
import anyio.lowlevel
from typing_extensions import TypeVar, override

from ._errors import PublisherDisabledError
from ._events import Event, Subject, Topic
from ._handlers import SnapshotFunc, Source
from ._request import Cursor, SubscribeRequest
from ._statistics import PublisherStatistics
from ._subscription import SubscriptionInfo

P = TypeVar("P", default=Any)


class NoOpEventPublisher:
    """Has the methods of `EventPublisher`; what is published vanishes, and there is nothing to subscribe to."""

    @override
    def __repr__(self) -> str:
        return "<NoOpEventPublisher>"

    @property
    def index(self) -> int:
        """Always 0."""
        return 0

    @property
    def next_index(self) -> int:
        """Always 1."""
        return 1

    @property
    def epoch(self) -> str:
        """Always empty: there is no timeline."""
        return ""

    @property
    def cursor(self) -> Cursor:
        """Always that of nothing."""
        return Cursor(0, "")

    @property
    def feed_age(self) -> None:
        """Always None: nothing feeds it."""
        return None

    def register_handler(self, topic: Topic[P], handler: SnapshotFunc[P] | Source) -> None:
        """Does nothing."""

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Returns after a checkpoint."""
        task_status.started()
        await anyio.lowlevel.checkpoint()

    def publish(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> None:
        """Does nothing."""

    def publish_from_thread(
        self,
        events: Iterable[Event[Any]],
        *,
        index: int | None = None,
        mark: str = "",
        finish: Iterable[tuple[Topic[Any], Subject | str]] = (),
        reopen: Iterable[tuple[Topic[Any], Subject | str]] = (),
    ) -> None:
        """Does nothing."""

    def subscribe(
        self,
        request: SubscribeRequest[P],
        *,
        authorizer: Any = None,
        where: Callable[[P], bool] | None = None,
        on_lag: Literal["close", "reset", "conflate"] = "close",
        label: str = "",
    ) -> NoReturn:
        """Always raises `PublisherDisabledError`."""
        raise PublisherDisabledError("this publisher is disabled: there is nothing to subscribe to")

    def subscriptions(self) -> Iterator[SubscriptionInfo]:
        """There are none."""
        return iter(())

    def close_subscriptions(self, token_secret_ids: Iterable[str]) -> int:
        """There are none to close: always 0."""
        return 0

    def remember_revocations(self, revoked: Mapping[str, int], *, floor: int = 0) -> None:
        """Does nothing."""

    def refresh(
        self,
        topic: Topic[Any] | None = None,
        *,
        index: int | None = None,
        epoch: str | None = None,
        mark: str = "",
    ) -> None:
        """Does nothing."""

    def statistics(self) -> PublisherStatistics:
        """All zero."""
        return PublisherStatistics(index=0, epoch="", subscriptions=0, waiting=0, tokens=0, topics={})
