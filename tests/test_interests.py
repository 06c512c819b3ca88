"""What a request asks for has one form, however it was written, and two requests can be asked for together."""

import copy
import pickle
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import combinations, product
from typing import Any

import pytest
from catalogue import HEALTH, JOBS, Health
from hypothesis import given, strategies as st

from trio_stream import ALL, Cursor, Event, Interest, Subject, SubscribeRequest, Topic

WEB = SubscribeRequest(HEALTH, "web")
DB = SubscribeRequest(HEALTH, "db")
EVERY_KEY = SubscribeRequest(HEALTH)
WEBS = SubscribeRequest(HEALTH, "web", prefix=True)
EVERYWHERE = SubscribeRequest(HEALTH, namespace=ALL)
BOTH = WEB | DB

# Small enough that all of it can be looked at, and with keys longer than any prefix that is asked for.
KEYS = ["", *map("".join, product("ab")), *map("".join, product("ab", repeat=2))]
LONGER = [*KEYS, *map("".join, product("ab", repeat=3)), "c"]
EVENTS = [
    (topic, Subject(key, namespace, partition))
    for topic in (HEALTH, JOBS)
    for key in LONGER
    for namespace in ("m", "n", "o")
    for partition in ("p", "q")
]
interests = st.lists(
    st.builds(
        Interest,
        st.sampled_from([HEALTH, JOBS]),
        st.sampled_from(KEYS),
        st.booleans(),
        st.sampled_from(["m", "n", ALL]),
        st.sampled_from(["p", ALL]),
    ),
    min_size=1,
    max_size=6,
)


def covered_by(asked: Iterable[Interest]) -> set[tuple[Topic[Any], Subject]]:
    return {(topic, subject) for topic, subject in EVENTS if any(e.covers(topic, subject) for e in asked)}


@given(interests)
def test_a_request_asks_for_what_its_interests_ask_for(asked: list[Interest]) -> None:
    """D22: nothing more and nothing less, whatever was left out."""
    request: SubscribeRequest[Any] = SubscribeRequest(interests=asked)
    wanted = covered_by(asked)
    assert covered_by(request.interests) == wanted
    assert {(topic, subject) for topic, subject in EVENTS if request.covers(topic, subject)} == wanted


@given(interests)
def test_no_interest_is_twice_and_none_is_covered_by_another(asked: list[Interest]) -> None:
    """D22."""
    kept = SubscribeRequest(interests=asked).interests
    for one, another in combinations(kept, 2):
        assert not covered_by([one]) <= covered_by([another])
        assert not covered_by([another]) <= covered_by([one])


@given(interests.flatmap(lambda asked: st.tuples(st.just(asked), st.permutations(asked))))
def test_requests_that_ask_for_the_same_are_equal(two: tuple[list[Interest], list[Interest]]) -> None:
    """D14: which is why they share a snapshot; the order in which they ask does not matter."""
    one: SubscribeRequest[Any]
    another: SubscribeRequest[Any]
    one, another = (SubscribeRequest(interests=asked) for asked in two)
    assert one == another
    assert hash(one) == hash(another)
    assert one.interests == another.interests
    assert SubscribeRequest(interests=one.interests) == one
    joined = SubscribeRequest(interests=two[0][:1])
    for each in two[1]:
        joined = joined | SubscribeRequest(interests=[each])
    assert joined == one


