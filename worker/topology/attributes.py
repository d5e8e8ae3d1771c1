"""Comparing attributes: what the fleet file says with what AWS has, by meaning."""

import json
from collections.abc import Iterable, Iterator, Mapping

from worker.topology.change import Action, Change, Difference

__all__ = ["differences", "foreign", "tag_differences"]


def differences(wanted: Mapping[str, str | None], found: Mapping[str, str]) -> list[Difference]:
    """Return where AWS has something else than wanted; `None` wants an attribute not to be set, other names are not looked at."""
    return [
        Difference(name, found.get(name) or None, value)
        for name, value in wanted.items()
        if _meaning(found.get(name)) != _meaning(value)
    ]


def tag_differences(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[Difference]:
    """Return the tags that are missing or have another value."""
    named = {f"tag {key}": value for key, value in found.items()}
    return differences({f"tag {key}": value for key, value in wanted.items()}, named)


def foreign(kind: str, name: str, attributes: Iterable[tuple[str, str]]) -> Iterator[Change]:
    """Yield one change that shows what someone else has written on a resource; nothing where there is nothing."""
    shown = tuple(Difference(attribute, value, value) for attribute, value in attributes)
    if shown:
        yield Change(Action.FOREIGN, kind, name, shown)


def _meaning(value: str | None) -> str | None:
    """AWS writes JSON in an order of its own, and no policy as an empty one or not at all."""
    if value is None or value in {"", "{}"}:
        return None
    if not value.startswith("{"):
        return value
    try:
        return json.dumps(json.loads(value), sort_keys=True)
    except ValueError:
        return value
