"""The files that are made from the settings are those in the repository, and they are true."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import FleetSettings, effective, load, schema
from worker.settings.generate import main, pages

ROOT = Path(__file__).parents[2]
DISTRIBUTED_QUEUE = "config/distributed-queue.yaml"
Node = Mapping[str, Any]
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


@pytest.mark.parametrize("path", pages(), ids=str)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    """`make generate` would change nothing."""
    assert (ROOT / path).read_text(encoding="utf-8") == pages()[path], "run: make generate"


def test_the_generator_writes_into_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main()
    assert {path: path.read_text(encoding="utf-8") for path in pages()} == pages()


def test_the_example_shows_every_setting_with_its_default() -> None:
    """What the example says is what a fleet has that says nothing."""
    example = load(ROOT / "config/fleet.example.yaml", environ={})
    shown = yaml.safe_load((ROOT / "config/fleet.example.yaml").read_text(encoding="utf-8"))
    queue = {"handlers": "worker.handlers.orders:processing", "subscribe": [{"topic": "order-events"}]}
    silent = FleetSettings.model_validate(
        {
            "limits": {"crm-api": {"concurrency": 3}},
            "topics": {"order-events": {}},
            "queues": {"order-processing": queue},
        }
    )
    assert shown == effective(example) == effective(silent)
    assert example.warnings == ()


def test_the_fleet_of_the_repository_loads_without_a_warning() -> None:
    fleet = load(ROOT / "config/fleet.yaml", environ={})
    assert fleet.warnings == ()
    assert list(fleet.queues) == [
        "order-processing",
        "inventory-update",
        "email-notification",
        "analytics-tracking",
        "fraud-check",
        "payment-processing.fifo",
    ]
    assert all(queue.dead_letter != "none" for queue in fleet.queues.values())


def test_the_distributed_queue_loads_without_a_warning() -> None:
    """Its queue of SMS keeps to a limit of the whole fleet, which is taken before a message is received."""
    fleet = load(ROOT / DISTRIBUTED_QUEUE, environ={})
    assert fleet.warnings == ()
    assert {name: queue.limit for name, queue in fleet.queues.items()} == {"record-writing": None, "sms-sending": "sms-api"}  # fmt: skip
    limit = fleet.limits["sms-api"]
    assert (limit.concurrency, limit.scope) == (5, "fleet")
    filters = [[(each.raw, each.filter) for each in queue.subscribe] for queue in fleet.queues.values()]
    assert filters == [[(True, None)], [(True, {"action": ["sendSMS"]})]]
    assert all(queue.dead_letter != "none" for queue in fleet.queues.values())


def test_the_demo_of_the_distributed_queue_runs_its_fleet_file() -> None:
    """The wheel holds no `config/`, so it brings a copy."""
    copy = "worker/demo/distributed_queue/fleet.yaml"
    assert (ROOT / copy).read_bytes() == (ROOT / DISTRIBUTED_QUEUE).read_bytes(), f"run: cp {DISTRIBUTED_QUEUE} {copy}"


@pytest.mark.parametrize("name", ["fleet.yaml", "fleet.example.yaml", "distributed-queue.yaml"])
def test_editors_find_nothing_wrong_in_our_own_files(name: str) -> None:
    document = yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))
    assert list(violations(document, schema())) == []


@pytest.mark.parametrize(
    ("queue", "found"),
    [
        ({}, []),
        ({"dead_letter": "none"}, []),
        ({"dead_letter": {"max_receive_count": 9}}, []),
        ({"dead_letter": "nnoe"}, ["$.queues.q.dead_letter"]),
        ({"dead_letter": {"queu": "x"}}, ["$.queues.q.dead_letter"]),
        ({"handlers": 5}, ["$.queues.q.handlers"]),
        ({"concurrency": 0}, ["$.queues.q.concurrency"]),
        ({"name": "q"}, ["$.queues.q.name"]),
    ],
)
def test_editors_find_what_is_wrong(queue: dict[str, Any], found: list[str]) -> None:
    """The schema knows `dead_letter: none` and every bound, and no key that only the loader fills in."""
    document = {"queues": {"q": {"handlers": "app:router", **queue}}}
    assert list(violations(document, schema())) == found


def test_every_setting_is_documented() -> None:
    """A field without a docstring is an undocumented setting."""
    sections = [schema(), *schema()["$defs"].values()]
    keys = [(section, key, field) for section in sections for key, field in section.get("properties", {}).items()]
    assert len(keys) > 40
    assert [key for _, key, field in keys if "description" not in field and "$ref" not in field] == []


def violations(value: Any, node: Node, path: str = "$") -> Iterator[str]:
    """Yield the paths that break the schema: as much of JSON Schema as ours uses."""
    if "$ref" in node:
        node = schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if "anyOf" in node:
        is_valid = any(not list(violations(value, option, path)) for option in node["anyOf"])
        yield from () if is_valid else (path,)
    elif not fits(value, node):
        yield path
    elif isinstance(value, dict):
        yield from members(value, node, path)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from violations(inner, node.get("items", {}), f"{path}[{position}]")


def members(value: dict[str, Any], node: Node, path: str) -> Iterator[str]:
    yield from (f"{path}.{key}" for key in node.get("required", ()) if key not in value)
    for key, inner in value.items():
        below = node.get("properties", {}).get(key, node.get("additionalProperties", True))
        if below is False:
            yield f"{path}.{key}"
        elif below is not True:
            yield from violations(inner, below, f"{path}.{key}")


def fits(value: Any, node: Node) -> bool:
    kind = node.get("type")
    if kind is not None and (not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return False
    if value not in node.get("enum", [value]) or value != node.get("const", value):
        return False
    if isinstance(value, str):
        return re.search(node.get("pattern", ""), value) is not None
    return not isinstance(value, int | float) or node.get("minimum", value) <= value <= node.get("maximum", value)