def test_interests_are_in_order() -> None:
    """D22: by topic, partition, namespace and key; `ALL` is the last, and a key comes before its prefix."""
    places: list[Any] = ["m", "n", ALL]
    ordered = tuple(
        Interest(topic, key, prefix, namespace, partition)
        for topic in (HEALTH, JOBS)
        for partition in ("p", "q")
        for namespace in ("m", "n")
        for key, prefix in (("a", False), ("b", False), ("ba", True))
    )
    assert SubscribeRequest(interests=reversed(ordered)).interests == ordered
    assert SubscribeRequest(interests=[Interest(HEALTH, "a", namespace=n) for n in places]).interests == (
        Interest(HEALTH, "a", namespace=ALL),
    )
    assert (SubscribeRequest(HEALTH, "a", namespace=ALL) | SubscribeRequest(HEALTH, "b")).interests == (
        Interest(HEALTH, "b"),
        Interest(HEALTH, "a", namespace=ALL),
    )


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (EVERY_KEY, WEB),
        (EVERY_KEY, WEBS),
        (WEBS, WEB),
        (WEBS, SubscribeRequest(HEALTH, "webs", prefix=True)),
        (WEBS, SubscribeRequest(HEALTH, "web-1")),
        (EVERYWHERE, WEB),
        (EVERYWHERE, EVERY_KEY),
        (EVERYWHERE, SubscribeRequest(HEALTH, "w", prefix=True, namespace="team")),
        (SubscribeRequest(HEALTH, "web", namespace=ALL), WEB),
        (SubscribeRequest(HEALTH, partition=ALL), WEBS),
        (SubscribeRequest(HEALTH, namespace=ALL, partition=ALL), EVERYWHERE),
    ],
    ids=repr,
)
def test_what_is_covered_adds_nothing(
    wide: SubscribeRequest[Health], narrow: SubscribeRequest[Health]
) -> None:
    """D22: so its events are not asked for twice."""
    assert wide | narrow == narrow | wide == wide
    assert narrow != wide


@pytest.mark.parametrize(
    "another",
    [
        DB,
        SubscribeRequest(HEALTH, "web-1"),
        SubscribeRequest(HEALTH, "we"),
        SubscribeRequest(HEALTH, "Web", prefix=True),
        SubscribeRequest(HEALTH, "web", namespace="team"),
        SubscribeRequest(HEALTH, namespace="team"),
        SubscribeRequest(HEALTH, partition="west"),
        SubscribeRequest(JOBS, "web"),
        SubscribeRequest(JOBS, namespace=ALL, partition=ALL),
    ],
    ids=repr,
)
def test_what_is_not_covered_is_asked_for_too(another: SubscribeRequest[Health]) -> None:
    """D22: also where the names are alike."""
    assert set((WEB | another).interests) == {*WEB.interests, *another.interests}


def test_a_blank_key_is_every_key_and_no_prefix() -> None:
    """D14: so both ways to ask for it share a snapshot."""
    asked = SubscribeRequest(HEALTH, prefix=True)
    assert asked == EVERY_KEY
    assert (asked.key, asked.prefix) == ("", False)
    assert SubscribeRequest(interests=[Interest(HEALTH, "", True)]) == EVERY_KEY


def test_a_topic_of_a_subclass_is_the_same_interest() -> None:
    """U22."""

    class Kind(Topic[Health]):
        pass

    assert (WEB | SubscribeRequest(Kind("health"), "web")).interests == WEB.interests


def test_a_request_of_one_interest_says_what_it_is() -> None:
    """D18."""
    request = SubscribeRequest(HEALTH, "we", prefix=True, namespace=ALL, partition="west")
    assert (request.topic, request.key, request.prefix) == (HEALTH, "we", True)
    assert (request.namespace, request.partition) == (ALL, "west")
    assert request.interests == (Interest(HEALTH, "we", True, ALL, "west"),)


@pytest.mark.parametrize("name", ["topic", "key", "prefix", "namespace", "partition", "subject"])
def test_a_request_of_several_interests_has_no_one_of_them(name: str) -> None:
    """D18: also where they have it in common."""
    with pytest.raises(ValueError, match=f"has 2 interests, and so no one {name}"):
        getattr(BOTH, name)


@pytest.mark.parametrize(
    "request_", [WEBS, EVERYWHERE, SubscribeRequest(HEALTH, "web", partition=ALL)], ids=repr
)
def test_what_is_more_than_a_subject_can_say_is_none(request_: SubscribeRequest[Health]) -> None:
    """D18."""
    with pytest.raises(ValueError, match="is no subject"):
        _ = request_.subject
    assert WEB.subject == Subject("web")


@pytest.mark.parametrize(
    "other",
    [SubscribeRequest(HEALTH, "db", token="t"), SubscribeRequest(HEALTH, "web", token="t")],
    ids=["another subject", "the same"],
)
def test_different_tokens_cannot_be_joined(other: SubscribeRequest[Health]) -> None:
    """D9, D18: a revocation would have to take away half of it. And no token is told."""
    secret = SubscribeRequest(HEALTH, "web", token="s3cret")
    for one, another in [(secret, other), (other, secret), (secret, WEB)]:
        with pytest.raises(ValueError, match="different tokens") as caught:
            _ = one | another
        assert "s3cret" not in str(caught.value)
    assert (secret | SubscribeRequest(HEALTH, "db", token="s3cret")).token == "s3cret"


