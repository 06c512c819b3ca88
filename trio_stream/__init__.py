"""Publish/subscribe for trio and anyio: the current state, and then every change to it.

See `EventPublisher` and `Subscription`; the promises are numbered in the documentation.
"""

from ._errors import (
    BusyResourceError as BusyResourceError,
    ClosedResourceError as ClosedResourceError,
    CloseReason as CloseReason,
    EndOfSubject as EndOfSubject,
    InvalidCommitError as InvalidCommitError,
    PublisherDisabledError as PublisherDisabledError,
    SnapshotFailed as SnapshotFailed,
    StaleCursorError as StaleCursorError,
    SubscriptionForceClosed as SubscriptionForceClosed,
    SubscriptionLagged as SubscriptionLagged,
    UnknownTopicError as UnknownTopicError,
    WouldBlock as WouldBlock,
)
from ._events import (
    Event as Event,
    Framing as Framing,
    Payload as Payload,
    PayloadEvents as PayloadEvents,
    Subject as Subject,
    Topic as Topic,
    close_subscription_event as close_subscription_event,
)
from ._handlers import (
    ReplayFunc as ReplayFunc,
    SnapshotAppender as SnapshotAppender,
    SnapshotFunc as SnapshotFunc,
    SnapshotHandlers as SnapshotHandlers,
    Source as Source,
)
from ._interest import ALL as ALL, Interest as Interest
from ._noop import NoOpEventPublisher as NoOpEventPublisher
from ._open import open_publisher as open_publisher, running as running
from ._publisher import EventPublisher as EventPublisher
from ._request import Cursor as Cursor, SubscribeRequest as SubscribeRequest
from ._statistics import PublisherStatistics as PublisherStatistics, TopicStatistics as TopicStatistics
from ._subscribable import Subscribable as Subscribable
from ._subscription import (
    Subscription as Subscription,
    SubscriptionInfo as SubscriptionInfo,
    SubscriptionState as SubscriptionState,
    SubscriptionStatistics as SubscriptionStatistics,
)
