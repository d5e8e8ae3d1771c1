"""The JSON schema of the fleet file, and what can be read off it: the keys of a section, and what a value may be."""

import copy
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from worker.settings.base import Key, KeyPath
from worker.settings.fleet import FleetSettings

__all__ = [
    "Node",
    "allowed",
    "below",
    "find",
    "is_free",
    "is_list",
    "is_mapping",
    "options",
    "properties",
    "root",
    "schema",
    "step",
]

Node = Mapping[str, Any]
"""A schema or a part of it."""

_PLAIN_WORDS = {"boolean": "true or false", "string": "text", "object": "a mapping"}


def schema() -> dict[str, Any]:
    """Return the JSON schema of the fleet file, for editors (draft 2020-12)."""
    return copy.deepcopy(_document())


def root() -> Node:
    """Return the schema itself, which is not to be changed."""
    return _document()


def options(node: Node) -> tuple[Node, ...]:
    """Return the alternatives that a value may follow, references resolved."""
    if "$ref" in node:
        target = _document()["$defs"][node["$ref"].rpartition("/")[2]]
        return options({**target, **{key: value for key, value in node.items() if key != "$ref"}})
    if "anyOf" in node:
        told = {key: value for key, value in node.items() if key.startswith("x-")}
        return tuple(
            option
            for each in node["anyOf"]
            for option in options(each if each.get("type") == "null" else {**each, **told})
        )
    return (node,)


def properties(node: Node) -> dict[str, Node]:
    """Return the keys that a section knows by name."""
    return {key: value for option in options(node) for key, value in option.get("properties", {}).items()}


def step(node: Node, key: Key) -> Node | None:
    """Return the schema of a section's key or a list's item; `None` when there can be none."""
    for option in options(node):
        known = option.get("properties", {}).get(key)
        others = option.get("items") if isinstance(key, int) else option.get("additionalProperties")
        if known is not None:
            return dict(known)
        if others is True or isinstance(others, Mapping):
            return {} if others is True else others
    return None


def find(path: KeyPath) -> tuple[KeyPath, Node]:
    """Return the schema at a path, `{}` where there is none.

    The path comes back without the names of alternatives that pydantic puts into the paths of its errors.
    """
    node: Node = root()
    known: KeyPath = ()
    for key in path:
        inner = step(node, key)
        if inner is None and len(options(node)) > 1:
            continue
        node, known = inner or {}, (*known, key)
    return known, node


def below(node: Node) -> Node | None:
    """Return the section that the value is, or that each of its members is; `None` for plain values."""
    for option in options(node):
        for section in (option, option.get("additionalProperties"), option.get("items")):
            if isinstance(section, Mapping) and properties(section):
                return next(each for each in options(section) if "properties" in each)
    return None


def description(node: Node) -> str:
    """Return what a setting is for: its own docstring, else that of its section."""
    return str({**options(node)[0], **node}["description"])


def is_list(node: Node) -> bool:
    """Whether the value is a list."""
    return any(option.get("type") == "array" for option in options(node))


def is_mapping(node: Node) -> bool:
    """Whether the value is a section or a mapping of names, and nothing else."""
    return all(option.get("type") == "object" for option in options(node))


def is_free(node: Node) -> bool:
    """Whether any keys may stand there, without sections below them (tags, filters)."""
    return below(node) is None


def allowed(node: Node) -> str:
    """Return in words what a value may be: `a whole number from 1 to 1000`."""
    words = dict.fromkeys(_in_words(option) for option in options(node) if option.get("type") != "null")
    may_be_null = any(option.get("type") == "null" for option in options(node))
    return " or ".join(words) + (", or null" if may_be_null else "")


def _in_words(option: Node) -> str:
    if "const" in option:
        return str(option["const"])
    if "enum" in option:
        return "one of " + ", ".join(option["enum"])
    if "x-allowed" in option:
        return str(option["x-allowed"])
    match option.get("type"):
        case "integer" | "number":
            return _number_in_words(option)
        case "array":
            return f"a list of {allowed(option['items'])}"
        case "object" if "properties" in option:
            return "a mapping with the keys " + ", ".join(option["properties"])
        case kind:
            return _PLAIN_WORDS.get(str(kind), "anything")


def _number_in_words(option: Node) -> str:
    kind = "a whole number" if option["type"] == "integer" else "a number"
    lowest = option.get("minimum")
    start = f"from {lowest}" if lowest is not None else f"above {option['exclusiveMinimum']}"
    return (
        f"{kind} {start} to {option['maximum']}"
        if lowest is not None
        else f"{kind} {start}, at most {option['maximum']}"
    )


@cache
def _document() -> dict[str, Any]:
    written = FleetSettings.model_json_schema(mode="validation")
    for node in _nodes(written):
        node.pop("title", None)
        if "x-default" in node:
            node.pop("default", None)
        if "description" in node:
            node["description"] = " ".join(node["description"].split())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Longshore fleet",
        **written,
    }


def _nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema in the schema; a property that happens to be called `title` is none."""
    yield node
    for key in ("properties", "$defs"):
        for inner in node.get(key, {}).values():
            yield from _nodes(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from _nodes(node[key])
    for inner in node.get("anyOf", ()):
        yield from _nodes(inner)
