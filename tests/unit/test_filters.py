"""Rules of `worker.topology.filters` and of what it refuses: the examples of SNS's developer guide, and SNS's own answers."""

import json
from typing import Any

import pytest

from worker.message import Attribute
from worker.topology.filter_problems import problems
from worker.topology.filters import MESSAGE_ATTRIBUTES, MESSAGE_BODY, matches


def text(value: str) -> Attribute:
    return Attribute("String", value)


def number(value: str) -> Attribute:
    return Attribute("Number", value)


def array(*values: Any) -> Attribute:
    return Attribute("String.Array", json.dumps(values))


def in_attributes(policy: dict[str, Any], **attributes: Attribute) -> bool:
    return matches(policy, MESSAGE_ATTRIBUTES, attributes, "no JSON")


def in_body(policy: dict[str, Any], body: Any) -> bool:
    return matches(policy, MESSAGE_BODY, {}, json.dumps(body))


@pytest.mark.parametrize(
    ("rules", "fitting", "other"),
    [
        (["rugby", "tennis"], ["rugby", "tennis"], ["baseball", "Rugby", ""]),
        ([{"prefix": "bas"}], ["baseball", "basketball"], ["rugby", "Bas"]),
        ([{"suffix": "ball"}], ["baseball", "ball"], ["balls"]),
        ([{"equals-ignore-case": "Tennis"}], ["tennis", "TENNIS"], ["tennis ", "baseball"]),
        ([{"wildcard": "*ball"}], ["baseball", "ball"], ["rugby", "balls"]),
        ([{"wildcard": "*/src/*.js"}], ["app/src/index.js", "/src/.js"], ["app/src/index.ts"]),
        ([{"wildcard": "a.c*"}], ["a.c\nd"], ["abc"]),
        ([{"anything-but": "rugby"}], ["baseball"], ["rugby"]),
        ([{"anything-but": ["rugby", "tennis"]}], ["baseball", "football"], ["rugby", "tennis"]),
        ([{"anything-but": {"prefix": "order-"}}], ["data-entry", "order_number"], ["order-cancelled"]),
        ([{"anything-but": {"wildcard": "*ball"}}], ["hockey"], ["baseball", "basketball"]),
        ([{"cidr": "10.0.0.0/24"}], ["10.0.0.0", "10.0.0.255"], ["10.1.1.0", "here"]),
        ([{"cidr": "2001:db8::/32"}], ["2001:db8::1"], ["10.0.0.1"]),
        ([{"exists": True}], ["fans"], [""]),
        (["rugby", {"prefix": "bas"}], ["rugby", "baseball"], ["tennis"]),
    ],
)
def test_text_is_matched_in_attributes_and_body_alike(rules: list[Any], fitting: list[str], other: list[str]) -> None:
    for value in [*fitting, *other]:
        expected = value in fitting
        assert in_attributes({"key": rules}, key=text(value)) is expected, value
        assert in_attributes({"key": rules}, key=array(value)) is expected, value
        assert in_body({"key": rules}, {"key": value}) is expected, value
        assert in_body({"key": rules}, {"key": [value]}) is expected, value


@pytest.mark.parametrize(
    ("rules", "fitting", "other"),
    [
        ([301.5], ["301.5", "3.015e2", "301.500001"], ["301", "302"]),
        ([{"numeric": ["=", 301.5]}], ["301.5", "3.015e2"], ["301.51"]),
        ([{"numeric": ["<", 0]}], ["-1", "-0.5"], ["0", "1"]),
        ([{"numeric": [">", 0, "<=", 150]}], ["0.1", "150"], ["0", "150.1", "-1"]),
        ([{"numeric": [">=", 0, "<", 150]}], ["0", "149.9"], ["150"]),
        ([{"anything-but": [100, 500]}], ["101", "100.1"], ["100", "500", "1e2"]),
        ([{"anything-but": 100}], ["101"], ["100"]),
        ([{"numeric": [">", 0]}], ["1000000000"], ["1000000001"]),
        ([{"exists": True}], ["0"], []),
    ],
)
def test_numbers_are_matched_by_value(rules: list[Any], fitting: list[str], other: list[str]) -> None:
    """To five digits, from -10^9 to 10^9."""
    for value in [*fitting, *other]:
        expected = value in fitting
        assert in_attributes({"key": rules}, key=number(value)) is expected, value
        assert matches({"key": rules}, MESSAGE_BODY, {}, f'{{"key": {value}}}') is expected, value


