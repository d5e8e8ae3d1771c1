"""Strategies for values: whatever the schema allows, for fleets that a worker takes."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from helm.chart import CHART
from hypothesis import strategies as st

__all__ = ["SCHEMA", "allowed", "breakable", "mistakes_in"]

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
HANDED_ON = {
    "envFrom",
    "volumes",
    "volumeMounts",
    "tolerations",
    "topologySpreadConstraints",
    "extraManifests",
    "extraRules",
}
"""Lists of what Kubernetes or Prometheus define: the schema of the values does not say what they hold."""
BUILT = {"fleet", "groups", "env"}
"""Values that have to fit each other."""
QUEUES = ("orders", "emails", "payments.fifo", "arn:aws:sqs:eu-central-1:123456789012:audit")
KEYS = st.sampled_from(["team", "example.com/owner", "a.b-c_d", "no", "1"])
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn", "Co")), max_size=12
) | st.sampled_from(
    [
        "yes",
        "null",
        "1.10",
        "{{ .Values }}",
        "a: b",
        "# no",
        "- x",
        '"',
        "'",
        "1e3",
        "0x1f",
        "line\nline",
        " ",
        "%",
        "|",
        "&a",
        "*",
    ]
)


@st.composite
def allowed(draw: st.DrawFn) -> dict[str, Any]:
    """Return values that the schema allows: a fleet, its groups, and some other values of any kind."""
    queues = draw(st.lists(st.sampled_from(QUEUES), min_size=1, max_size=3, unique=True))
    fleet = {**draw(_fleets()), "queues": {queue: draw(_queues()) for queue in queues}}
    free = sorted(set(SCHEMA["properties"]) - BUILT - HANDED_ON - {"global"})
    chosen = draw(st.lists(st.sampled_from(free), max_size=5, unique=True))
    values = {key: draw(_of(SCHEMA["properties"][key])) for key in chosen}
    if draw(st.booleans()):
        values["groups"] = draw(_groups([re.sub(r"^.*[:/]", "", queue) for queue in queues]))
    if draw(st.booleans()):
        values["env"] = [{"name": "GIVEN", "value": draw(TEXT)}]
    return {**values, "fleet": fleet}


@st.composite
def _fleets(draw: st.DrawFn) -> dict[str, Any]:
    fleet: dict[str, Any] = {"service": draw(st.sampled_from(["shop", "orders-1"]))}
    fleet |= draw(st.fixed_dictionaries({}, optional={"drain_seconds": st.integers(25, 3600)}))
    fleet |= draw(st.fixed_dictionaries({}, optional={"max_running_handlers": st.integers(1, 100_000)}))
    return {**fleet, "aws": {"region": "eu-central-1"}} if draw(st.booleans()) else fleet


@st.composite
def _queues(draw: st.DrawFn) -> dict[str, Any]:
    optional = {
        "concurrency": st.integers(1, 1000),
        "retention_seconds": st.integers(4000, 1_209_600),
        "handler_timeout_seconds": st.floats(0.001, 3000),
        "tags": st.dictionaries(KEYS, TEXT, max_size=2),
    }
    return {"handlers": "shop.handlers:orders", **draw(st.fixed_dictionaries({}, optional=optional))}


@st.composite
def _groups(draw: st.DrawFn, queues: list[str]) -> dict[str, Any]:
    """Return groups that share the queues out."""
    names = draw(
        st.lists(st.sampled_from(["a", "1", "null", "on", "mail-2"]), min_size=1, max_size=len(queues), unique=True)
    )
    properties = SCHEMA["$defs"]["group"]["properties"]
    optional = {key: _of(node) for key, node in properties.items() if key not in HANDED_ON | BUILT | {"queues"}}
    groups = {name: {**draw(st.fixed_dictionaries({}, optional=optional)), "queues": []} for name in names}
    for position, queue in enumerate(queues):
        groups[names[position % len(names)]]["queues"].append(queue)
    return groups


def _of(node: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for what a part of the schema allows."""
    if "$ref" in node:
        return _of(SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")])
    if "enum" in node:
        return st.sampled_from(node["enum"])
    if "anyOf" in node:
        return st.one_of([_of(each) for each in node["anyOf"]])
    return _KINDS.get(str(node["type"]), _quantities)(node)


def _quantities(_: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(["1", "250m", "64Mi"])


def _lists(node: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Only lists of what the schema closes; the others are of things that Kubernetes defines."""
    return st.lists(_of(node["items"]), max_size=2) if "properties" in node["items"] else st.just([])


def _objects(node: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" in node:
        required = node.get("required", ())
        members = {key: _of(inner) for key, inner in node["properties"].items() if key not in HANDED_ON}
        return st.fixed_dictionaries(
            {key: members[key] for key in required},
            optional={key: each for key, each in members.items() if key not in required},
        )
    others = node.get("additionalProperties")
    return st.dictionaries(KEYS, _of(others), max_size=2) if others else st.just({})


def _texts(node: Mapping[str, Any]) -> st.SearchStrategy[str]:
    if "pattern" not in node:
        return TEXT
    ascii_text = st.from_regex(re.compile(node["pattern"], re.ASCII), fullmatch=True)
    return ascii_text.filter(
        lambda text: (
            text.isascii()
            and text.isprintable()
            and node.get("minLength", 0) <= len(text) <= node.get("maxLength", 100)
        )
    )


_KINDS: dict[str, Callable[[Mapping[str, Any]], st.SearchStrategy[Any]]] = {
    "object": _objects,
    "array": _lists,
    "string": _texts,
    "integer": lambda node: st.integers(node["minimum"], node["maximum"]),
    "number": lambda node: st.floats(node["minimum"], node["maximum"]),
    "boolean": lambda _: st.booleans(),
    "null": lambda _: st.none(),
}


def mistakes_in(node: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for what that part of the schema does not allow."""
    kinds: dict[str, Any] = {
        "string": 5,
        "integer": "five",
        "number": "five",
        "boolean": "yes",
        "array": {"a": 1},
        "object": [1],
    }
    kind = node.get("type")
    return st.just(kinds.get(kind, [[]]) if isinstance(kind, str) else [[]])


def breakable(
    node: Mapping[str, Any] = SCHEMA, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the path of every value that the schema names, and what it says of it; in a group and a queue, too."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if path and path[-1] != "global":
        yield path, node
    for key, inner in node.get("properties", {}).items():
        yield from breakable(inner, (*path, key))
    if path in {("groups",), ("fleet", "queues")}:
        yield from breakable(node["additionalProperties"], (*path, "orders"))
