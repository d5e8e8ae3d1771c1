"""The metrics reference page, made from the declarations: `python -m worker.telemetry.reference > docs/reference/metrics.md`."""

import sys
from collections.abc import Iterator

from worker.telemetry.declared import ALL, Declared

__all__ = ["markdown"]

_HEAD = """\
# Metrics

`GET /metrics` answers in Prometheus's text format, or OpenMetrics when asked. All label values are closed sets and every
series is there from the start, at 0; only what SQS has not told yet (`longshore_queue_messages`,
`longshore_dead_letter_messages`) is absent until it is known, because 0 would be an answer. A duration is in seconds.

This page is generated from `worker/telemetry/declared.py`:
`python -m worker.telemetry.reference > docs/reference/metrics.md`.
"""

_TAIL = """\
## Beside them

`process_*` (memory, CPU, open files, start time), `python_gc_*` and `python_info`, as Prometheus's Python client names them.

## Worth asking

| question | expression |
|---|---|
| How many messages wait? | `max by (queue) (longshore_queue_messages{state="visible"})` |
| Is there a dead letter? | `max by (queue) (longshore_dead_letter_messages) > 0` |
| How old are messages when they start, for 95 of 100? | `histogram_quantile(0.95, sum by (queue, le) (rate(longshore_lag_seconds_bucket{since="sent"}[5m])))` |
| Does a queue with messages stand still? | `min by (queue) (longshore_seconds_since_last_message) > 300 and max by (queue) (longshore_queue_messages{state="visible"}) > 0` |
| How long until the backlog is gone, at this rate? | `max by (queue) (longshore_queue_messages{state="visible"}) / sum by (queue) (rate(longshore_settled_total{outcome="ack"}[5m]))` |
| How full are the slots? | `sum by (queue) (longshore_slots{state="in_use"}) / sum by (queue) (longshore_slots{state="size"})` |
| How many messages fail? | `sum by (queue) (rate(longshore_settled_total{outcome=~"retry\\|dead_letter"}[5m]))` |
| Are leases lost? | `sum by (queue) (increase(longshore_leases_lost_total[15m])) > 0` |
| Was the event loop blocked for more than a second? | `increase(longshore_event_loop_lag_seconds_count[5m]) - on (instance) increase(longshore_event_loop_lag_seconds_bucket{le="1.0"}[5m]) > 0` |
| How many calls does SQS bill? | `sum by (queue) (rate(longshore_api_calls_total[1h])) * 3600` |
"""


def markdown() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *_sections(), _TAIL])


def _sections() -> Iterator[str]:
    for title, is_per_queue in (("Of each queue", True), ("Of the process", False)):
        yield f"## {title}\n"
        if is_per_queue:
            yield "Each of them carries the label `queue`.\n"
        yield "| name | type | labels | unit | meaning |\n|---|---|---|---|---|"
        yield "\n".join(_row(metric) for metric in ALL if metric.is_per_queue is is_per_queue) + "\n"


def _row(metric: Declared) -> str:
    labels = "; ".join(
        f"`{label}`: {', '.join(values)}" if values else f"`{label}`" for label, values in metric.labels.items()
    )
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.unit} | {metric.meaning} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
