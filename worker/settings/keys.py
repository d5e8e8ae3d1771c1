"""Keys that are no settings, and settings without a value: refused before anything else is looked at."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from worker.errors import ConfigError
from worker.settings.base import KeyPath, found
from worker.settings.schema import Node, allowed, is_mapping, options, properties, root, step

__all__ = ["checked", "dotted", "nearest"]


def checked(raw: Mapping[Any, Any], where: str) -> dict[Any, Any]:
    """Return the file's content with empty sections as empty mappings; raise `ConfigError` for the first bad key."""
    return _section(raw, root(), (), where)


def dotted(path: KeyPath) -> str:
    """Return a path as it is written in sentences: `queues.orders.subscribe[0].topic`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{_in_one_line(key)}" for key in path).removeprefix(".")


def _in_one_line(key: str) -> str:
    return key if key.isprintable() else repr(key)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known word that was probably meant, whatever its case: one that is alike, or begins or ends with it."""
    lower = word.lower()
    spelled = {each.lower(): each for each in known}
    alike = difflib.get_close_matches(lower, spelled, n=1, cutoff=cutoff)
    parts = (each for each in spelled if each.startswith(f"{lower}_") or each.endswith(f"_{lower}"))
    meant = alike[0] if alike else next(parts, None)
    return meant and spelled[meant]


def _checked(raw: Any, node: Node, path: KeyPath, where: str) -> Any:
    if isinstance(raw, list):
        return [_checked(item, step(node, i) or {}, (*path, i), where) for i, item in enumerate(raw)]
    return _section(raw, node, path, where) if isinstance(raw, dict) else raw


def _section(raw: Mapping[Any, Any], node: Node, path: KeyPath, where: str) -> dict[Any, Any]:
    known = properties(node)
    section: dict[Any, Any] = {}
    for key, value in raw.items():
        if known and key not in known:
            raise ConfigError(f"{where}: {dotted((*path, str(key)))} is not a setting; {_advice(key, known)}")
        if not isinstance(key, str):
            raise ConfigError(
                f"{where}: {dotted(path)} has the key {found(key)}, but a key must be text: put it in quotes"
            )
        section[key] = _filled(value, step(node, key) or {}, (*path, key), where)
    return section


def _filled(value: Any, node: Node, path: KeyPath, where: str) -> Any:
    if value is None and node and not any(option.get("type") in {"null", None} for option in options(node)):
        if is_mapping(node):  # a section whose keys are all commented out
            return {}
        raise ConfigError(f"{where}: {dotted(path)} is {found(value)}, but must be {allowed(node)}")
    return _checked(value, node, path, where)


def _advice(key: Any, known: Mapping[str, Node]) -> str:
    """Say what was probably meant: a neighbour, a key one level down, or else everything that there is."""
    for name, inner in known.items():
        if key in properties(inner):
            return f"did you mean {name}.{key}?"
    meant = nearest(str(key), known)
    return f"did you mean {meant}?" if meant else f"the settings there are {', '.join(known)}"
