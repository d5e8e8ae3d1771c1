"""Rules that hold for every filter policy and every event."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.filters import SCOPES, Event, events, policies

from worker.message import Attribute
from worker.topology.filter_problems import problems
from worker.topology.filters import MESSAGE_ATTRIBUTES, MESSAGE_BODY, matches

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
ANYTHING = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
pytestmark = pytest.mark.filterwarnings("error")


def both(policy: dict[str, Any], event: Event, scope: str) -> bool:
    return matches(policy, scope, event.attributes, event.body)


@settings(deadline=None)
@given(ANYTHING, st.sampled_from(SCOPES))
def test_any_policy_gets_its_sentences(policy: Any, scope: str) -> None:
    """Whatever stands in the file, a mistake is a sentence and not a traceback (X1)."""
    for problem in problems(policy if isinstance(policy, dict) else {"key": policy}, scope):
        assert len(problem) < 1000 + len(str(policy))


@settings(deadline=None)
@given(st.data(), ANYTHING)
def test_any_body_is_answered(data: st.DataObject, body: Any) -> None:
    """A publisher may send anything: it matches or not."""
    policy = data.draw(policies(MESSAGE_BODY))
    for text in (json.dumps(body), str(body)):
        assert matches(policy, MESSAGE_BODY, {}, text) in {True, False}


@settings(deadline=None)
@given(ANYTHING, st.sampled_from(["String", "String.Array", "Number", "Number.int", "Binary"]))
def test_any_attribute_is_answered(value: Any, data_type: str) -> None:
    text = json.dumps(value)
    attribute = Attribute(data_type, text.encode() if data_type == "Binary" else text)
    for rule in ("a", 1, None, {"prefix": "a"}, {"exists": True}, {"numeric": [">", 0]}, {"anything-but": "a"}):
        assert matches({"a": [rule]}, MESSAGE_ATTRIBUTES, {"a": attribute}, "") in {True, False}


@settings(deadline=None)
@given(st.data(), events(), st.sampled_from(SCOPES))
def test_more_alternatives_never_match_less(data: st.DataObject, event: Event, scope: str) -> None:
    one, other = data.draw(policies(scope)), data.draw(policies(scope))
    key = next(iter(one))
    if isinstance(one[key], list) and isinstance(other.get(key), list) and key != "$or":
        wider = {**one, key: [*one[key], *other[key]]}
        assert both(wider, event, scope) >= both(one, event, scope)


@settings(deadline=None)
@given(st.data(), events(), st.sampled_from(SCOPES))
def test_or_matches_what_one_of_its_branches_matches(data: st.DataObject, event: Event, scope: str) -> None:
    branches = data.draw(st.lists(policies(scope), min_size=2, max_size=3))
    assert both({"$or": branches}, event, scope) == any(both(branch, event, scope) for branch in branches)


@settings(deadline=None)
@given(st.data(), events(), st.sampled_from(SCOPES))
def test_all_keys_must_hold(data: st.DataObject, event: Event, scope: str) -> None:
    policy = data.draw(policies(scope))
    assert both(policy, event, scope) == all(both({key: rules}, event, scope) for key, rules in policy.items())


@settings(deadline=None)
@given(events(), st.sampled_from(SCOPES), st.sampled_from(["kind", "size", "labels", "nowhere"]))
def test_a_property_is_there_or_not(event: Event, scope: str, key: str) -> None:
    assert both({key: [{"exists": True}]}, event, scope) != both({key: [{"exists": False}]}, event, scope)


@settings(deadline=None)
@given(events(), st.data())
def test_anything_but_is_the_opposite_of_its_operand(event: Event, data: st.DataObject) -> None:
    """For a property with one value; of an array's elements one is enough for either."""
    rule = data.draw(st.sampled_from(["order.created", {"prefix": "order."}, {"wildcard": "o*d"}]))
    if "kind" in event.attributes:
        excluded = both({"kind": [{"anything-but": rule}]}, event, MESSAGE_ATTRIBUTES)
        assert excluded != both({"kind": [rule]}, event, MESSAGE_ATTRIBUTES)


@settings(deadline=None)
@given(events(), st.data())
def test_attributes_and_body_are_read_alike(event: Event, data: st.DataObject) -> None:
    """The same properties, in the attributes or in the body, match the same policies."""
    policy = data.draw(policies(MESSAGE_ATTRIBUTES))
    assert both(policy, event, MESSAGE_ATTRIBUTES) == both(policy, event, MESSAGE_BODY)
