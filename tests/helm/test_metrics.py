"""The dashboard, the alerts and the scalers read metrics and labels that workers expose."""

import json
import re

import pytest
import yaml
from helm.chart import CHART, EXAMPLES, by_kind
from helm.conftest import Rendered
from helm.promql import mistakes
from helm.scenario import SCENARIOS

from worker.telemetry.declared import ALL

pytestmark = pytest.mark.helm

DASHBOARD = json.loads((CHART / "files/dashboard.json").read_text())
QUERIES = {
    f"{panel['title']} {target['refId']}": target["expr"]
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
}


@pytest.mark.parametrize("title", QUERIES)
def test_a_query_of_the_dashboard_reads_what_there_is(title: str) -> None:
    assert mistakes(QUERIES[title]) == []


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    """Ids are unique, panels do not overlap, every variable is declared and every panel asks the chosen data source."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    declared = {each["name"] for each in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"}
    assert used == declared == {"datasource", "namespace", "queue"}
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}


def test_the_variables_of_the_dashboard_are_labels_of_metrics_that_exist() -> None:
    queries = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    found = [re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", query) for query in queries]
    metrics = {metric.name for metric in ALL}
    assert all(each is not None and each[1] in metrics for each in found), queries


@pytest.mark.parametrize("scenario", [each for each in SCENARIOS if "prometheusRule" in each.values], ids=str)
def test_an_alert_reads_what_there_is(scenario: object, rendered: Rendered) -> None:
    rules = [
        rule
        for each in by_kind(rendered(scenario, "4"), "PrometheusRule")  # type: ignore[arg-type]
        for group in each["spec"]["groups"]
        for rule in group["rules"]
    ]
    assert len(rules) > 10
    assert {rule.get("alert"): found for rule in rules if (found := mistakes(rule["expr"]))} == {}
    labels = {"queue", "operation", "result", "loop", "pod"}
    for rule in rules:
        told = " ".join(rule.get("annotations", {}).values())
        assert set(re.findall(r"\$labels\.(\w+)", told)) <= labels & set(re.findall(r"\w+", rule["expr"])), rule


@pytest.mark.parametrize("name", ["keda-on-time-to-drain"])
def test_a_scaler_reads_what_there_is(name: str, rendered: Rendered) -> None:
    (scenario,) = (each for each in SCENARIOS if str(each) == name)
    (scaled,) = by_kind(rendered(scenario, "4"), "ScaledObject")
    queries = [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    assert len(queries) == 2
    assert [mistakes(query) for query in queries] == [[], []]


def test_the_adapters_rules_read_what_there_is_under_the_names_that_an_hpa_asks_for() -> None:
    rules = yaml.safe_load((EXAMPLES / "metrics-adapter-rules.yaml").read_text())["rules"]["external"]
    hpa = yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]["hpa"]
    assert [rule["name"]["as"] for rule in rules] == [hpa["backlogMetric"], hpa["timeToDrainMetric"]]
    assert [mistakes(rule["metricsQuery"]) for rule in rules] == [[], []]


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ('sum(longshore_in_hand{queue="a"})', []),
        ('longshore_settled_total{outcome=~"ack|retry"}', []),
        ('longshore_handler_seconds_bucket{le="0.5"}', []),
        ("longshore_nothing{}", ["longshore_nothing is not a metric"]),
        ("longshore_handler_seconds{}", ["longshore_handler_seconds is not a metric"]),
        ('longshore_ready{state="x"}', ["longshore_ready has no label state"]),
        ('longshore_settled_total{outcome="done"}', ["outcome of longshore_settled_total is never done"]),
        ('longshore_handler_seconds_bucket{le="0.7"}', ["le of longshore_handler_seconds_bucket is never 0.7"]),
        ("max by (state) (longshore_ready{})", ["no metric of the expression has the label state"]),
        ("sum(longshore_ready)", ["longshore_ready is read without a selector"]),
        ("longshore_ready{queue}", ["'queue' is no matcher of longshore_ready"]),
    ],
)
def test_the_check_itself_finds_mistakes(expression: str, found: list[str]) -> None:
    assert mistakes(expression) == found
