"""Random courses of events for `InterestsMachine`: longer than those that hypothesis finds, and with more in them.

`python tests/model/interests_courses.py SEED` replays one, and shows the shortest part of it that fails.
"""

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

sys.path.insert(0, str(Path(__file__).parents[1]))

from catalogue import HEALTH, JOBS
from model.books import Plan
from model.interests import Wish
from model.interests_machine import KEYS, NAMESPACES, InterestsMachine
from model.machine import TOKENS
from model.timeline import TOPICS

from trio_stream import Subject

SHARED = [
    [Wish(HEALTH), Wish(JOBS)],
    [Wish(HEALTH, "we", is_prefix=True), Wish(JOBS, "web")],
    [Wish(HEALTH, "w", is_prefix=True)],
    [Wish(HEALTH, "web"), Wish(HEALTH, namespace="eu"), Wish(JOBS, namespace=None)],
]


class Step(NamedTuple):
    """One rule of the machine and what it is given."""

    name: str
    given: Mapping[str, Any]


def begin(rng: random.Random) -> Step:
    return Step(
        "begin",
        {
            "history": rng.choice([1, 2, 3, 6, 20]),
            "history_events": rng.choice([65_536, 65_536, 5]),
            "ttl": rng.choice([0.0, 1.0, math.inf]),
            "index": rng.choice([0, 7]),
            "has_marks": rng.random() < 0.5,
            "wide": rng.choice([TOPICS, TOPICS, (HEALTH,), ()]),
        },
    )


def course(
    seed: int,
    length: int,
    given: "Mapping[str, Given] | None" = None,
    weights: "Mapping[str, float] | None" = None,
) -> list[Step]:
    """What happens; the same for the same seed."""
    rng = random.Random(seed)
    steps = [begin(rng)]
    given = given or GIVEN
    names, of_names = zip(*(weights or WEIGHTS).items(), strict=True)
    # Each course has a taste of its own.
    tastes = [weight * rng.choice([0.3, 1, 1, 3]) for weight in of_names]
    stops_at = rng.choice([length, length, length - 8])
    for number in range(length):
        if number == rng.choice([0, 0, 5]):
            steps.append(Step("run", {}))
        if number == stops_at:
            steps.append(Step("stop", {"really": 0}))
        (name,) = rng.choices(names, tastes)
        steps.append(Step(name, given[name](rng)))
    return steps


def commit(rng: random.Random) -> dict[str, Any]:
    def change() -> tuple[Any, Subject, str | None]:
        subject = Subject(rng.choice([*KEYS * 3, ""]), rng.choice(NAMESPACES))
        return rng.choice([HEALTH, HEALTH, JOBS]), subject, rng.choice([None, "a", "b", "c"])

    commits = [
        [change() for _ in range(rng.choice([1, 1, 2, 4]))] for _ in range(rng.choice([1, 1, 1, 2, 5]))
    ]
    return {
        "commits": commits,
        "step": rng.choice([1, 1, 1, 3]),
        "publish": rng.random() < 0.6,
        "then_receive": rng.random() < 0.4,
    }


def wish(rng: random.Random) -> Wish:
    key = rng.choice(["", *KEYS, "w", "d"])
    return Wish(
        rng.choice([HEALTH, HEALTH, JOBS]),
        key,
        bool(key) and rng.random() < 0.5,
        rng.choice([*NAMESPACES, None]),
    )


def subscribe(rng: random.Random) -> dict[str, Any]:
    return {
        "asked": rng.choice(SHARED) if rng.random() < 0.5 else [wish(rng) for _ in range(rng.randint(1, 3))],
        "token": rng.choice(TOKENS),
        "can_see": rng.choice([*[None] * 6, frozenset({"web"}), frozenset({"web", "db"})]),
        "resets": rng.random() < 0.5,
        "back": rng.choice([None, None, None, 0, 0, 1, 2, 5, -1, -3]),
        "epoch": rng.choice(["right", "right", "right", "right", "none", "wrong"]),
        "mark": rng.choice(["right", "right", "right", "none", "wrong"]),
        "at_once": rng.random() < 0.3,
    }


def plan(rng: random.Random) -> dict[str, Any]:
    return {
        "plan": Plan(
            rng.choice(["published", "ahead", "ahead", "behind"]),
            rng.random() < 0.5,
            rng.randint(0, 2),
            rng.choice([*[None] * 12, 0, 1]),
            rng.choice(["mark", "mark", "index", "false mark"]),
            rng.random() < 0.5,
        )
    }