def test_text_is_no_number_and_a_number_no_text() -> None:
    assert not in_attributes({"key": [100]}, key=text("100"))
    assert not in_attributes({"key": ["100"]}, key=number("100"))
    assert not in_attributes({"key": [{"prefix": "1"}]}, key=number("100"))
    assert not in_attributes({"key": [{"numeric": [">", 0]}]}, key=text("100"))
    assert not in_body({"key": [100]}, {"key": "100"})
    assert not in_body({"key": [1]}, {"key": True})
    assert in_body({"key": [1234567890123]}, {"key": 1234567890123})


@pytest.mark.parametrize("value", [True, False, None])
def test_keywords_match_themselves(*, value: bool | None) -> None:
    for other in (True, False, None, 0, 1, "true", "null"):
        assert in_body({"key": [value]}, {"key": other}) is (other is value)
        assert in_attributes({"key": [value]}, key=array(other)) is (other is value)
    assert not in_attributes({"key": [value]}, key=text(json.dumps(value)))


def test_an_operator_that_sns_does_not_know_matches_nothing() -> None:
    assert not in_attributes({"key": [{"starts-with": "a"}]}, key=text("abc"))


def test_one_element_of_an_array_is_enough() -> None:
    """For anything-but, too: an element that is not excluded is enough."""
    policy = {"sports": [{"anything-but": ["rugby", "tennis"]}]}
    assert in_attributes(policy, sports=array("rugby", "baseball"))
    assert in_body(policy, {"sports": ["rugby", "baseball"]})
    assert not in_attributes(policy, sports=array("rugby", "tennis"))
    assert in_body({"key": ["a"]}, {"key": [["b"], [["a"]]]})


@pytest.mark.parametrize(
    ("body", "is_there"),
    [
        ({"store": "x"}, True),
        ({"store": 0}, True),
        ({"store": False}, True),
        ({"other": "x"}, False),
        ({"other": "x", "store": []}, False),
        ({"other": "x", "store": {"a": 1}}, False),
    ],
)
def test_existence_is_about_leaves(body: Any, *, is_there: bool) -> None:
    assert in_body({"store": [{"exists": True}]}, body) is is_there
    assert in_body({"store": [{"exists": False}]}, body) is not is_there


@pytest.mark.parametrize("value", [None, ""])
def test_what_is_null_or_empty_neither_exists_nor_is_absent(value: str | None) -> None:
    """SNS wants a value that is neither for `exists: true`, and no property at all for `exists: false`."""
    assert not in_body({"store": [{"exists": True}]}, {"store": value})
    assert not in_body({"store": [{"exists": False}]}, {"store": value})


def test_absence_needs_something_else_to_be_there() -> None:
    """An empty set of attributes matches no filter."""
    policy = {"store": [{"exists": False}]}
    assert not in_attributes(policy)
    assert not in_body(policy, {})
    assert in_attributes(policy, other=text("x"))


def test_binary_attributes_and_arrays_that_are_none_are_not_there() -> None:
    assert in_attributes({"a": [{"exists": False}]}, a=Attribute("Binary", b"x"), b=text("x"))
    assert in_attributes({"a": [{"exists": False}]}, a=Attribute("String.Array", "no JSON"), b=text("x"))
    assert not in_attributes({"a": [{"anything-but": "x"}]}, a=Attribute("String.Array", '"text"'), b=text("x"))


@pytest.mark.parametrize("body", ["plain text", '"quoted"', "[1]", "null", "", "{"])
def test_a_body_that_is_no_object_matches_nothing(body: str) -> None:
    assert not matches({"a": [{"exists": False}]}, MESSAGE_BODY, {"b": text("x")}, body)


