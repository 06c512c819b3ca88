"""Bugs that others have shipped, which no test of ours must let through, and what is not expressed as a mutant."""

SHIPPED = {
    "Consul #7128": "an event between the reading of a snapshot and the attach was lost",
    "Consul #10355": "the newest item of the buffer was forgotten at the splice",
    "Consul #9772": "a cached snapshot contained new-snapshot-to-follow",
    "Consul #17067": "events at or below the snapshot's index came after end-of-snapshot",
    "Consul #16871": "published before it was committed: lost by who subscribed in between",
    "Consul #20642": "a restore closed only some topics, and readers died silently",
    "Consul: one request for two subscriptions": "the first could no longer be closed",
    "Consul: the TTL timer": "it evicted a newer snapshot of the same key",
    "Consul: a slow snapshot": "it held up unrelated topics, and a handler that subscribed was a deadlock",
    "Consul: after the shutdown": "subscribe hung",
    "consul-replicate #82": "an empty snapshot of a store that was not ready deleted everything downstream",
    "Nomad: resume at 2 with 7-10 kept starts at 7": "without an error",
    "Nomad: re-delivers the index given": "resume was inclusive",
    "Nomad: an event that matches two asked keys": "was delivered twice",
    "etcd #17529": "history trimmed past a reader whose queue was full, without an error",
    "etcd #20221, #15271": "a reader at a future revision got old events after a restore or a change of server",
    "etcd #22264": "catch-up cost grew with the backlog, not with what was delivered",
    "etcd #22294": "beyond a number of lagging readers the end was repeated and the reader leaked",
    "Kubernetes #139526": "the snapshot held the lock, and writers waited",
    "Kubernetes KEP-6268": "a slow reader was killed, replayed, and was killed again",
    "client-go #1326": "a stalled handler's queue grew until memory ran out",
    "tokio #5923, mini-redis #38": "receivers that gave up left waiters, and a send became quadratic",
    "litestar #4871": "what was registered before a checkpoint leaked when cancelled",
    "langgraph #8429, broadcaster #144": "close did not wake readers",
    "broadcaster #144: a dead source left them hanging": "and nobody told the readers",
    "anyio: a memory stream under Task.cancel()": "the item that was handed over was lost",
    "NATS #8273, Harper #1414": "rights tightened, and live streams kept delivering",
    "Materialize v0.50, NATS ADR-8": "an empty snapshot looked like one that is still coming",
}

NOT_EXPRESSED = {
    "Consul #16871": "when the application publishes is in its own hands; the store's feed reads what is committed",
    "Kubernetes #139526": "publish() is synchronous, and there is no lock that a snapshot could hold",
}
