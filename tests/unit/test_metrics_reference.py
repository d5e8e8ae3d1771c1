"""The reference page of the metrics is what the declarations say (M2)."""

import os
import re
import subprocess
import sys
from pathlib import Path

from worker.telemetry.declared import ALL, Kind

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "metrics.md"


def test_the_page_is_what_its_command_writes() -> None:
    """Write it anew with `python -m worker.telemetry.reference > docs/reference/metrics.md`."""
    command = [sys.executable, "-m", "worker.telemetry.reference"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert PAGE.read_text() == done.stdout


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
