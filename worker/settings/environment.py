"""The environment over the file: `LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY=4`, and AWS's usual variables."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from worker.errors import ConfigError
from worker.settings.address import by_name, environment_name
from worker.settings.base import KeyPath, found
from worker.settings.document import parse_value
from worker.settings.keys import dotted, nearest
from worker.settings.schema import Node, is_free, options, properties, root, step

__all__ = ["CONFIG_VARIABLE", "PREFIX", "Variables", "overridden"]

PREFIX = "LONGSHORE_"
CONFIG_VARIABLE = f"{PREFIX}CONFIG"
NEAR = 0.75
"""How alike a variable must be to a setting's name to be taken for a mistake, and not for something else's variable."""

Variables = Mapping[KeyPath, str]
"""Which variable gave a value."""

_AWS = (  # the first that is set wins; a value in the file, said for this fleet, wins over them all
    (("aws", "region"), ("AWS_REGION", "AWS_DEFAULT_REGION")),
    (("aws", "endpoint_url"), ("AWS_ENDPOINT_URL",)),
)
_SERVICES = ("dynamodb", "s3", "sns", "sqs", "sts")
_KUBERNETES = re.compile(  # what Kubernetes gives every pod beside a Service that is called longshore
    r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


def overridden(raw: dict[Any, Any], environ: Mapping[str, str]) -> tuple[dict[Any, Any], Variables]:
    """Return the file's content with the environment over it, and which variable gave what.

    Raises `ConfigError` for a variable that names no setting of this fleet but looks as if it was meant to: it never
    adds a queue, a topic or a key of its own.
    """
    given: dict[KeyPath, str] = {}
    variables = {name: text for name, text in sorted(environ.items()) if _is_ours(name, text)}
    known = _settings(raw) if variables else {}
    for name, text in variables.items():
        paths = known.get(name.upper().removeprefix(PREFIX), ())
        if not paths:
            _refuse_a_near_miss(name, known)
            continue
        if len(paths) > 1:
            raise ConfigError(f"{name} may mean {' or '.join(map(dotted, paths))}: rename one of them")
        path = paths[0]
        raw = _with(raw, path, _value(name, text, path), name)
        given[by_name(path)] = name
    return _with_aws(raw, environ, given), given


def _is_ours(name: str, text: str) -> bool:
    upper = name.upper()
    rest = upper.removeprefix(PREFIX)
    if upper in {rest, CONFIG_VARIABLE}:
        return False
    is_link = rest.split("_")[-1] == "PORT" and "://" in text
    return not (is_link or _KUBERNETES.fullmatch(rest))


def _settings(raw: dict[Any, Any]) -> dict[str, list[KeyPath]]:
    """Return the paths of all settings by how variables spell them; a queue's name with `__` in it may make two alike."""
    known: dict[str, list[KeyPath]] = {}
    for name, path in _spelled(root(), raw, (), ()):
        known.setdefault(name, []).append(path)
    return known


def _spelled(node: Node, raw: Any, path: KeyPath, names: tuple[str, ...]) -> Iterator[tuple[str, KeyPath]]:
    """Yield the variable of every setting that this fleet has: all keys of its sections, and the names in the file."""
    if names:
        yield "__".join(names), path
    members: dict[Any, Node] = dict(properties(node))
    if isinstance(raw, dict) and not members:
        members = {key: step(node, key) or {} for key in raw if isinstance(key, str)}
    elif isinstance(raw, list):
        members = {position: step(node, position) or {} for position in range(len(raw))}
    for key, inner in members.items():
        below = raw.get(key) if isinstance(raw, dict) else raw[key] if isinstance(raw, list) else None
        yield from _spelled(inner, below, (*path, key), (*names, environment_name(str(by_name((*path, key))[-1]))))


def _value(name: str, text: str, path: KeyPath) -> Any:
    """Read the text as the setting wants it: as it is where only text is allowed, else as YAML."""
    node: Node = root()
    for key in path:
        node = step(node, key) or {}
    kinds = {option.get("type") for option in options(node)}
    if kinds == {"string"} and not any("const" in option for option in options(node)):
        return text
    if kinds == {"string", "null"}:
        return None if text in {"", "null", "~"} else text
    value = parse_value(text, name)
    if isinstance(value, dict) and not is_free(node):
        raise ConfigError(
            f"{name} is a mapping, but must be one value: set each key of {dotted(path)} by a variable of its own"
        )
    return value


def _with(raw: Any, path: KeyPath, value: Any, name: str, above: KeyPath = ()) -> Any:
    """Return a copy of `raw` with the value at the path."""
    if not path:
        return value
    key, rest = path[0], path[1:]
    if isinstance(raw, list):
        return [_with(item, rest, value, name, (*above, key)) if i == key else item for i, item in enumerate(raw)]
    if raw is not None and not isinstance(raw, dict):
        raise ConfigError(
            f"{name} sets a key of {dotted(above)}, but that is {found(raw)}, which has no keys: remove one of them"
        )
    inside = raw or {}
    return {**inside, key: _with(inside.get(key), rest, value, name, (*above, key))}


def _with_aws(raw: dict[Any, Any], environ: Mapping[str, str], given: dict[KeyPath, str]) -> dict[Any, Any]:
    aws = raw.get("aws", {})
    if not isinstance(aws, dict):
        return raw
    aws = dict(aws)
    if aws.get("endpoint_url") is None:
        variables = {service: f"AWS_ENDPOINT_URL_{service.upper()}" for service in _SERVICES}
        set_ = {service: name for service, name in variables.items() if environ.get(name)}
        if set_:
            aws["service_endpoint_urls"] = {service: environ[name] for service, name in set_.items()}
        given |= {("aws", "service_endpoint_urls", service): name for service, name in set_.items()}
    for (section, key), names in _AWS:
        name = next((name for name in names if environ.get(name)), None)
        if name is None or aws.get(key) is not None:
            continue
        aws[key] = environ[name]
        given[section, key] = name
    return {**raw, "aws": aws} if aws else raw


def _refuse_a_near_miss(name: str, known: Iterable[str]) -> None:
    """Other programs and tests have variables of their own; what looks like a setting is refused."""
    rest = name.upper().removeprefix(PREFIX)
    flat = {each.replace("__", "_"): each for each in (*known, CONFIG_VARIABLE.removeprefix(PREFIX))}
    meant = nearest(rest.replace("__", "_"), flat, cutoff=0 if "__" in rest else NEAR)
    if meant is None:
        meant = next((each for each in flat if rest.startswith(f"{each}_")), None)
    if meant is not None:
        raise ConfigError(f"{name} is not a setting of this fleet; did you mean {PREFIX}{flat[meant]}?")