NESTED = {
    "object": {"key": [{"prefix": "auto-"}, "fixed"], "nested_key": [{"exists": False}]},
    "test": [{"exists": False}],
}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"object": {"key": "auto-test"}}, True),
        ({"object": {"key": "fixed"}}, True),
        ({"object": {"key": "test-auto"}}, False),
        ({"object": {"key": "auto-test"}, "test": "there"}, False),
        ({"object": {"key": "auto-test", "nested_key": "there"}}, False),
        ({"object": {"test": "auto-test"}}, False),
        ({"test": "auto-test"}, False),
    ],
)
def test_a_body_is_matched_as_it_is_nested(body: Any, *, expected: bool) -> None:
    assert in_body(NESTED, body) is expected


def test_one_object_of_an_array_must_hold_as_a_whole() -> None:
    """S3's events are such; objects may lie in arrays of arrays."""
    policy = {
        "Records": {"s3": {"object": {"key": [{"prefix": "auto-"}]}}, "eventName": [{"prefix": "ObjectCreated:"}]}
    }
    created = {"eventName": "ObjectCreated:Put", "s3": {"object": [[{"key": "auto-1.xml"}]]}}
    removed = {"eventName": "ObjectRemoved:Delete", "s3": {"object": {"key": "auto-2.xml"}}}
    home = {"eventName": "ObjectCreated:Put", "s3": {"object": {"key": "home-1.xml"}}}
    assert in_body(policy, {"Records": [created, removed]})
    assert not in_body(policy, {"Records": [removed, home]})
    assert not in_body(policy, {"Records": []})


def test_what_lies_nowhere_is_absent_below() -> None:
    assert in_body({"a": {"b": [{"exists": False}]}}, {"c": 1})
    assert in_body({"a": {"b": [{"exists": False}]}}, {"a": "text", "c": 1})


def test_or_joins_keys() -> None:
    policy = {
        "source": ["aws.cloudwatch"],
        "$or": [{"metricName": ["CPUUtilization"]}, {"namespace": ["AWS/EC2"], "scope": ["Service"]}],
    }
    source = text("aws.cloudwatch")
    assert in_attributes(policy, source=source, metricName=text("CPUUtilization"))
    assert in_attributes(policy, source=source, namespace=text("AWS/EC2"), scope=text("Service"))
    assert not in_attributes(policy, source=source, namespace=text("AWS/EC2"))
    assert not in_attributes(policy, metricName=text("CPUUtilization"))
    assert in_body({"detail": {"$or": [{"a": [1]}, {"b": [2]}]}}, {"detail": {"b": 2}})


def test_or_is_a_name_like_any_other_unless_it_joins_mappings() -> None:
    assert matches({"$or": ["a", "b"]}, MESSAGE_ATTRIBUTES, {"$or": text("b")}, "")
    assert matches({"$or": [{"prefix": "x"}, {"suffix": "y"}]}, MESSAGE_BODY, {}, '{"$or": "xa"}')


FINE: list[dict[str, Any]] = [
    {"event_type": ["order.created", "order.updated"]},
    {"a": ["x", 1, -1.5, True, False, None, {"exists": True}]},
    {"a": [{"numeric": [">", 0, "<=", 150]}, {"numeric": ["=", 1_000_000_000]}]},
    {"a": [{"anything-but": "x"}, {"anything-but": [1, 2]}, {"anything-but": {"prefix": "p"}}]},
    {"a": [{"wildcard": "*a*b*"}, {"cidr": "10.0.0.0/24"}, {"equals-ignore-case": "X"}, {"suffix": "x"}]},
    {"$or": [{"a": ["x"]}, {"b": ["y"]}], "c": ["z"]},
    {"a": ["x"] * 150},
    # 3 * 6 + 3 * 4 * 4 + 3 * 4 * 7 = 150
    {
        "source": ["x"] * 3,
        "$or": [{"m": ["x"] * 6}, {"t": ["x"] * 4, "$or": [{"i": ["x"] * 4}, {"s": ["x"] * 7}]}],
    },
    {"a": [{"wildcard": f"*/{n}/*"} for n in range(4)]},
]
FINE_IN_BODIES: list[dict[str, Any]] = [
    {"a": {"b": {"c": [1]}}},
    {"a": {"b": [1]}, "$or": [{"a": {"c": [1]}}, {"a": {"d": [1]}}]},
    {"Records": {"s3": {"object": {"key": [{"prefix": str(n)} for n in range(36)]}}}},  # 4 * 36 = 144
]


