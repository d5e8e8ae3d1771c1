"""As much PromQL as it takes to say which metrics and labels an expression reads."""

import re
from collections.abc import Iterator, Mapping

from worker.telemetry.declared import ALL, Declared, Kind

__all__ = ["mistakes"]

TARGET_LABELS = {"namespace", "pod", "instance", "job", "container", "service"}
"""What Prometheus itself puts on every series it scrapes from a cluster."""
OTHERS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "up"}
"""What Prometheus's Python client, and Prometheus, add to the worker's own metrics."""

_STRING = r'"(?:[^"\\]|\\.)*"'
_SELECTOR = re.compile(rf"([a-zA-Z_:][\w:]*)\s*\{{((?:[^{{}}\"]|{_STRING})*)\}}")
_MATCHER = re.compile(rf"\s*(\w+)\s*(=~|!~|!=|=)\s*({_STRING})\s*")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_BARE = re.compile(r"\b(longshore_\w+|process_\w+|python_\w+)\b(?!\s*\{)")


def mistakes(expression: str) -> list[str]:
    """Return what the expression reads that no worker exposes; a metric of ours without a selector is one, too."""
    return list(_mistakes(expression))


def _mistakes(expression: str) -> Iterator[str]:
    known = _known()
    read: set[str] = set()
    for name, matchers in _SELECTOR.findall(expression):
        if name in OTHERS:
            continue
        if name not in known:
            yield f"{name} is not a metric"
            continue
        labels = _labels(known[name], name)
        read |= set(labels)
        rest = _MATCHER.sub("", matchers).replace(",", "").replace("<<.LabelMatchers>>", "").strip()
        if rest:
            yield f"{rest!r} is no matcher of {name}"
        for label, operator, value in _MATCHER.findall(matchers):
            yield from _wrong_matcher(name, labels, label, operator, value[1:-1])
    for name in _BARE.findall(re.sub(_STRING, '""', expression)):
        yield f"{name} is read without a selector"
    for group in _GROUPING.findall(re.sub(_STRING, '""', expression)):
        for label in filter(None, (each.strip() for each in group.split(","))):
            if label not in read | TARGET_LABELS:
                yield f"no metric of the expression has the label {label}"


def _wrong_matcher(
    name: str, labels: Mapping[str, tuple[str, ...]], label: str, operator: str, value: str
) -> Iterator[str]:
    if label in TARGET_LABELS:
        return
    if label not in labels:
        yield f"{name} has no label {label}"
    elif (values := labels[label]) and not value.startswith("$"):
        wanted = value.split("|") if operator in {"=~", "!~"} else [value]
        yield from (f"{label} of {name} is never {each}" for each in wanted if each not in values)


def _known() -> dict[str, Declared]:
    """Return the metrics by the names of their series."""
    series: dict[str, Declared] = {}
    for metric in ALL:
        endings = {Kind.HISTOGRAM: ("_bucket", "_sum", "_count"), Kind.SUMMARY: ("_sum", "_count")}
        series |= {f"{metric.name}{ending}": metric for ending in endings.get(metric.kind, ("",))}
    return series


def _labels(metric: Declared, series: str) -> dict[str, tuple[str, ...]]:
    labels = dict(metric.labels) | ({"queue": ()} if metric.is_per_queue else {})
    if series.endswith("_bucket"):
        labels["le"] = (*(str(float(bound)) for bound in metric.buckets), "+Inf")
    return labels
