"""A lasting failure is logged once per state with a count, not once per call (R6)."""

import pytest

from worker.errors import Fault
from worker.telemetry.logs import LoggedState


class Log:
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, object]]] = []

    def warning(self, event: str, **fields: object) -> None:
        self.lines.append(("warning", event, fields))

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(("info", event, fields))


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(log: Log, clock: Clock) -> LoggedState:
    return LoggedState(log, "receive", clock=clock)


def test_a_failure_is_logged_when_it_begins_and_when_it_ends(log: Log, clock: Clock, state: LoggedState) -> None:
    for _ in range(5):
        state.failed(Fault.DENIED, "not authorized")
        assert state.is_failing
        clock.now += 1
    state.recovered()
    state.recovered()
    assert not state.is_failing
    assert log.lines == [
        (
            "warning",
            "receive fails",
            {"fault": "denied", "detail": "not authorized", "count": 1, "seconds": 0.0},
        ),
        ("info", "receive works again", {"failures": 5, "seconds": 5.0}),
    ]


def test_a_new_cause_is_logged_at_once(log: Log, state: LoggedState) -> None:
    for fault in (Fault.DENIED, Fault.DENIED, Fault.MISSING, Fault.DENIED):
        state.failed(fault)
    assert [fields["fault"] for _, _, fields in log.lines] == ["denied", "missing"]


def test_a_failure_that_lasts_is_mentioned_once_a_minute_with_a_count(
    log: Log, clock: Clock, state: LoggedState
) -> None:
    for _ in range(600):  # ten minutes, a failure each second
        state.failed(Fault.UNAVAILABLE)
        clock.now += 1
    assert len(log.lines) == 10
    assert log.lines[1][2]["count"] == 60
    assert sum(int(str(fields["count"])) for _, _, fields in log.lines) == 541
    state.recovered()
    assert log.lines[-1][2]["failures"] == 600


def test_a_failure_that_comes_and_goes_does_not_flood(log: Log, clock: Clock, state: LoggedState) -> None:
    """Throttling hits every few calls: two lines at first, then one pair a minute, and no failure is left uncounted."""
    for _ in range(120):
        state.failed(Fault.THROTTLED)
        state.recovered()
        clock.now += 0.5
    assert [event for _, event, _ in log.lines] == ["receive fails", "receive works again"]
    state.failed(Fault.THROTTLED)
    assert log.lines[-1][2]["count"] == 120


def test_an_outage_after_a_quiet_minute_is_logged_at_once(log: Log, clock: Clock, state: LoggedState) -> None:
    state.failed(Fault.TIMEOUT)
    state.recovered()
    clock.now += 61
    state.failed(Fault.TIMEOUT)
    assert [event for _, event, _ in log.lines] == ["receive fails", "receive works again", "receive fails"]


def test_a_success_without_a_failure_says_nothing(log: Log, state: LoggedState) -> None:
    state.recovered()
    assert not log.lines


def test_a_long_detail_is_cut(log: Log, state: LoggedState) -> None:
    state.failed(Fault.INVALID, "x" * 5000)
    assert len(str(log.lines[0][2]["detail"])) == 300
