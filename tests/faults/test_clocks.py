"""Clocks that jump: a snapshot stays in the cache for its time, and nothing else depends on a clock."""

import time

import pytest
from catalogue import Catalogue, ready, until_live
from evidence import count
from scenes import WEB, Held, opened, quiet
from trio.testing import MockClock

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

JUMPED = "the event loop's clock jumps: what has had its time leaves the cache, and nothing else changes"


class TestOnAVirtualClock:
    @pytest.fixture
    def clock(self) -> MockClock:
        return MockClock()

    @pytest.fixture
    def anyio_backend(self, clock: MockClock) -> tuple[str, dict[str, MockClock]]:
        return "trio", {"clock": clock}

    @pytest.mark.parametrize(("jump", "runs"), [(9.9, 1), (10.1, 2), (1e9, 2)])
    async def test_a_jump_evicts_what_has_had_its_time_and_nothing_else(
        self, clock: MockClock, jump: float, runs: int
    ) -> None:
        async with opened(snapshot_cache_ttl=10) as (store, publisher):
            async with publisher.subscribe(WEB) as subscription:
                await until_live(subscription)
            clock.jump(jump)
            await quiet()
            assert publisher.statistics().topics["health"].snapshots == 2 - runs
            async with publisher.subscribe(WEB) as subscription:
                await until_live(subscription)
            assert store.runs == runs
        count("fault", JUMPED)

    async def test_a_jump_while_a_snapshot_is_made_does_not_take_it_away(self, clock: MockClock) -> None:
        held = Held(Catalogue())
        async with opened(held, snapshot_cache_ttl=10) as (_, publisher):
            async with publisher.subscribe(WEB) as subscription:
                await quiet()
                clock.jump(1e6)
                await quiet()
                held.go.set()
                await until_live(subscription)
            async with publisher.subscribe(WEB) as subscription:
                await until_live(subscription)
            assert len(held.requests) == 1
        count("fault", JUMPED)

    async def test_a_jump_takes_nothing_from_those_who_read(self, clock: MockClock) -> None:
        async with opened(snapshot_cache_ttl=10) as (store, publisher):
            store.commit(("web", "a"))
            async with publisher.subscribe(WEB) as subscription:
                first = await subscription.receive()
                for number in range(5):
                    store.commit(("web", f"{number}"))
                    clock.jump(1e4)
                    await quiet()
                assert [event.index for event in [first, *ready(subscription)]] == [1, 1, 2, 3, 4, 5, 6]
        count("fault", JUMPED, 5)

    async def test_snapshots_of_different_ages_go_in_their_order(self, clock: MockClock) -> None:
        async with opened(snapshot_cache_ttl=10) as (_, publisher):
            left: list[int] = []
            for key in "abc":
                async with publisher.subscribe(type(WEB)(WEB.topic, key)) as subscription:
                    await until_live(subscription)
                clock.jump(4)
                await quiet()
                left.append(publisher.statistics().topics["health"].snapshots)
            assert left == [1, 2, 2]
        count("fault", JUMPED, 3)


async def test_the_time_of_day_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is set, back or forth, is nobody's business: TTLs are measured by the event loop's clock."""
    async with opened(snapshot_cache_ttl=60) as (store, publisher):
        for wall in (0.0, 4e9, -1e9):
            monkeypatch.setattr(time, "time", lambda wall=wall: wall)
            monkeypatch.setattr(time, "time_ns", lambda wall=wall: int(wall * 1e9))
            async with publisher.subscribe(WEB) as subscription:
                await until_live(subscription)
            await quiet()
        assert store.runs == 1
    count("fault", "the time of day set back or forth: changes nothing", 3)