@pytest.mark.parametrize("policy", FINE)
def test_what_sns_takes_is_not_refused(policy: dict[str, Any]) -> None:
    assert problems(policy, MESSAGE_ATTRIBUTES) == []
    assert problems(policy, MESSAGE_BODY) == []


@pytest.mark.parametrize("policy", FINE_IN_BODIES)
def test_only_a_filter_on_the_body_nests(policy: dict[str, Any]) -> None:
    key = next(iter(policy))
    assert problems(policy, MESSAGE_BODY) == []
    assert problems(policy, MESSAGE_ATTRIBUTES)[0] == (
        f"{key} is a mapping, but attributes are not nested: write a list, or filter_scope: MessageBody"
    )


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "the filter is empty"),
    ({str(n): ["x"] for n in range(6)}, "the filter has 6 keys, but SNS takes at most 5"),
    ({"a": ["x"] * 151}, "the filter has 151 combinations"),
    ({"a": ["x"] * 100, "b": ["y"] * 51}, "the filter has 5100 combinations"),
    # 4 * 6 + 4 * 4 * 4 + 4 * 4 * 4 = 152
    (
        {"s": ["x"] * 4, "$or": [{"m": ["x"] * 6}, {"t": ["x"] * 4, "$or": [{"i": [1] * 4}, {"j": [1] * 4}]}]},
        "the filter has 152 combinations",
    ),
    ({"a": [{"wildcard": f"*/{n}/*"} for n in range(5)]}, "the filter's wildcards cost 150 points"),
    ({"a": ["x" * 262_144]}, "the filter has 262155 bytes of JSON, but SNS takes at most 262144"),
    ({"a": "x"}, "a is 'x', but must be a list of at least one alternative"),
    ({"a": []}, "a is an empty list, but must be a list of at least one alternative"),
    ({"a": [["x"]]}, "a.0 is a list, but must be text, a number, true, false, null or an operator"),
    ({"a": ["y", {"starts-with": "x"}]}, "a.1 has the operator starts-with, but SNS knows anything-but, cidr"),
    ({"a": [{"suffix": "x", "prefix": "y"}]}, "a.0 has the keys suffix, prefix, but must have one operator"),
    ({"a": [{}]}, "a.0 has the keys none, but must have one operator"),
    ({"a": [{"suffix": 100}]}, "a.0.suffix is 100, but must be text"),
    ({"a": [{"prefix": None}]}, "a.0.prefix is empty, but must be text"),
    ({"a": [{"equals-ignore-case": ["x"]}]}, "a.0.equals-ignore-case is a list, but must be text"),
    ({"a": [{"exists": "no"}]}, "a.0.exists is 'no', but must be true or false"),
    ({"a": [{"exists": None}]}, "a.0.exists is empty, but must be true or false"),
    ({"a": [{"wildcard": "*a*b*c*"}]}, "a.0.wildcard is '*a*b*c*', but must have at most 3 wildcards"),
    ({"a": [{"wildcard": "a**"}]}, "a.0.wildcard is 'a**', but must have at most 3 wildcards, never two in a row"),
    ({"a": [{"wildcard": 1}]}, "a.0.wildcard is 1, but must be text"),
    ({"a": [{"cidr": "10.0.0.0"}]}, "a.0.cidr is '10.0.0.0', but must be a network such as 10.0.0.0/24"),
    ({"a": [{"cidr": "10.0.0.0/x"}]}, "a.0.cidr is"),
    ({"a": [{"cidr": "10.0.0.300/8"}]}, "a.0.cidr is"),
    ({"a": [{"anything-but": []}]}, "a.0.anything-but is [], but must be text, a number"),
    ({"a": [{"anything-but": [1, "x"]}]}, 'a.0.anything-but is [1, "x"], but must be text, a number'),
    ({"a": [{"anything-but": None}]}, "a.0.anything-but is null, but must be text, a number"),
    ({"a": [{"anything-but": [True]}]}, "a.0.anything-but is [true], but must be text, a number"),
    ({"a": [{"anything-but": {"suffix": "x"}}]}, 'a.0.anything-but is {"suffix": "x"}, but of the operators SNS takes'),
    ({"a": [{"anything-but": {"prefix": ""}}]}, 'a.0.anything-but is {"prefix": ""}, but of the operators SNS takes'),
    ({"a": [{"anything-but": {"exists": False}}]}, "a.0.anything-but is"),
    ({"a": [{"anything-but": {"wildcard": "**"}}]}, "a.0.anything-but.wildcard is '**', but must have at most"),
    ({"$or": [{"a": ["x"]}]}, "$or must hold at least two mappings without names of operators to mean OR"),
    ({"$or": [{"numeric": 123}, {"prefix": "abc"}]}, "$or must hold at least two mappings without names of operators"),
    ({"$or": [{}, {"a": ["x"]}]}, "$or.0 is an empty mapping, but must have a key"),
    ({"$or": [{"b": []}, {"a": ["x"]}]}, "$or.0.b is an empty list"),
    ({"a": ["y"], "$or": [{"b": ["z"]}, {"a": ["x"]}]}, "$or has a, which stands beside it too, but SNS cannot ask"),
]
NUMERIC: list[tuple[Any, str]] = [
    ([], "must be a comparison"),
    (["operator"], "must be a comparison"),
    ([1, "<="], "must be a comparison"),
    (["=", "000"], "must be a comparison"),
    ([">="], "must be a comparison"),
    (["=", True], "must be a comparison"),
    (["<", 100, ">", 10], "must be a comparison"),
    ([">=", 1, ">", 2], "must be a comparison"),
    ([">", 20, "<="], "must be a comparison"),
    ([">", 20, 30], "must be a comparison"),
    ([">", 20, "<", "30"], "must be a comparison"),
    ([">", 20, "<", 30, "<", 50], "must be a comparison"),
    (5, "must be a comparison"),
    ([">", 3, "<", 1], "the lower bound must be less than the upper one"),
    ([">=", 3, "<=", 3], "the lower bound must be less than the upper one"),
    (["<", 1_000_000_001], "SNS compares numbers from -10^9 to 10^9 only"),
]