@pytest.mark.parametrize("epoch", [None, "e"])
def test_what_has_an_index_cannot_be_joined(epoch: str | None) -> None:
    """D18, D22: an index says how far one has come with this, and not with the other."""
    resumed = SubscribeRequest(HEALTH, "web", index=7, epoch=epoch)
    for one, another in [(resumed, DB), (DB, resumed), (resumed, resumed)]:
        with pytest.raises(ValueError, match="resumes after 7"):
            _ = one | another
    assert (BOTH.after(Cursor(7, "e")).index, BOTH.after(Cursor(7, "e")).epoch) == (7, "e")


@pytest.mark.parametrize("other", [None, HEALTH, "web", ("web",), WEB.interests], ids=repr)
def test_only_requests_can_be_joined(other: Any) -> None:
    """D18."""
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = WEB | other
    with pytest.raises(TypeError, match="unsupported operand"):
        _ = other | WEB


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "nothing": ({}, TypeError, "needs a topic"),
    "no topic": ({"key": "web"}, TypeError, "needs a topic"),
    "a topic that is a string": ({"topic": "health"}, TypeError, "a topic is a Topic"),
    "no interests": ({"interests": []}, ValueError, "at least one interest"),
    "interests that are a string": ({"interests": "web"}, TypeError, "an iterable of Interest"),
    "interests that are none": ({"interests": [("health", "web")]}, TypeError, "an interest is an Interest"),
    "one interest": ({"interests": Interest(HEALTH)}, TypeError, "an interest is an Interest"),
    "an interest in a string": ({"interests": [Interest("health")]}, TypeError, "a topic is a Topic"),  # type: ignore[arg-type]
    "key": ({"topic": HEALTH, "key": None}, TypeError, "key is a string"),
    "prefix": ({"topic": HEALTH, "key": "w", "prefix": 1}, TypeError, "prefix is True or False"),
    "namespace": ({"topic": HEALTH, "namespace": None}, TypeError, "namespace is a string or ALL"),
    "partition": ({"topic": HEALTH, "partition": 1}, TypeError, "partition is a string or ALL"),
    "index": ({"topic": HEALTH, "index": -1}, ValueError, "not negative"),
    "epoch": ({"topic": HEALTH, "epoch": 1}, TypeError, "epoch is a string or None"),
    "mark": ({"topic": HEALTH, "mark": None}, TypeError, "mark is a string"),
    "token": ({"topic": HEALTH, "token": b"s3cret"}, TypeError, "token is a string"),
    "a key for several": ({"interests": BOTH.interests, "key": "web"}, ValueError, "no one key"),
}


