"""SNS filter policies, evaluated here: what would reach a queue, without a topic to publish to."""

import ipaddress
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from worker.message import Attribute

__all__ = ["MESSAGE_ATTRIBUTES", "MESSAGE_BODY", "OPERATORS", "OR", "branches", "matches"]

MESSAGE_ATTRIBUTES = "MessageAttributes"
MESSAGE_BODY = "MessageBody"
OR = "$or"
OPERATORS = (
    "anything-but",
    "cidr",
    "equals-ignore-case",
    "exists",
    "numeric",
    "prefix",
    "suffix",
    "wildcard",
)
LARGEST_NUMBER = 1e9
DIGITS = 5
"""SNS compares numbers from -10^9 to 10^9 as numbers, to five digits after the point; larger ones as text."""

_COMPARISONS = {
    "=": float.__eq__,
    "<": float.__lt__,
    "<=": float.__le__,
    ">": float.__gt__,
    ">=": float.__ge__,
}


def matches(policy: Mapping[str, Any], scope: str, attributes: Mapping[str, Attribute], body: str) -> bool:
    """Return whether SNS would deliver a message with these attributes and this body to a subscription so filtered.

    `scope` is `MessageAttributes` or `MessageBody`. All keys must hold; of a key's alternatives one is enough; of an
    array's elements one is enough. Text never equals a number. A body that is no JSON object matches nothing; binary
    attributes are as good as absent. The policy must be one that SNS takes: see `filter_problems.problems`.
    """
    properties = _of_body(body) if scope == MESSAGE_BODY else _of_attributes(attributes)
    return bool(properties) and _all_hold(policy, properties)  # without a single property, `exists: false` fails too


def branches(key: str, rules: Any) -> Sequence[Mapping[str, Any]] | None:
    """Return the alternatives when this is SNS's OR operator; `None` when `$or` is a name like any other.

    It is the operator when it holds at least two objects none of whose names is an operator.
    """
    if key != OR or not isinstance(rules, list) or len(rules) < len(("one", "or the other")):
        return None
    if any(not isinstance(rule, Mapping) or any(name in OPERATORS for name in rule) for rule in rules):
        return None
    return rules


def _of_attributes(attributes: Mapping[str, Attribute]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, attribute in attributes.items():
        match attribute.data_type.partition(".")[0], attribute.value:
            case "String", str(text) if attribute.data_type == "String.Array":
                elements = _parsed(text)
                properties[name] = elements if isinstance(elements, list) else []
            case "String", str(text):
                properties[name] = text
            case "Number", str(text):
                properties[name] = _parsed(text)
    return properties


def _of_body(body: str) -> dict[str, Any]:
    properties = _parsed(body)
    return properties if isinstance(properties, dict) else {}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _all_hold(policy: Mapping[str, Any], properties: Mapping[str, Any]) -> bool:
    return all(_holds(key, rules, properties) for key, rules in policy.items())


def _holds(key: str, rules: Any, properties: Mapping[str, Any]) -> bool:
    options = branches(key, rules)
    if options is not None:
        return any(_all_hold(option, properties) for option in options)
    found = list(_elements(properties[key])) if key in properties else []
    if isinstance(rules, Mapping):  # one object of an array must hold as a whole
        objects = [element for element in found if isinstance(element, Mapping)]
        return any(_all_hold(rules, inner) for inner in objects or [{}])
    leaves = [element for element in found if not isinstance(element, Mapping)]
    return any(_rule_holds(rule, leaves) for rule in rules)


def _elements(value: Any) -> Iterator[Any]:
    """Yield the elements of an array, of arrays in it, too; of anything else, itself."""
    if isinstance(value, list):
        for element in value:
            yield from _elements(element)
    else:
        yield value


def _rule_holds(rule: Any, leaves: Sequence[Any]) -> bool:
    if isinstance(rule, Mapping) and "exists" in rule:  # about the property; all others are about one of its values
        return any(leaf not in {None, ""} for leaf in leaves) if rule["exists"] else not leaves
    return any(_fits(rule, leaf) for leaf in leaves)


def _fits(rule: Any, leaf: Any) -> bool:
    if not isinstance(rule, Mapping):
        return _is_same(rule, leaf)
    (operator, operand), *_ = rule.items()
    if operator == "anything-but":
        excluded = operand if isinstance(operand, list) else [operand]
        return not any(_fits(each, leaf) for each in excluded)
    if operator == "numeric":
        return _is_number(leaf) and _is_in_range(round(float(leaf), DIGITS), operand)
    return isinstance(leaf, str) and _text_fits(operator, operand, leaf)


def _is_same(wanted: Any, leaf: Any) -> bool:
    if _is_number(wanted) and _is_number(leaf):
        return bool(round(wanted, DIGITS) == round(leaf, DIGITS))
    return type(wanted) is type(leaf) and bool(wanted == leaf)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _is_in_range(number: float, expression: Sequence[Any]) -> bool:
    """Read `[">", 0, "<=", 150]`."""
    pairs = zip(expression[::2], expression[1::2], strict=True)
    return all(_COMPARISONS[operator](number, round(float(bound), DIGITS)) for operator, bound in pairs)


def _text_fits(operator: str, operand: str, text: str) -> bool:
    match operator:
        case "prefix":
            return text.startswith(operand)
        case "suffix":
            return text.endswith(operand)
        case "equals-ignore-case":
            return text.lower() == operand.lower()
        case "wildcard":
            return _pattern(operand).fullmatch(text) is not None
        case "cidr":
            return _is_in_network(text, operand)
        case _:
            return False


@cache
def _pattern(wildcard: str) -> re.Pattern[str]:
    """`*` stands for any text, an empty one too; everything else for itself."""
    return re.compile(".*".join(map(re.escape, wildcard.split("*"))), re.DOTALL)


def _is_in_network(text: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(text) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
