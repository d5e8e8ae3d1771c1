"""What is made from other files is up to date, and the values are documented and closed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm.chart import CHART, ROOT, Helm
from helm.kubernetes import Schemas

from helm.generate import documented, main, pages
from worker.settings import FleetSettings, ServerSettings

pytestmark = pytest.mark.helm

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()
VALUES = yaml.safe_load(TEXT)
OPEN = {"$.global", "$.affinity", "$.podSecurityContext", "$.securityContext", "$.strategy.rollingUpdate"}
"""Values that go to Kubernetes as they are, or to other charts; Kubernetes refuses unknown keys in them."""


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_generated_file_is_up_to_date(path: Path) -> None:
    """`make helm-generate` would change nothing."""
    assert path.read_text() == pages()[path], "run: make helm-generate"


def test_the_generator_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {path.name: text for path, text in pages().items()}
    monkeypatch.setattr("helm.generate.pages", lambda: {tmp_path / name: text for name, text in expected.items()})
    main()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == expected


def test_every_value_is_documented() -> None:
    """Each has a comment that starts with two dashes, or the mapping it stands in has one."""
    told = {key for key, _ in documented(TEXT)}
    silent = [key for key in _leaves(VALUES) if not any(key == each or key.startswith(f"{each}.") for each in told)]
    assert silent == []
    readme = (CHART / "README.md").read_text()
    assert [key for key in told if f"| `{key}` |" not in readme] == []


def test_schema_and_values_have_the_same_keys() -> None:
    """A value that the schema knows and values.yaml does not would be undocumented, and the other way round refused."""
    assert _keys(VALUES) == _keys_of(SCHEMA)


def test_the_defaults_are_allowed(schemas: Schemas) -> None:
    assert [error.message for error in schemas.values(SCHEMA).iter_errors(VALUES)] == []


def test_the_schema_is_one(schemas: Schemas) -> None:
    validator = schemas.values(SCHEMA)
    validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"


def test_unknown_keys_are_refused_everywhere() -> None:
    """Whatever the chart reads itself is closed; what it hands on is listed here."""
    found = set(_open(SCHEMA, "$"))
    assert {path for path in found if not path.startswith(("$.groups.", "$.fleet."))} == OPEN
    assert {path for path in found if path.startswith("$.groups.")} == {"$.groups.*.affinity"}
    assert {path for path in found if path.startswith("$.fleet.") and not path.endswith(".filter")} == set()


def test_the_chart_assumes_the_defaults_of_the_fleet() -> None:
    """The templates know three defaults: the drain, the concurrency and the port."""
    fleet = FleetSettings.model_validate({"queues": {"orders": {"handlers": "x:y"}}})
    templates = "".join(path.read_text() for path in (CHART / "templates").glob("*.tpl"))
    assert f"$values.fleet.drain_seconds | default {fleet.drain_seconds} |" in templates
    assert f"default {fleet.queues['orders'].concurrency} -" in templates
    assert f'"wait_time_seconds" {fleet.queues["orders"].wait_time_seconds} $defaults' in templates
    assert f".port | default {ServerSettings().port} |" in templates


def test_the_chart_has_the_version_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()
    assert f"image: longshore:{chart['appVersion']}" in chart["annotations"]["artifacthub.io/images"]


def test_the_bare_chart_passes_lint(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.lint({})


def _leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


MAPPINGS = ("labels", "strings")
PASSED_ON = ("fleet", "groups", "podSecurityContext", "securityContext", "resources", "probe", "behavior", "fallback")


def _keys(values: Any, path: str = "$") -> set[str]:
    """Return the keys of the values, down to those whose content is free, optional or documented elsewhere."""
    if not isinstance(values, dict) or path.rpartition(".")[2] in {*PASSED_ON, "labels", "rollingUpdate"}:
        return {path}
    if path.startswith("$.probes."):
        return {path}
    return {path}.union(*(_keys(value, f"{path}.{key}") for key, value in values.items()))


def _keys_of(node: Any, path: str = "$") -> set[str]:
    node = _resolved(node)
    if path.rpartition(".")[2] in PASSED_ON or path.startswith("$.probes."):
        return {path}
    return {path}.union(*(_keys_of(inner, f"{path}.{key}") for key, inner in node.get("properties", {}).items()))


def _resolved(node: Any) -> Any:
    if "$ref" in node:
        return _resolved(SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")])
    return node


def _open(node: Any, path: str) -> Iterator[str]:
    """Yield the paths of the objects that take any key with any value."""
    node = _resolved(node)
    for option in node.get("anyOf", ()):
        yield from _open(option, path)
    if "object" in node.get("type", ()):
        others = node.get("additionalProperties", True)
        if others is True:
            yield path
        elif others is not False:
            yield from _open(others, f"{path}.*")
    for key, inner in node.get("properties", {}).items():
        yield from _open(inner, f"{path}.{key}")