@pytest.mark.parametrize(("arguments", "kind", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_asked_for_is_refused(
    arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    """D18: by the request itself, before anything is subscribed to; and no token is told."""
    with pytest.raises(kind, match=message) as caught:
        SubscribeRequest(**arguments)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("request_", [WEB, WEBS, EVERYWHERE, BOTH], ids=repr)
@pytest.mark.parametrize(
    "way",
    [copy.copy, copy.deepcopy, replace, lambda value: pickle.loads(pickle.dumps(value))],
    ids=["copy", "deepcopy", "replace", "pickle"],
)
def test_a_copy_asks_for_the_same(request_: SubscribeRequest[Health], way: Callable[[Any], Any]) -> None:
    """U22."""
    whole = replace(request_, token="t", index=7, epoch="e", mark="m")
    again = way(whole)
    assert again == whole
    assert hash(again) == hash(whole)
    assert (again.token, again.index, again.epoch, again.mark) == ("t", 7, "e", "m")
    assert again.interests == request_.interests


def test_all_is_one_value_and_never_a_string() -> None:
    """D18: a namespace may well be called "ALL"."""
    assert copy.deepcopy(ALL) is pickle.loads(pickle.dumps(ALL)) is ALL
    assert repr(ALL) == "ALL"
    assert not isinstance(ALL, str)
    for name in ("ALL", "all", "*", ""):
        assert SubscribeRequest(HEALTH, namespace=name) != EVERYWHERE
        assert not SubscribeRequest(HEALTH, namespace=name).covers(HEALTH, "web")


def test_a_part_can_be_replaced() -> None:
    """U22: of one interest any, of several those that are not about one."""
    changed: Any = replace  # type checkers know of the fields only
    assert changed(WEB, key="db") == DB
    assert changed(WEB, prefix=True) == WEBS
    assert changed(WEBS, key="") == EVERY_KEY
    assert changed(EVERY_KEY, namespace=ALL) == EVERYWHERE
    assert changed(WEB, topic=JOBS, partition="west") == SubscribeRequest(JOBS, "web", partition="west")
    assert replace(BOTH, index=3, epoch="e").interests == BOTH.interests
    assert replace(WEB, interests=BOTH.interests) == BOTH
    with pytest.raises(ValueError, match="no one key"):
        changed(BOTH, key="web")


def test_token_and_cursor_are_part_of_what_is_compared() -> None:
    """U22: two requests that begin in different places are different."""
    others = [
        replace(BOTH, token="t"),
        replace(BOTH, index=1),
        replace(BOTH, epoch="e"),
        replace(BOTH, mark="m"),
        WEB,
    ]
    assert len({BOTH, *others}) == len(others) + 1
    assert replace(BOTH, token="t") == replace(WEB, token="t") | replace(DB, token="t")


@pytest.mark.parametrize("request_", [WEB, WEBS, BOTH, EVERYWHERE], ids=repr)
def test_what_is_shown_of_a_request_makes_it_again_and_has_no_token(
    request_: SubscribeRequest[Health],
) -> None:
    """U22."""
    names = {"SubscribeRequest": SubscribeRequest, "Interest": Interest, "Topic": Topic, "ALL": ALL}
    whole = replace(request_, token="s3cret", index=7, epoch="e", mark="m")
    shown = repr(whole)
    assert "s3cret" not in shown
    assert eval(shown, names) == replace(whole, token="")
    assert "prefix" in repr(WEBS)


def test_a_request_can_be_matched() -> None:
    """U23: by topic and key, as before there were several interests."""
    match SubscribeRequest(HEALTH, "web"):
        case SubscribeRequest(topic, "web", namespace="default"):
            assert topic == HEALTH
        case _:
            pytest.fail("it is that of the key")
    match BOTH:
        case SubscribeRequest(interests=(Interest(_, "db"), Interest(_, "web"))):
            pass
        case _:
            pytest.fail("they are these two")


@pytest.mark.parametrize("name", ["interests", "index", "topic", "token", "other"])
def test_a_request_cannot_be_changed(name: str) -> None:
    """U22."""
    with pytest.raises(AttributeError):
        setattr(WEB, name, ())
    assert SubscribeRequest(HEALTH, "web") == WEB


@pytest.mark.parametrize("subject", ["web", Subject("web")], ids=repr)
def test_an_interest_says_itself_what_it_covers(subject: Subject | str) -> None:
    """A string is a key, as in a payload, and not three parts of a subject."""
    assert Interest(HEALTH, "web").covers(HEALTH, subject)
    assert Interest(HEALTH, "we", prefix=True).covers(HEALTH, subject)
    assert not Interest(HEALTH, "we").covers(HEALTH, subject)
    assert not Interest(JOBS, "web").covers(HEALTH, subject)


@pytest.mark.parametrize("subject", [None, 3, ("web",), Subject("web", None)], ids=repr)  # type: ignore[arg-type]
def test_covers_is_asked_about_subjects(subject: Any) -> None:
    """D18."""
    with pytest.raises(TypeError, match="subject"):
        BOTH.covers(HEALTH, subject)
    with pytest.raises(TypeError, match="a topic is a Topic"):
        BOTH.covers("health", "web")  # type: ignore[arg-type]


def test_the_mark_of_an_event_is_a_part_of_it() -> None:
    """D24: which copies keep."""
    event = Event(HEALTH, 7, Health("web"), mark="m")
    assert event.mark == "m"
    assert Event(HEALTH, 7, Health("web")).mark == ""
    for again in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert (again, again.mark) == (event, "m")
    assert replace(event, index=8).mark == "m"
