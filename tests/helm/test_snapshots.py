"""What some scenarios become, whole; `UPDATE_SNAPSHOTS=1` in the environment writes it anew."""

import os
from pathlib import Path

import pytest
import yaml
from helm.chart import Manifest
from helm.conftest import Rendered
from helm.scenario import SCENARIOS, Scenario

pytestmark = pytest.mark.helm

PLACE = Path(__file__).resolve().parent / "snapshots"
SHOWN = (
    "smallest",
    "two-groups",
    "hpa-on-backlog",
    "keda-on-time-to-drain",
    "topology-applied-first",
    "alerts-and-dashboard",
    "eks-values",
    "keda-values",
    "minikube-localstack-values",
)


@pytest.mark.parametrize("major", ["3", "4"])
@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if str(each) in SHOWN], ids=str)
def test_a_scenario_becomes_what_it_became(scenario: Scenario, major: str, rendered: Rendered) -> None:
    """A change of the chart shows in its snapshots, and nothing else does."""
    snapshot = PLACE / f"{scenario}.yaml"
    made = _written(rendered(scenario, major))
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.write_text(made)
    assert made == snapshot.read_text(), "look at the difference; if it is meant: UPDATE_SNAPSHOTS=1 make helm-test"


def test_every_snapshot_belongs_to_a_scenario() -> None:
    assert sorted(path.stem for path in PLACE.iterdir()) == sorted(SHOWN)


def _written(manifests: list[Manifest]) -> str:
    """Return the manifests as YAML, in one order; the dashboard is a file of its own, and left out."""
    shown = sorted(manifests, key=lambda each: (each["kind"], each["metadata"]["name"]))
    return "---\n".join(yaml.dump(_without_dashboard(each), Dumper=yaml.CSafeDumper, width=200) for each in shown)


def _without_dashboard(manifest: Manifest) -> Manifest:
    if "longshore.json" not in manifest.get("data", {}):
        return manifest
    return {**manifest, "data": {"longshore.json": "helm/longshore/files/dashboard.json"}}
