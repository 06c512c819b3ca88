"""The current state of a subscription as a mapping that can be waited on."""

from ._changes import Change as Change, Changes as Changes
from ._connection import Connect as Connect, Connection as Connection
from ._consistent import consistent as consistent
from ._errors import (
    EpochChanged as EpochChanged,
    StateLostError as StateLostError,
    ViewEnded as ViewEnded,
    ViewLimitError as ViewLimitError,
)
from ._pool import ViewPool as ViewPool
from ._reducer import KeyedReducer as KeyedReducer, Reducer as Reducer
from ._state import (
    Frozen as Frozen,
    Status as Status,
    ViewStatistics as ViewStatistics,
    ViewStatus as ViewStatus,
)
from ._table import GONE as GONE, Gone as Gone, Table as Table
from ._view import View as View, open_view as open_view
