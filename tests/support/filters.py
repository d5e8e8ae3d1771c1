"""Filter policies and events that are drawn at random: typed, so that what is compared can be compared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hypothesis import strategies as st

from worker.message import Attribute
from worker.topology.filter_problems import problems
from worker.topology.filters import MESSAGE_ATTRIBUTES, MESSAGE_BODY

__all__ = ["SCOPES", "Event", "events", "policies"]

SCOPES = (MESSAGE_ATTRIBUTES, MESSAGE_BODY)
TEXTS = ("order.created", "order.updated", "Order.Created", "mail.sent", "10.0.0.7", "10.0.1.7")
PARTS = ("order.", "mail", "created", ".sent", "d", "Order")
WILDCARDS = ("order.*", "*.sent", "o*.*d", "*", "order.created", "*r*.c*d")
NUMBERS = (-1, 2, 1, 1.5, 100, 250.25, 1_000_000_000)


@dataclass(frozen=True)
class Event:
    """What is published: the same properties as attributes and in the body, and more of them there."""

    attributes: Mapping[str, Attribute]
    body: str


@st.composite
def events(draw: st.DrawFn, number: int = 0) -> Event:
    """Draw an event; its body has `number`, by which it is known again."""
    flat = draw(
        st.fixed_dictionaries(
            {}, optional={"kind": texts(), "size": numbers(), "labels": st.lists(texts(), min_size=1)}
        )
    )
    order = draw(
        st.fixed_dictionaries(
            {"state": texts()}, optional={"total": numbers(), "lines": st.lists(numbers(), min_size=1)}
        )
    )
    flag = draw(st.fixed_dictionaries({}, optional={"flag": st.booleans()}))
    return Event(
        {"other": Attribute("String", "x"), **{name: _attribute(value) for name, value in flat.items()}},
        json.dumps({"number": number, **flat, **flag, "order": order}),
    )


@cache
def policies(scope: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw a policy that SNS takes."""
    flat: dict[str, st.SearchStrategy[Any]] = {
        "kind": rules(text_rules()),
        "size": rules(number_rules()),
        "labels": rules(text_rules()),
    }
    nested = {"state": rules(text_rules()), "total": rules(number_rules()), "lines": rules(number_rules())}
    if scope == MESSAGE_BODY:
        flat |= {"flag": rules(st.booleans() | existence()), "order": _object(nested)}
    return _object(flat).filter(lambda policy: not problems(policy, scope))


@st.composite
def _object(draw: st.DrawFn, keys: Mapping[str, st.SearchStrategy[Any]]) -> dict[str, Any]:
    """Draw one or two of the keys, `$or` with some of the others, or both."""
    names = draw(st.permutations(sorted(keys)))
    beside, within = names[:2], names[2:] or names[1:]

    def some(of: list[str]) -> dict[str, Any]:
        return {
            name: draw(keys[name]) for name in draw(st.lists(st.sampled_from(of), min_size=1, max_size=2, unique=True))
        }

    match draw(st.sampled_from(["keys", "or", "both"])):
        case "keys":
            return some(names)
        case "or":
            return {"$or": [some(names) for _ in range(draw(st.integers(2, 3)))]}
        case _:
            return {**some(beside[: len(names) - len(within)]), "$or": [some(within), some(within)]}


def rules(rule: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(rule, min_size=1, max_size=3)


def texts() -> st.SearchStrategy[str]:
    return st.sampled_from(TEXTS)


def numbers() -> st.SearchStrategy[float]:
    return st.sampled_from(NUMBERS)


def existence() -> st.SearchStrategy[dict[str, bool]]:
    return st.booleans().map(lambda wanted: {"exists": wanted})


@cache
def text_rules() -> st.SearchStrategy[Any]:
    """Draw a rule about text."""
    operators = {
        "prefix": st.sampled_from(PARTS),
        "suffix": st.sampled_from(PARTS),
        "equals-ignore-case": texts(),
        "wildcard": st.sampled_from(WILDCARDS),
        "cidr": st.sampled_from(["10.0.0.0/24", "10.0.0.0/16"]),
        "anything-but": st.one_of(
            texts(),
            st.lists(texts(), min_size=1, max_size=3),
            st.sampled_from(PARTS).map(lambda part: {"prefix": part}),
            st.sampled_from(WILDCARDS).map(lambda pattern: {"wildcard": pattern}),
        ),
    }
    return st.one_of(texts(), existence(), *(_operator(name, operand) for name, operand in operators.items()))


@cache
def number_rules() -> st.SearchStrategy[Any]:
    """Draw a rule about a number."""
    comparisons = st.tuples(st.sampled_from(["=", "<", "<=", ">", ">="]), numbers()).map(list)
    ranges = st.tuples(
        st.sampled_from([">", ">="]),
        st.sampled_from([-5, 0, 1]),
        st.sampled_from(["<", "<="]),
        st.sampled_from([1.5, 100]),
    ).map(list)
    excluded = numbers() | st.lists(numbers(), min_size=1, max_size=3)
    return st.one_of(
        numbers(), existence(), _operator("numeric", comparisons | ranges), _operator("anything-but", excluded)
    )


def _operator(name: str, operand: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return operand.map(lambda value: {name: value})


def _attribute(value: Any) -> Attribute:
    match value:
        case str():
            return Attribute("String", value)
        case list():
            return Attribute("String.Array", json.dumps(value))
        case _:
            return Attribute("Number", str(value))
