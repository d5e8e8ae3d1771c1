"""What `helm install` prints: the arithmetic is right, and what may not have been meant is said."""

import math
import re

import pytest
from helm.chart import Helm, Manifest, by_kind
from helm.conftest import Rendered
from helm.scenario import SCENARIOS, Scenario

pytestmark = pytest.mark.helm

TARGET = re.compile(
    r"queue +(?P<name>[\w.-]+), concurrency (?P<slots>\d+): one pod for each (?P<target>\d+) messages = "
    r"(?P=slots) \* (?P<latency>\d+) s target latency / (?P<handler>[\d.]+) s handler"
)
DRAIN = re.compile(r"drain +(\d+) s drain \+ (\d+) s preStop \+ 5 s = (\d+) s; SIGKILL after (\d+) s")
CPU = "WARNING: group default scales on CPU"


def notes(helms: dict[str, Helm], name: str) -> str:
    (scenario,) = (each for each in SCENARIOS if str(each) == name)
    return helms["4"].notes(scenario.values, kubernetes=scenario.kubernetes)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_the_arithmetic_is_that_of_the_manifests(
    scenario: Scenario, helms: dict[str, Helm], rendered: Rendered
) -> None:
    """Messages per pod and the grace period are computed as the notes say, and stand so in the manifests."""
    said = helms["4"].notes(scenario.values, kubernetes=scenario.kubernetes)
    manifests = rendered(scenario, "4")
    targets = _targets(manifests)
    for found in TARGET.finditer(said):
        expected = max(1, math.ceil(int(found["slots"]) * int(found["latency"]) / float(found["handler"])))
        assert int(found["target"]) == expected
        assert targets[found["name"]] == expected
    drains = [tuple(map(int, found)) for found in DRAIN.findall(said)]
    assert all(drain + stop + 5 == total <= grace for drain, stop, total, grace in drains)
    assert sorted(grace for *_, grace in drains) == sorted(
        each["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] for each in by_kind(manifests, "Deployment")
    )


def _targets(manifests: list[Manifest]) -> dict[str, int]:
    """Return the messages per pod of each queue, as the scalers have it."""
    targets: dict[str, int] = {}
    for scaler in by_kind(manifests, "HorizontalPodAutoscaler"):
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "External":
                queue = metric["external"]["metric"]["selector"]["matchLabels"]["queue"]
                targets[queue] = int(metric["external"]["target"]["averageValue"])
    for scaler in by_kind(manifests, "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            if trigger["type"] == "aws-sqs-queue":
                targets[trigger["metadata"]["queueURL"].rpartition("/")[2]] = int(trigger["metadata"]["queueLength"])
    return targets


def test_a_worked_example(helms: dict[str, Helm]) -> None:
    said = notes(helms, "hpa-on-backlog")
    assert "emails, concurrency 4: one pod for each 240 messages = 4 * 30 s target latency / 0.5 s handler" in said
    assert "orders, concurrency 16: one pod for each 960 messages = 16 * 30 s target latency / 0.5 s handler" in said
    assert "pods     2 to 20, by an HPA on backlog" in said
    assert "drain    25 s drain + 0 s preStop + 5 s = 30 s; SIGKILL after 30 s" in said


def test_the_limit_of_the_process_bounds_the_concurrency(helms: dict[str, Helm]) -> None:
    """`max_running_handlers` is what one pod can do, whatever its queues would like."""
    assert "queue    orders.fifo, concurrency 12" in notes(helms, "every-setting-of-the-fleet")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hpa-on-cpu", CPU),
        ("keda-on-cpu", CPU),
        ("hpa-on-backlog", "needs a metrics adapter that serves the external metric longshore_queue_backlog"),
        ("hpa-on-time-to-drain", "the external metric longshore_queue_drain_seconds"),
        ("hpa-down-to-nothing", "the adapter must not take its metric from the workers"),
        ("each-group-scales-its-own-way", "WARNING: group c has no pods, and nothing will add one."),
        ("long-drain", "may take 905 s to end, but cluster autoscalers usually wait no longer than 600 s"),
        ("smallest", "NOTE: no AWS region is set"),
        ("smallest", "NOTE: nothing scrapes /metrics on port 8080"),
    ],
)
def test_what_may_not_have_been_meant_is_said(name: str, sentence: str, helms: dict[str, Helm]) -> None:
    assert sentence in notes(helms, name)


def test_a_sound_release_has_no_warnings(helms: dict[str, Helm]) -> None:
    assert "WARNING" not in notes(helms, "keda-values")
    assert "NOTE" not in notes(helms, "pod-monitor")


def test_helm_install_prints_the_notes(helms: dict[str, Helm]) -> None:
    """Helm 3 asks a cluster even for that, Helm 4 does not."""
    printed = helms["4"].install_dry({"fleet": {"queues": {"orders": {"handlers": "x:y"}}}})
    assert "Group default (Deployment orders-longshore-default)" in printed
