"""How many bytes are held, as tracemalloc counts them."""

import gc
import tracemalloc

# Where tests are handed out to several processes, a thread of this one may be told what to run next.
ANOTHER_THREAD = [tracemalloc.Filter(False, f"*/{name}/*") for name in ("execnet", "xdist")]


def traced() -> int:
    """Since `tracemalloc.start`."""
    gc.collect()
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces(ANOTHER_THREAD).traces)
