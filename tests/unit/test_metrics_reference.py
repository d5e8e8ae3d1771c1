"""The reference page of the metrics is what the declarations say (M2)."""

import re
from pathlib import Path

from worker.telemetry.declared import ALL, Kind
from worker.telemetry.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_page_is_up_to_date() -> None:
    """Write it anew with `python -m worker.telemetry.reference > docs/reference/metrics.md`."""
    assert PAGE.read_text() == markdown()


def test_names_say_the_project_the_unit_and_the_kind() -> None:
    """`longshore_*`, base units, `_total` on counters and on nothing else (M2)."""
    assert len({metric.name for metric in ALL}) == len(ALL)
    for metric in ALL:
        assert re.fullmatch(r"longshore_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert ("seconds" in metric.name) == (metric.unit == "seconds")
        assert "queue" not in metric.labels
        assert list(metric.buckets) == sorted(metric.buckets)


def test_every_expression_on_the_page_asks_for_series_that_exist() -> None:
    known = {metric.name for metric in ALL}
    for name in re.findall(r"longshore_[a-z_]+", PAGE.read_text()):
        assert name in known or re.sub(r"_(bucket|count|sum)$", "", name) in known, name
