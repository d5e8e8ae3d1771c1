"""Writes what is made from the settings: the example file, the JSON schema and the reference page.

`python -m worker.settings.generate` writes them into the working directory's `config/` and `docs/`.
"""

import json
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from worker.settings.schema import Node, allowed, below, description, is_list, options, properties, root, schema

__all__ = ["main", "pages"]

EXAMPLE = Path("config/fleet.example.yaml")
SCHEMA = Path("config/fleet.schema.json")
REFERENCE = Path("docs/reference/settings.md")
NAMES = {"topics": "order-events", "queues": "order-processing", "limits": "crm-api"}
"""Under which name the example shows a topic, a queue and a limit."""
QUEUE = "queues.NAME"
WIDTH = 120

_EXAMPLE_HEAD = """\
# yaml-language-server: $schema=fleet.schema.json
# Every setting with its default; made by `make generate`. A file of your own names only what differs.
# Each value can be overridden by the environment: LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY=4

"""
_REFERENCE_HEAD = """\
# Settings

One YAML file describes a fleet: `--config PATH`, else `$LONGSHORE_CONFIG`, else `config/fleet.yaml`, else `fleet.yaml`. This page is
made from the settings themselves by `make generate`, as are [`config/fleet.example.yaml`](../../config/fleet.example.yaml)
(every key with its default) and [`config/fleet.schema.json`](../../config/fleet.schema.json) (for editors).

- Unknown keys, wrong types, numbers out of bounds and combinations that cannot work are refused with one sentence, exit status 2.
- Every value can be overridden by the environment: `LONGSHORE_` and the keys in capitals, joined by two underscores, `-` and `.` as
  `_`; positions in lists count from 0. `LONGSHORE_QUEUES__ORDER_PROCESSING__DEAD_LETTER__MAX_RECEIVE_COUNT=12`. Values are YAML.
  A variable overrides what the file has; it never adds a queue or topic. One that is almost a setting is refused.
- `AWS_REGION`, `AWS_DEFAULT_REGION`, `AWS_ENDPOINT_URL` and those of single services (`AWS_ENDPOINT_URL_SQS`, `_SNS`, `_S3`, `_DYNAMODB`, `_STS`) fill in what the file leaves open under `aws`.
- What `defaults` says holds for every queue that does not say otherwise; `retry`, `breaker`, `large_payloads` and `tags` are merged key by key.
"""


def pages() -> dict[Path, str]:
    """Return the content of every generated file, by its path in the repository."""
    return {
        EXAMPLE: _EXAMPLE_HEAD + "\n".join(_example(root(), 0)) + "\n",
        SCHEMA: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        REFERENCE: _REFERENCE_HEAD + "\n".join(_reference(root(), "")) + "\n",
    }


def main() -> None:
    """Write the generated files into the working directory."""
    for path, content in pages().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(f"wrote {path}")  # noqa: T201 - a command's output


def _example(section: Node, indent: int, *, told: Collection[str] = ()) -> Iterator[str]:
    """Yield the lines of a section, what must be there first; keys in `told` come last and without their comment."""
    margin = " " * indent
    known = properties(section)
    required = [key for option in options(section) for key in option.get("required", ()) if key not in NAMES]
    own = sorted((key for key in known if key not in told), key=lambda key: key not in required)
    for key in own:
        yield from _comment(known[key], margin)
        yield from _entry(key, known[key], margin)
    inherited = [key for key in known if key in told]
    if inherited:
        yield f"{margin}# Each key of `defaults` may stand here too."
    for key in inherited:
        yield from _entry(key, known[key], margin, is_told=True)


def _entry(key: str, node: Node, margin: str, *, is_told: bool = False) -> Iterator[str]:
    inner = below(node)
    if inner is None or isinstance(node.get("default"), int):  # also where a section may stand instead of a number
        yield f"{margin}{key}: {_flow(_value(node))}"
        return
    if is_told:
        yield f"{margin}{key}: {_flow({key: _value(each) for key, each in properties(inner).items()})}"
        return
    yield f"{margin}{key}:"
    if key in NAMES:
        yield f"{margin}  {NAMES[key]}:"
        yield from _example(inner, len(margin) + 4, told=_inherited() if key == "queues" else ())
    elif is_list(node):
        lines = list(_example(inner, len(margin) + 4))
        yield f"{margin}  -"
        yield from lines
    else:
        yield from _example(inner, len(margin) + 2)


def _comment(node: Node, margin: str) -> Iterator[str]:
    about = description(node).removesuffix(".")
    if below(node) is None or isinstance(node.get("default"), int):
        about = f"{about}. Allowed: {allowed(node)}"
    if "x-default" in node:
        about = f"{about}. Default: {node['x-default']}"
    yield from textwrap.wrap(f"{about}.", WIDTH, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# ")


def _value(node: Node) -> Any:
    """Return the default, or an example where there is none or where it depends on other keys."""
    return node["default"] if "default" in node else node["examples"][0]


def _flow(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()


def _inherited() -> Collection[str]:
    return properties(properties(root())["defaults"])


def _reference(section: Node, name: str) -> Iterator[str]:
    """Yield the table of a section, then those of the sections in it."""
    known = {key: node for key, node in properties(section).items() if name != QUEUE or key not in _inherited()}
    yield from ("", f"## {name or 'The fleet'}", "", description(section), "")
    if name == QUEUE:
        yield from ("Each key of `defaults` may stand here too.", "")
    yield from ("| key | allowed | default | meaning |", "|---|---|---|---|")
    required = {key for option in options(section) for key in option.get("required", ())}
    for key, node in known.items():
        default = "**required**" if key in required else node.get("x-default") or f"`{_flow(node.get('default'))}`"
        is_value = below(node) is None or key in required or isinstance(node.get("default"), int)
        yield f"| `{key}` | {_kind(node)} | {default if is_value else ''} | {description(node)} |"
    for key, node in known.items():
        inner = below(node)
        if inner is not None:
            place = f"{key}.NAME" if key in NAMES else f"{key}[]" if is_list(node) else key
            yield from _reference(inner, f"{name}.{place}".removeprefix("."))


def _kind(node: Node) -> str:
    if below(node) is None:
        reason = node.get("x-because")
        return allowed(node) + (f" ({reason})" if reason else "")
    others = [allowed(option) for option in options(node) if "const" in option or option.get("type") == "integer"]
    section = "a list of mappings" if is_list(node) else "a mapping"
    return " or ".join([*others, section] if isinstance(node.get("default"), int) else [section, *others])


if __name__ == "__main__":
    main()