@pytest.mark.parametrize(("policy", "sentence"), REFUSED)
def test_what_sns_refuses_is_refused_before_it_is_asked(policy: dict[str, Any], sentence: str) -> None:
    """One sentence that names the key, what was found and what is allowed (X1)."""
    for scope in (MESSAGE_ATTRIBUTES, MESSAGE_BODY):
        (problem,) = problems(policy, scope)
        assert problem.startswith(sentence)


@pytest.mark.parametrize(("expression", "sentence"), NUMERIC)
def test_a_comparison_is_checked_as_a_whole(expression: Any, sentence: str) -> None:
    (problem,) = problems({"a": [{"numeric": expression}]}, MESSAGE_ATTRIBUTES)
    assert problem.startswith(f"a.0.numeric is {json.dumps(expression)}, but {sentence}")


def test_a_nested_mistake_is_named_by_its_path() -> None:
    policy = {"a": {"b": {}, "c": "x"}, "d": {"$or": [{"e": [{"oops": 1}]}, {"f": [1]}]}}
    assert [problem.split(",")[0] for problem in problems(policy, MESSAGE_BODY)] == [
        "a.b is an empty mapping",
        "a.c is 'x'",
        "d.$or.0.e.0 has the operator oops",
    ]


def test_nesting_counts_for_every_level() -> None:
    """SNS's example: 3 x 4 x 2 x 3 x 1 x 3 = 216."""
    policy = {"a": {"b": {"c": ["x"] * 4}}, "d": {"e": ["x"] * 3}, "f": ["x"] * 3}
    (problem,) = problems(policy, MESSAGE_BODY)
    assert problem.startswith("the filter has 216 combinations")
