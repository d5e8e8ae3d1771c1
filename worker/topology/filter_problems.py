"""What SNS refuses in a filter policy, told before it is asked."""

import ipaddress
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from worker.settings.base import found
from worker.topology.filters import LARGEST_NUMBER, MESSAGE_ATTRIBUTES, OPERATORS, OR, branches

__all__ = ["problems"]

MAX_KEYS = 5
MAX_COMBINATIONS = 150
MAX_BYTES = 256 * 1024
MAX_WILDCARDS = 3
MAX_WILDCARD_POINTS = 100
_POINTS_PER_WILDCARD = 3
"""For each `*` of a pattern with several; a pattern with one costs a point."""

_PLAIN = "text, a number, true, false, null or an operator such as {prefix: order.}"
_RANGES = {">": "<", ">=": "<"}
"""The lower bounds, which may be followed by an upper one."""


def problems(policy: Mapping[str, Any], scope: str) -> list[str]:
    """Return a sentence for everything in the policy that SNS refuses, each starting with the key; `[]` when it is fine.

    `scope` is `MessageAttributes` or `MessageBody`. The sources are SNS's developer guide ("Filter policy
    constraints") and the answers of SNS itself.
    """
    return [*_of_the_whole(policy), *_of_object(policy, "", scope), *_of_size(policy)]


def _of_the_whole(policy: Mapping[str, Any]) -> Iterator[str]:
    if not policy:
        yield "the filter is empty, but must have a key: leave it out to let everything in"
    if len(policy) > MAX_KEYS:
        yield f"the filter has {len(policy)} keys, but SNS takes at most {MAX_KEYS}"


def _of_size(policy: Mapping[str, Any]) -> Iterator[str]:
    size = len(json.dumps(policy).encode())
    if size > MAX_BYTES:
        yield f"the filter has {size} bytes of JSON, but SNS takes at most {MAX_BYTES}"
    combinations = _combinations(policy)
    if combinations > MAX_COMBINATIONS:
        yield (
            f"the filter has {combinations} combinations of alternatives (those of each key multiplied, counted once "
            f"per level of nesting), but SNS takes at most {MAX_COMBINATIONS}"
        )
    points = _wildcard_points(policy)
    if points > MAX_WILDCARD_POINTS:
        yield (
            f"the filter's wildcards cost {points} points, but SNS takes at most {MAX_WILDCARD_POINTS}: "
            f"use prefix or suffix, which cost none"
        )


def _combinations(policy: Mapping[str, Any], depth: int = 1) -> int:
    total = 1
    for key, rules in policy.items():
        options = branches(key, rules)
        if options is not None:
            total *= sum(_combinations(option, depth) for option in options)
        elif isinstance(rules, Mapping):
            total *= _combinations(rules, depth + 1)
        elif isinstance(rules, list):
            total *= len(rules) * depth
    return total


def _wildcard_points(policy: Mapping[str, Any]) -> int:
    """Sum up the fields: what the patterns of one cost, times how many they are."""
    total = 0
    for key, rules in policy.items():
        options = branches(key, rules)
        if options is not None:
            total += sum(map(_wildcard_points, options))
        elif isinstance(rules, Mapping):
            total += _wildcard_points(rules)
        elif isinstance(rules, list):
            stars = [pattern.count("*") for rule in rules for pattern in _wildcards(rule)]
            total += sum(1 if count == 1 else _POINTS_PER_WILDCARD * count for count in stars) * len(stars)
    return total


def _wildcards(rule: Any) -> Iterator[str]:
    match rule:
        case {"wildcard": str(pattern)} | {"anything-but": {"wildcard": str(pattern)}}:
            yield pattern


def _of_object(policy: Mapping[str, Any], path: str, scope: str) -> Iterator[str]:
    for key, rules in policy.items():
        where = f"{path}{key}"
        options = branches(key, rules)
        if options is not None:
            yield from _of_overlap(policy, where)
            for position, option in enumerate(options):
                yield from _of_option(option, f"{where}.{position}", scope)
        elif isinstance(rules, Mapping):
            yield from _of_nested(rules, where, scope)
        elif not isinstance(rules, list) or not rules:
            yield f"{where} is {found(rules)}, but must be a list of at least one alternative, such as [order.created]"
        elif key == OR and any(isinstance(rule, Mapping) for rule in rules):
            yield f"{where} must hold at least two mappings without names of operators to mean OR"
        else:
            for position, rule in enumerate(rules):
                yield from _of_rule(rule, f"{where}.{position}")


def _of_overlap(policy: Mapping[str, Any], where: str) -> Iterator[str]:
    """SNS takes it, and forgets one of the two."""
    beside = set(_names({key: rules for key, rules in policy.items() if key != OR}))
    for name in sorted(beside & set(_names({OR: policy[OR]}))):
        yield f"{where} has {name}, which stands beside it too, but SNS cannot ask two things of one key: put it into each alternative"


