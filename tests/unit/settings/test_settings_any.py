"""Whatever stands in a fleet file or in the environment: settings, or one sentence."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.errors import ConfigError
from worker.settings import load
from worker.settings.environment import overridden

ROOT = Path(__file__).parents[3]
EXAMPLE = yaml.safe_load((ROOT / "config/fleet.example.yaml").read_text(encoding="utf-8"))
ODD: list[Any] = [None, True, -1, 10**17, 1.5, "", "a b\n", [], [None], {}, {"x": {"y": []}}, "none"]


def places(raw: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    members = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    for key, inner in members:
        yield from places(inner, (*path, key))


def replaced(raw: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    if isinstance(raw, list):
        return [replaced(item, path[1:], value) if i == path[0] else item for i, item in enumerate(raw)]
    return {**raw, path[0]: replaced(raw[path[0]], path[1:], value)}


def sentence_of(path: Path, content: Any) -> str | None:
    path.write_text(json.dumps(content), encoding="utf-8")
    try:
        load(path, environ={})
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", [path for path in places(EXAMPLE) if path], ids=lambda path: ".".join(map(str, path)))
def test_any_value_at_any_key_is_settings_or_one_sentence(tmp_path: Path, path: tuple[Any, ...]) -> None:
    """A sentence names the file and the key it is about (X1)."""
    file = tmp_path / "fleet.yaml"
    for value in ODD:
        sentence = sentence_of(file, replaced(EXAMPLE, path, value))
        if sentence is not None:
            assert sentence.startswith(f"{file}: ")
            assert len(sentence.splitlines()) == 1
            assert any(str(key) in sentence for key in path)


@given(st.text(alphabet="QUEUESORDERPROCESSING_0", max_size=40), st.text(max_size=10))
@settings(max_examples=200)
def test_any_variable_is_an_override_a_sentence_or_someone_elses(name: str, text: str) -> None:
    """Queues, topics and keys stay what the file has (X1)."""
    raw = {"queues": {"order-processing": {"handlers": "app:router"}}}
    try:
        changed, variables = overridden(raw, {f"LONGSHORE_{name}": text})
    except ConfigError as error:
        sentence = str(error)
    else:
        sentence = f"LONGSHORE_{name}"
        assert variables or changed == raw
    assert sentence.startswith(f"LONGSHORE_{name}")
