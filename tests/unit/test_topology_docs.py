"""The YAML in docs/how-to/describe-your-topology.md is a fleet file, and what stands around it is so."""

import re
from pathlib import Path

import pytest
import yaml

from worker.errors import ConfigError
from worker.settings.fleet import FleetSettings
from worker.topology import wanted_by
from worker.topology.filter_problems import problems
from worker.topology.filters import OPERATORS

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "describe-your-topology.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found, *_) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_fleet_file_is_one() -> None:
    wanted = wanted_by(FleetSettings.model_validate(yaml.safe_load(block("yaml"))))
    assert [topic.name for topic in wanted.topics] == ["order-events"]
    assert [queue.dead_letter for queue in wanted.queues] == ["inventory-update-dlq"]
    assert [subscription.dead_letter for subscription in wanted.subscriptions] == [None, "inventory-undelivered"]
    assert [alarm.name for alarm in wanted.alarms] == [
        "shop-inventory-update-depth",
        "shop-inventory-update-age",
        "shop-inventory-update-dlq-visible",
    ]


def test_every_operator_has_a_line_that_is_taken() -> None:
    section = PAGE.partition("## Filters")[2].partition("All keys must match")[0]
    rules = [yaml.safe_load(text) for text in re.findall(r"`(\{.*?\})`(?= |$)", section)]
    assert {operator for rule in rules for operator in rule} == set(OPERATORS)
    for rule in rules:
        assert problems({"key": [rule]}, "MessageAttributes") == []


def test_the_sentence_is_the_one_that_is_said() -> None:
    document = yaml.safe_load(block("yaml"))
    document["queues"]["inventory-update"]["subscribe"][0]["filter"]["event_type"][1] = {"starts-with": "order."}
    with pytest.raises(ConfigError) as told:
        wanted_by(FleetSettings.model_validate(document))
    assert f"longshore: {told.value}\n" in PAGE
