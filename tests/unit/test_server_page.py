"""The page at `/`: the status for eyes, escaped, honest about what is not known (M1, X2)."""

import math
import re
from html import unescape
from typing import Any

import pytest

from worker.server.page import page
from worker.source import Depth
from worker.telemetry.metrics import Metrics


def status(metrics: Metrics, **others: Any) -> dict[str, Any]:
    whole = {"service": "orders", "version": "1.2.3", "state": "ready", "uptime_seconds": 7512.0, "problems": []}
    return {**whole, "warnings": [], "queues": dict(metrics.snapshot()), **others}


def row(text: str) -> dict[str, str]:
    """Return the cells of the page's only queue by their columns."""
    cells = re.findall(r'<td data-name="([^"]+)">(.*?)</td>', text)
    found = {name: unescape(re.sub(r"<[^>]+>", "", cell)) for name, cell in cells}
    assert len(found) == len(cells) == 12
    return found


def test_every_number_stands_in_its_column() -> None:
    """What SQS says of the queue, what the process did, and how far behind it is."""
    metrics = Metrics()
    queue = metrics.queue("orders")
    queue.depth(Depth(visible=1234, in_flight=16, delayed=3, dead_letters=2))
    queue.received(2000)
    queue.slots(16)
    queue.in_hand(12)
    for outcome, count in (("ack", 1900), ("retry", 70), ("dead_letter", 5)):
        queue.settled(outcome, count)
    queue.lag(2.5, 0.812)
    queue.ready(True)
    snapshot = {**metrics.snapshot()["orders"], "seconds_since_last_message": 303.0}
    assert row(page(status(metrics, queues={"orders": snapshot}))) == {
        "waiting": "1,234",
        "in flight": "16",
        "delayed": "3",
        "dead letters": "2",
        "received": "2,000",
        "handled": "1,900",
        "retried": "70",
        "dead-lettered": "5",
        "in hand / slots": "12 / 16",
        "last lag": "812 ms",
        "since last message": "5 min 3 s",
        "ready": "yes",
    }


def test_what_is_not_known_is_a_dash_and_never_a_zero() -> None:
    """A queue that nobody could read yet does not look empty."""
    metrics = Metrics()
    metrics.queue("orders")
    found = row(page(status(metrics)))
    for column in ("waiting", "in flight", "delayed", "dead letters", "last lag"):
        assert found[column] == "–", column  # noqa: RUF001 - the dash of the page
    assert found["ready"] == "no"


@pytest.mark.parametrize("absent", [{}, {"messages": None}, {"dead_letters": math.nan, "messages": {"visible": None}}])
def test_a_queue_of_which_nothing_is_said_is_a_row_of_dashes(absent: dict[str, Any]) -> None:
    """A status of another version, or of a world that is half told, still makes a page."""
    found = row(page({"queues": {"orders": absent}}))
    assert set("".join(found.values())) == set("– /")  # noqa: RUF001 - the dash of the page


def test_the_lag_is_that_since_sending_where_publishing_is_not_known() -> None:
    metrics = Metrics()
    metrics.queue("orders").lag(2.5, None)
    assert row(page(status(metrics)))["last lag"] == "2.5 s"


def test_every_value_is_escaped() -> None:
    """Names and sentences come from files and from AWS; none of them may become markup."""
    evil = "<script>alert(1)</script>\"'&"
    metrics = Metrics()
    metrics.queue(evil)
    text = page(
        status(metrics, service=evil, version=evil, state=evil, uptime_seconds=evil, problems=[evil], warnings=[evil])
    )
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") == 8


def test_problems_and_warnings_are_told_apart() -> None:
    text = page(status(Metrics(), state="draining", problems=["draining"], warnings=["old redrive policy"]))
    assert '<h1>orders <span class="odd">draining</span></h1>' in text
    assert '<ul class="bad"><li>draining</li></ul>' in text
    assert '<ul class="odd"><li>old redrive policy</li></ul>' in text
    assert "No queue has been started yet." in text


def test_it_loads_itself_again_and_nothing_else() -> None:
    """No script, no image, no font, no stylesheet of somebody else: it works in an air-gapped cluster."""
    metrics = Metrics()
    metrics.queue("orders")
    text = page(status(metrics))
    assert '<meta http-equiv="refresh" content="2">' in text
    assert not re.search(r"<(script|img|link|iframe|object|form)|url\(|@import|https?:|\son\w+=", text)
    assert "color-scheme: light dark" in text


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (0.9996, "1.0 s"),
        (61, "1 min 1 s"),
        (7512, "2 h 5 min"),
        (98_765, "1 d 3 h"),
        (None, "–"),  # noqa: RUF001 - the dash of the page
        (math.inf, "–"),  # noqa: RUF001 - the dash of the page
        (-0.5, "0 ms"),
    ],
)
def test_a_span_is_told_in_the_units_that_matter(seconds: float | None, shown: str) -> None:
    assert f", up {shown}</p>" in page({"uptime_seconds": seconds})


def test_outboxes_have_a_table_of_their_own() -> None:
    outboxes = {"pay<ments": {"sent": 1234, "refused": 2, "waiting": 7, "oldest_seconds": 65.2}}
    text = page(status(Metrics(), outboxes=outboxes))
    assert '<th scope="col">outbox</th>' in text
    assert "<td>pay&lt;ments</td>" in text
    assert re.findall(r'<td data-name="([^"]+)">(.*?)</td>', text) == [
        ("waiting", "7"),
        ("oldest", "1 min 5 s"),
        ("sent", "1,234"),
        ("refused", '<span class="bad">2</span>'),
    ]
    assert "No queue has been started" not in text
    assert "outbox" not in page(status(Metrics(), outboxes={}))