def _names(policy: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the full names of the keys that have alternatives."""
    for key, rules in policy.items():
        options = branches(key, rules)
        if options is not None:
            for option in options:
                yield from _names(option, path)
        elif isinstance(rules, Mapping):
            yield from _names(rules, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def _of_option(option: Mapping[str, Any], where: str, scope: str) -> Iterator[str]:
    if not option:
        yield f"{where} is an empty mapping, but must have a key"
    yield from _of_object(option, f"{where}.", scope)


def _of_nested(rules: Mapping[str, Any], where: str, scope: str) -> Iterator[str]:
    if scope == MESSAGE_ATTRIBUTES:
        yield f"{where} is a mapping, but attributes are not nested: write a list, or filter_scope: MessageBody"
    elif not rules:
        yield f"{where} is an empty mapping, but must have a key"
    else:
        yield from _of_object(rules, f"{where}.", scope)


def _of_rule(rule: Any, where: str) -> Iterator[str]:
    if isinstance(rule, list):
        yield f"{where} is {found(rule)}, but must be {_PLAIN}"
    elif isinstance(rule, Mapping):
        operator = next(iter(rule), None)
        if len(rule) != 1:
            yield f"{where} has the keys {', '.join(rule) or 'none'}, but must have one operator: {', '.join(OPERATORS)}"
        elif operator not in OPERATORS:
            yield f"{where} has the operator {operator}, but SNS knows {', '.join(OPERATORS)}"
        else:
            yield from _OPERANDS[operator](rule[operator], f"{where}.{operator}")


def _of_text(operand: Any, where: str) -> Iterator[str]:
    if not isinstance(operand, str):
        yield f"{where} is {found(operand)}, but must be text"


def _of_wildcard(operand: Any, where: str) -> Iterator[str]:
    if not isinstance(operand, str):
        yield f"{where} is {found(operand)}, but must be text"
    elif operand.count("*") > MAX_WILDCARDS or "**" in operand:
        yield f"{where} is {found(operand)}, but must have at most {MAX_WILDCARDS} wildcards, never two in a row"


def _of_existence(operand: Any, where: str) -> Iterator[str]:
    if not isinstance(operand, bool):
        yield f"{where} is {found(operand)}, but must be true or false"


def _of_network(operand: Any, where: str) -> Iterator[str]:
    try:
        if not isinstance(operand, str) or not operand.partition("/")[2].isdecimal():
            raise ValueError  # noqa: TRY301 - what is no network is no network, whoever finds it
        ipaddress.ip_network(operand, strict=False)
    except ValueError:
        yield f"{where} is {found(operand)}, but must be a network such as 10.0.0.0/24"


def _of_numeric(operand: Any, where: str) -> Iterator[str]:
    fault = _numeric_fault(operand)
    if fault is not None:
        yield f"{where} is {json.dumps(operand)}, but {fault}"


def _numeric_fault(expression: Any) -> str | None:
    match expression:
        case ["=" | "<" | "<=" | ">" | ">=", bound] if _is_number(bound):
            return _range_fault([bound])
        case [">" | ">=", bottom, "<" | "<=", top] if _is_number(bottom) and _is_number(top):
            return _range_fault([bottom, top])
    return 'must be a comparison such as ["=", 5] or [">", 0], or a range such as [">=", 0, "<", 100]'


def _range_fault(bounds: Sequence[float]) -> str | None:
    if any(abs(bound) > LARGEST_NUMBER for bound in bounds):
        return "SNS compares numbers from -10^9 to 10^9 only"
    if any(bottom >= top for bottom, top in pairwise(bounds)):
        return "the lower bound must be less than the upper one"
    return None


def _of_exclusion(operand: Any, where: str) -> Iterator[str]:
    if isinstance(operand, Mapping):
        yield from _of_excluded_pattern(operand, where)
        return
    excluded = operand if isinstance(operand, list) else [operand]
    is_text = [isinstance(each, str) for each in excluded]
    if not excluded or not (all(is_text) or all(map(_is_number, excluded))):
        yield (
            f"{where} is {json.dumps(operand)}, but must be text, a number, a list of only text or only numbers, "
            f"{{prefix: ...}} or {{wildcard: ...}}"
        )


def _of_excluded_pattern(operand: Mapping[str, Any], where: str) -> Iterator[str]:
    match operand:
        case {"prefix": str(prefix)} if prefix and len(operand) == 1:
            return
        case {"wildcard": pattern} if len(operand) == 1:
            yield from _of_wildcard(pattern, f"{where}.wildcard")
        case _:
            yield (
                f"{where} is {json.dumps(operand)}, but of the operators SNS takes only {{prefix: ...}}, with a text that "
                f"is not empty, and {{wildcard: ...}} there: write a suffix as {{wildcard: '*...'}}"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_OPERANDS: Mapping[str, Callable[[Any, str], Iterator[str]]] = {
    "anything-but": _of_exclusion,
    "cidr": _of_network,
    "equals-ignore-case": _of_text,
    "exists": _of_existence,
    "numeric": _of_numeric,
    "prefix": _of_text,
    "suffix": _of_text,
    "wildcard": _of_wildcard,
}
