"""Prometheus beside the fleet: it finds every worker, and the dashboard's queries have answers.

Grafana itself is not run here: what it is given are the data source and this dashboard, both read from files.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from support.stack import Stack

pytestmark = pytest.mark.compose

DASHBOARD = Path(__file__).parents[2] / "helm" / "longshore" / "files" / "dashboard.json"
VARIABLES = {"$__rate_interval": "5m", "$__interval": "15s", "$__range": "15m", "$namespace": ".*", "$queue": ".*"}


@pytest.fixture(scope="module")
def monitored(stack: Stack) -> Stack:
    """Three workers that have had something to do since Prometheus came."""
    stack.up()
    stack.compose("--profile", "monitoring", "up", "--detach", "--wait", "--no-deps", "prometheus")
    stack.until("Prometheus scrapes three workers", lambda: len(workers_up(stack)) == 3)
    visit = stack.visit(150)
    assert visit.communicate()[0].splitlines()[-1].startswith("books balance")
    return stack


def ask(stack: Stack, query: str) -> list[Any]:
    answer = stack.get("prometheus", 9090, f"/api/v1/query?{urlencode({'query': query})}")
    found: list[Any] = answer["data"]["result"]
    return found


def workers_up(stack: Stack) -> list[Any]:
    return ask(stack, 'up{job="longshore"} == 1')


def queries() -> Iterator[str]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for inner in (panel, *panel.get("panels", ())):
            for target in inner.get("targets", ()):
                yield target["expr"]


def test_every_worker_is_scraped(monitored: Stack) -> None:
    assert len(workers_up(monitored)) == 3


def test_the_rules_are_read_and_none_that_needs_trouble_fires(monitored: Stack) -> None:
    groups = monitored.get("prometheus", 9090, "/api/v1/rules")["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert {rule["health"] for rule in rules.values()} == {"ok"}
    assert {name for name, rule in rules.items() if rule["state"] == "firing"} <= {"LongshoreDeadLetters"}


@pytest.mark.parametrize("query", list(dict.fromkeys(queries())))
def test_every_query_of_the_dashboard_has_an_answer(monitored: Stack, query: str) -> None:
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    monitored.until(f"data for {query}", lambda: ask(monitored, query), seconds=30)