def upset(rng: random.Random) -> dict[str, Any]:
    return {
        "kind": rng.choice(["refresh", "restore", "skip"]),
        "topic": rng.choice(TOPICS),
        "index": rng.randint(0, 12),
        "state": [(Subject(rng.choice(KEYS), rng.choice(NAMESPACES)), "restored")],
    }


def number(rng: random.Random) -> dict[str, Any]:
    return {"number": rng.randrange(1000)}


def nothing(_: random.Random) -> dict[str, Any]:
    return {}


Given: TypeAlias = Callable[[random.Random], dict[str, Any]]
GIVEN: dict[str, Given] = {
    "commit": commit,
    "publish": lambda rng: {"count": rng.randint(1, 4), "revoked": rng.choice([*[None] * 30, *TOKENS])},
    "publish_nothing": lambda rng: {"step": rng.choice([1, 3])},
    "revoke": lambda rng: {
        "chosen": rng.choice([["none"], ["t"], ["u", "t", "t"]]),
        "by_event": rng.random() < 0.5,
    },
    "upset": upset,
    "plan": plan,
    "wait": lambda rng: {"seconds": rng.choice([0.4, 1.0])},
    "subscribe": subscribe,
    "resume": number,
    "unsubscribe": number,
    "receive": lambda rng: {**number(rng), "count": rng.choice([1, 1, 2, 100])},
    "everybody_receives": nothing,
    "begin_to_receive": lambda rng: {**number(rng), "most": rng.choice([0, 0, 1, 2, None])},
    "begin_to_read_a_state": number,
    "begin_to_wait": lambda rng: {**number(rng), "ahead": rng.choice([None, None, 0, 1, 2])},
    "cancel": number,
    "cancel_a_wait": number,
    "step": lambda rng: {**number(rng), "steps": rng.choice([1, 1, 3, 8])},
    "settle": nothing,
}
WEIGHTS = {
    "commit": 26,
    "publish": 6,
    "publish_nothing": 2,
    "revoke": 0.3,
    "upset": 0.4,
    "plan": 14,
    "wait": 2,
    "subscribe": 12,
    "resume": 8,
    "unsubscribe": 4,
    "receive": 10,
    "everybody_receives": 3,
    "begin_to_receive": 10,
    "begin_to_read_a_state": 3,
    "begin_to_wait": 2,
    "cancel": 2,
    "cancel_a_wait": 1,
    "step": 30,
    "settle": 4,
}
NEEDED: dict[str, Callable[[InterestsMachine], object]] = {
    **dict.fromkeys(
        (
            "resume",
            "unsubscribe",
            "receive",
            "begin_to_receive",
            "begin_to_read_a_state",
            "begin_to_wait",
            "everybody_receives",
        ),
        lambda machine: machine.world.readers,
    ),
    "cancel": lambda machine: machine.receives,
    "cancel_a_wait": lambda machine: machine.reads or machine.waits,
    "step": lambda machine: machine.loop.ready(),
    "run": lambda machine: not machine.is_running,
    "stop": lambda machine: machine.is_running,
}


def play(steps: Sequence[Step], machine: InterestsMachine | None = None) -> int:
    """Plays a course, and checks everything after each step; returns how many events were judged."""
    machine = machine or InterestsMachine()
    try:
        for name, given in steps:
            if name not in NEEDED or NEEDED[name](machine):
                getattr(machine, name)(**given)
                machine.check()
    except BaseException:
        machine.loop.close()
        machine.restore_modules()
        raise
    machine.teardown()
    return machine.world.events


def one_course(seed: int, length: int) -> int:
    try:
        return play(course(seed, length))
    except BaseException as error:
        error.add_note(f"replay: python tests/model/interests_courses.py {seed} {length}")
        raise


def shortest(steps: Sequence[Step], failure: str) -> list[Step]:
    """The steps without which it does not fail like this any more."""
    kept = list(steps)
    size = len(kept) // 2
    while size:
        place = 1
        while place < len(kept):
            fewer = kept[:place] + kept[place + size :]
            if failure_of(fewer) == failure:
                kept = fewer
            else:
                place += size
        size //= 2
    return kept


def failure_of(steps: Sequence[Step]) -> str:
    """How it fails, in short; "" if it does not."""
    try:
        play(steps)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return f"{type(error).__name__} {error}"[:36]
    return ""


if __name__ == "__main__":
    steps = course(int(sys.argv[1]), int(sys.argv[2]))
    if failure := failure_of(steps):
        steps = shortest(steps, failure)
        for name, given in steps:
            sys.stdout.write(f"{name} {dict(given)}\n")
    play(steps)
