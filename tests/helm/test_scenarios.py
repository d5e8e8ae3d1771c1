"""Every scenario renders on both Helms to the same manifests, which Kubernetes takes and which fit together."""

import json
from pathlib import Path

import pytest
import yaml
from helm.chart import EXAMPLES, Helm, Manifest, by_kind
from helm.conftest import Rendered
from helm.kubernetes import VERSIONS, Schemas
from helm.rules import broken
from helm.scenario import SCENARIOS, Scenario

pytestmark = pytest.mark.helm


def test_there_are_enough_scenarios() -> None:
    """Each of them shows something: its first line says what."""
    assert len(SCENARIOS) >= 25
    assert [str(each) for each in SCENARIOS if not each.path.read_text().startswith("# ")] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_helm_lint_finds_nothing(scenario: Scenario, helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.lint(scenario.values, kubernetes=scenario.kubernetes)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_helm_3_and_4_make_the_same(scenario: Scenario, rendered: Rendered) -> None:
    def key(manifest: dict[str, object]) -> str:
        return json.dumps(manifest, sort_keys=True)

    assert sorted(rendered(scenario, "3"), key=key) == sorted(rendered(scenario, "4"), key=key)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_kubernetes_takes_what_is_made(scenario: Scenario, version: str, rendered: Rendered, schemas: Schemas) -> None:
    """Every version that the scenario is for has these kinds with these keys."""
    supported = max(version, scenario.kubernetes)
    wrong = {
        f"{each['kind']}/{each['metadata']['name']}": found
        for each in rendered(scenario, "4")
        if (found := schemas.violations(each, supported))
    }
    assert wrong == {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_the_parts_fit_together(scenario: Scenario, rendered: Rendered, tmp_path: Path) -> None:
    """Restricted pods, each queue consumed once by a worker that takes its file, drains in time and is probed and selected."""
    assert broken(rendered(scenario, "4"), tmp_path) == []


def test_a_variable_of_a_group_replaces_that_of_all(rendered: Rendered) -> None:
    (scenario,) = (each for each in SCENARIOS if str(each) == "variable-of-a-group")
    found = {
        each["metadata"]["name"]: {one["name"]: one["value"] for one in _worker(each)["env"]}
        for each in by_kind(rendered(scenario, "4"), "Deployment")
    }
    assert {name: env["LEVEL"] for name, env in found.items()} == {
        "orders-longshore-mail": "debug",
        "orders-longshore-orders": "info",
    }
    assert {env["AWS_STS_REGIONAL_ENDPOINTS"] for env in found.values()} == {"legacy"}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_backing_services_of_the_example_are_valid(version: str, schemas: Schemas) -> None:
    manifests = list(yaml.safe_load_all((EXAMPLES / "localstack.yaml").read_text()))
    assert [each["kind"] for each in manifests] == ["Deployment", "Service"] * 2
    assert [schemas.violations(each, version) for each in manifests] == [[]] * 4


def _worker(deployment: Manifest) -> Manifest:
    container: Manifest = deployment["spec"]["template"]["spec"]["containers"][0]
    return container
