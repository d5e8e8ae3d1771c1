"""Alarms: what one is to be, and how far CloudWatch is from it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from worker.topology.attributes import differences, foreign
from worker.topology.change import Action, Call, Change, Difference
from worker.topology.desired import Alarm
from worker.topology.place import Place

__all__ = ["alarm_changes"]

_PERIOD_SECONDS = 60
_LEFT_ALONE = {"ActionsEnabled": True, "InsufficientDataActions": [], "OKActions": []}
"""What others may have set on an alarm, with CloudWatch's defaults; written again as it was, or it would be lost."""


def alarm_changes(alarm: Alarm, found: Mapping[str, Any] | None, place: Place) -> Iterator[Change]:
    """Yield what is to be done so that the alarm watches and tells as wanted; `found` is as CloudWatch describes it."""
    wanted = _parameters(alarm, place)
    if found is None:
        yield Change(
            Action.CREATE, "alarm", alarm.name, differences(_in_words(wanted), {}), calls=[_call(alarm, wanted)]
        )
    elif "AlarmRule" in found:
        note = (
            f"the alarm {alarm.name} exists as a composite alarm, but must watch a metric: delete it and apply again, "
            f"or give the service another name"
        )
        yield Change(Action.REPLACE, "alarm", alarm.name, [Difference("AlarmRule", found["AlarmRule"], None)], note)
    else:
        others = {name: found[name] for name, default in _LEFT_ALONE.items() if found.get(name, default) != default}
        differing = differences(_in_words(wanted), _in_words(found))
        if differing:
            yield Change(Action.CHANGE, "alarm", alarm.name, differing, calls=[_call(alarm, {**wanted, **others})])
        yield from foreign("alarm", alarm.name, _in_words(others).items())


def _parameters(alarm: Alarm, place: Place) -> dict[str, Any]:
    return {
        "AlarmDescription": alarm.description,
        "Namespace": "AWS/SQS",
        "MetricName": alarm.metric,
        "Dimensions": [{"Name": "QueueName", "Value": alarm.queue}],
        "Statistic": "Maximum",
        "Period": _PERIOD_SECONDS,
        "EvaluationPeriods": alarm.minutes,
        "Threshold": float(alarm.threshold),
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",  # SQS says nothing of a queue that has been idle for hours
        "AlarmActions": [place.topic_arn(topic) for topic in alarm.topics],
    }


def _call(alarm: Alarm, parameters: Mapping[str, Any]) -> Call:
    return Call("cloudwatch", "put_metric_alarm", {"AlarmName": alarm.name, **parameters}, f"alarm {alarm.name}")


def _in_words(parameters: Mapping[str, Any]) -> dict[str, str]:
    return {name: _word(value) for name, value in parameters.items()}


def _word(value: Any) -> str:
    match value:
        case str():
            return value
        case float():
            return f"{value:g}"
        case list() if all(isinstance(each, str) for each in value):
            return ", ".join(sorted(value))
        case _:
            return json.dumps(value, default=str, sort_keys=True)
