"""The fleet file as YAML: only what JSON can say too, each key once, and each mistake with its line."""

import re
from collections.abc import Hashable
from typing import Any

import yaml

from worker.errors import ConfigError
from worker.settings.base import found

__all__ = ["parse", "parse_value"]


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2's core schema does: `no` is text, `010` is ten, `12:30` and dates are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the place where PyYAML looks for them


_PLAIN = {
    "null": (r"null|Null|NULL|~|", "nN~\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]{1,18}", "-+0123456789"),
    "float": (r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    "merge": (r"<<", "<"),
}
for _kind, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), ["" if c == "\0" else c for c in _first]
    )


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Any:
    """PyYAML lets the last of two equal keys win, in silence."""
    mapping: dict[Hashable, Any] = {}
    yield mapping
    lines: dict[Hashable, int] = {}
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
        if key in lines:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {found(key)} is there already, on line {lines[key]}", key_node.start_mark
            )
        lines[key] = line
    mapping.update(loader.construct_mapping(node, deep=False))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    return float(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse(content: bytes, where: str) -> dict[Any, Any]:
    """Return the mapping in a fleet file; raise `ConfigError`, which starts with `where`, when it has none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{where}: line {line} has the byte 0x{content[error.start]:02x}, which is not UTF-8: save the file as UTF-8"
        ) from None
    document = _load(text, where)
    if document is None:
        raise ConfigError(
            f"{where} is empty, but must name at least one queue with its handlers: see fleet.example.yaml"
        )
    if not isinstance(document, dict):
        raise ConfigError(f"{where} is {found(document)} at its top, but must be a mapping: see fleet.example.yaml")
    return document


def parse_value(text: str, where: str) -> Any:
    """Return the YAML value that an environment variable holds; raise `ConfigError` when it is no YAML."""
    return _load(text, where)


def _load(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - derived from SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        hint = "indent with spaces, tabs are not allowed" if "'\\t'" in (error.problem or "") else error.problem
        raise ConfigError(f"{where} is not YAML: {place}{hint or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"{where} is not YAML: the character #x{error.character:04x} at position {error.position} is not allowed"
        ) from None
    except RecursionError:
        raise ConfigError(f"{where} is not a fleet file: it is nested too deeply") from None
    except ValueError as error:  # a value that does not fit its tag: `!!int x`
        raise ConfigError(f"{where} is not YAML: {error}") from None
