"""Metrics: one verb per arrow, closed label sets, 0 from the start, nothing global (M1, M2)."""

import gc
import itertools
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from worker.errors import Fault
from worker.source import Depth
from worker.telemetry.declared import ALL, Kind
from worker.telemetry.metrics import Metrics, QueueMetrics

QUEUE = "orders"
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def series(metrics: Metrics) -> Series:
    body, _ = metrics.render()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return series(metrics)[name, frozenset(labels.items())]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics(clock: Clock) -> Metrics:
    return Metrics(clock=clock)


def test_every_series_of_a_queue_is_there_at_zero_before_anything_happened(metrics: Metrics) -> None:
    """A counter that appears with its first event hides that event from `increase`, so 0 is emitted (M1)."""
    metrics.queue(QUEUE)
    found = series(metrics)
    unknown = {"longshore_queue_messages", "longshore_dead_letter_messages"}
    for metric in ALL:
        if not metric.is_per_queue or metric.name in unknown:
            continue
        suffix = "_count" if metric.kind in {Kind.HISTOGRAM, Kind.SUMMARY} else ""
        for values in itertools.product(*metric.labels.values()):
            labels = frozenset({"queue": QUEUE, **dict(zip(metric.labels, values, strict=True))}.items())
            assert found[metric.name + suffix, labels] == 0, metric.name


def test_a_depth_that_nobody_told_is_absent_and_a_depth_of_zero_is_not(metrics: Metrics) -> None:
    """An autoscaler would take an unknown depth of 0 as an answer; a known 0 must be there (M1)."""
    queue = metrics.queue(QUEUE)
    assert not [name for name, _ in series(metrics) if "_messages" in name and "dead" not in name]
    queue.depth(Depth(visible=0, in_flight=0, delayed=0, dead_letters=None))
    for state in ("visible", "in_flight", "delayed"):
        assert value(metrics, "longshore_queue_messages", queue=QUEUE, state=state) == 0
    assert ("longshore_dead_letter_messages", frozenset({("queue", QUEUE)})) not in series(metrics)
    queue.depth(Depth(visible=3, in_flight=2, delayed=1, dead_letters=0))
    assert value(metrics, "longshore_queue_messages", queue=QUEUE, state="visible") == 3
    assert value(metrics, "longshore_dead_letter_messages", queue=QUEUE) == 0


VERBS: list[tuple[Callable[[QueueMetrics], None], str, dict[str, str], float]] = [
    (lambda q: q.received(7), "longshore_received_total", {}, 7),
    (lambda q: q.empty_receive(), "longshore_empty_receives_total", {}, 1),
    (lambda q: q.receive_error(Fault.DENIED), "longshore_receive_errors_total", {"fault": "denied"}, 1),
    (lambda q: q.receive_given_up(), "longshore_receives_given_up_total", {}, 1),
    (lambda q: q.receive_loops(3), "longshore_receive_loops", {}, 3),
    (lambda q: q.redelivered(), "longshore_redelivered_total", {}, 1),
    (lambda q: q.duplicate(), "longshore_duplicates_total", {}, 1),
    (lambda q: q.slots(16), "longshore_slots", {"state": "size"}, 16),
    (lambda q: q.in_hand(5), "longshore_in_hand", {}, 5),
    (lambda q: q.started(), "longshore_slots", {"state": "in_use"}, 1),
    (lambda q: q.handled(0.2), "longshore_handler_seconds_count", {}, 1),
    (lambda q: q.stuck(2), "longshore_stuck_handlers", {}, 2),
    (lambda q: q.settled("release", 4), "longshore_settled_total", {"outcome": "release"}, 4),
    (lambda q: q.settled("ack"), "longshore_settled_total", {"outcome": "ack"}, 1),
    (lambda q: q.beats(9, 1), "longshore_lease_beats_total", {"result": "ok"}, 9),
    (lambda q: q.beats(9, 1), "longshore_lease_beats_total", {"result": "failed"}, 1),
    (lambda q: q.lease_lost(2), "longshore_leases_lost_total", {}, 2),
    (lambda q: q.settlement_blocked(True), "longshore_settlement_blocked", {}, 1),
    (lambda q: q.ready(True), "longshore_ready", {}, 1),
    (lambda q: q.loop_restarted("lease"), "longshore_loop_restarts_total", {"loop": "lease"}, 1),
    (lambda q: q.loop_restarted("my own"), "longshore_loop_restarts_total", {"loop": "other"}, 1),
    (
        lambda q: q.api_call("receive_message", 20.0, None),
        "longshore_api_calls_total",
        {"operation": "receive_message", "result": "ok"},
        1,
    ),
    (
        lambda q: q.api_call("delete_message_batch", 0.1, Fault.THROTTLED),
        "longshore_api_calls_total",
        {"operation": "delete_message_batch", "result": "throttled"},
        1,
    ),
    (
        lambda q: q.api_call("receive_message", 20.0, None),
        "longshore_api_call_seconds_sum",
        {"operation": "receive_message"},
        20,
    ),
    (lambda q: q.api_call("Unheard", 1.0, None), "longshore_api_call_seconds_count", {"operation": "other"}, 1),
    (lambda q: q.lag(2.0, None), "longshore_lag_seconds_sum", {"since": "sent"}, 2),
    (lambda q: q.lag(None, 3.0), "longshore_lag_seconds_sum", {"since": "published"}, 3),
]


@pytest.mark.parametrize(("verb", "name", "labels", "expected"), VERBS)
def test_a_verb_moves_its_series_and_no_other_queue(
    metrics: Metrics, verb: Callable[[QueueMetrics], None], name: str, labels: dict[str, str], expected: float
) -> None:
    """Each arrow of a message's way has a verb, and each verb its series (M1)."""
    metrics.queue("other")
    verb(metrics.queue(QUEUE))
    assert value(metrics, name, queue=QUEUE, **labels) == expected
    assert value(metrics, name, queue="other", **labels) == 0


def test_an_outcome_outside_the_closed_set_is_refused(metrics: Metrics) -> None:
    """A new outcome must be declared, not slip in as a new series (M2)."""
    with pytest.raises(KeyError):
        metrics.queue(QUEUE).settled("vanished")


def test_a_lag_below_zero_counts_as_zero_and_an_unknown_one_not_at_all(metrics: Metrics) -> None:
    """SQS's clock and ours differ; a message from the future is a fresh one (M1)."""
    queue = metrics.queue(QUEUE)
    queue.lag(-3.0, None)
    assert value(metrics, "longshore_lag_seconds_sum", queue=QUEUE, since="sent") == 0
    assert value(metrics, "longshore_lag_seconds_bucket", queue=QUEUE, since="sent", le="0.005") == 1
    assert value(metrics, "longshore_lag_seconds_count", queue=QUEUE, since="published") == 0


def test_buckets_are_cumulative_and_reach_from_five_milliseconds_to_twelve_hours(metrics: Metrics) -> None:
    """A value on a bound belongs to that bucket, one past the last only to +Inf."""
    queue = metrics.queue(QUEUE)
    for seconds in (0.005, 0.2, 43_200, 43_201):
        queue.lag(seconds, None)

    def at(bound: str) -> float:
        return value(metrics, "longshore_lag_seconds_bucket", queue=QUEUE, since="sent", le=bound)

    bounds = ["0.005", "0.1", "0.25", "10800.0", "43200.0", "+Inf"]
    assert [at(bound) for bound in bounds] == [1, 1, 2, 2, 3, 4]


def test_a_handler_call_uses_a_slot_until_it_has_ended(metrics: Metrics) -> None:
    queue = metrics.queue(QUEUE)
    queue.started()
    queue.started()
    queue.handled(0.5)
    assert value(metrics, "longshore_slots", queue=QUEUE, state="in_use") == 1
    assert value(metrics, "longshore_handler_seconds_sum", queue=QUEUE) == 0.5


def test_the_time_since_the_last_message_rises_until_one_comes(metrics: Metrics, clock: Clock) -> None:
    """It is worked out at scrape time, so it rises even when nothing runs any more (M1)."""
    queue = metrics.queue(QUEUE)

    def since() -> float:
        return value(metrics, "longshore_seconds_since_last_message", queue=QUEUE)

    clock.now += 40
    queue.received(0)
    queue.empty_receive()
    assert since() == 40
    queue.received(1)
    assert since() == 0
    clock.now += 7
    assert since() == 7
    queue.last_receive(clock.now - 2)
    assert since() == 2
    queue.last_receive()
    assert since() == 0


def test_the_process_says_who_it_is_how_late_its_loop_runs_and_how_long_it_drains(
    metrics: Metrics, clock: Clock
) -> None:
    metrics.info(service="old", version="0")
    metrics.info(service="orders", version="1.2.3")
    metrics.event_loop_lag(2.0)
    found = series(metrics)
    assert found["longshore_info", frozenset({("service", "orders"), ("version", "1.2.3")})] == 1
    assert [name for name, _ in found].count("longshore_info") == 1
    assert value(metrics, "longshore_event_loop_lag_seconds_bucket", le="1.0") == 0
    assert value(metrics, "longshore_event_loop_lag_seconds_count") == 1
    assert (value(metrics, "longshore_draining"), value(metrics, "longshore_drain_seconds")) == (0, 0)
    metrics.draining()
    clock.now += 4
    metrics.draining()
    assert (value(metrics, "longshore_draining"), value(metrics, "longshore_drain_seconds")) == (1, 4)
    assert value(metrics, "longshore_log_lines_dropped_total") >= 0


def test_memory_cpu_files_and_garbage_are_there(metrics: Metrics) -> None:
    names = {name for name, _ in series(metrics)}
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"} <= names
    assert {"python_gc_collections_total", "python_info"} <= names


def test_a_snapshot_says_the_same_as_a_scrape_and_fits_json(metrics: Metrics, clock: Clock) -> None:
    queue = metrics.queue(QUEUE)
    before = queue.snapshot()
    assert before["messages"] == {"visible": None, "in_flight": None, "delayed": None}
    assert (before["handler_mean_seconds"], before["last_lag_seconds"]) == (None, {"sent": None, "published": None})
    queue.received(3)
    queue.slots(4)
    queue.in_hand(1)
    for seconds in (0.1, 0.3):
        queue.started()
        queue.handled(seconds)
    queue.settled("ack", 2)
    queue.lag(5.0, None)
    queue.depth(Depth(visible=8, in_flight=1, delayed=0, dead_letters=2))
    queue.api_call("receive_message", 0.1, None)
    queue.ready(True)
    clock.now += 9
    after = orjson.loads(orjson.dumps(metrics.snapshot()))[QUEUE]
    assert after == queue.snapshot()
    assert (after["received"], after["in_hand"], after["handled"], after["api_calls"]) == (3, 1, 2, 1)
    assert after["settled"] == {"ack": 2, "retry": 0, "dead_letter": 0, "release": 0, "abandon": 0, "expired": 0}
    assert after["slots"] == {"size": 4, "in_use": 0}
    assert after["messages"] == {"visible": 8, "in_flight": 1, "delayed": 0}
    assert (after["dead_letters"], after["ready"], after["seconds_since_last_message"]) == (2, True, 9)
    assert math.isclose(after["handler_mean_seconds"], 0.2)
    assert after["last_lag_seconds"] == {"sent": 5.0, "published": None}


def test_openmetrics_is_spoken_when_asked_for(metrics: Metrics) -> None:
    metrics.queue(QUEUE).received(1)
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert "longshore_received" in {family.name for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert metrics.render()[1].startswith("text/plain")


def test_a_queue_keeps_its_counts_when_it_is_asked_for_again(metrics: Metrics) -> None:
    assert metrics.queue(QUEUE) is metrics.queue(QUEUE)


def test_a_thousand_starts_and_stops_leave_nothing_behind() -> None:
    """Each process's metrics live and die with their object (D5)."""
    global_names = set(REGISTRY._names_to_collectors)
    Metrics().queue(QUEUE)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(1000):
        Metrics().queue(QUEUE).received(1)
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert set(REGISTRY._names_to_collectors) == global_names


def test_a_registry_of_someone_else_is_left_as_it_was() -> None:
    registry = CollectorRegistry(auto_describe=True)
    for _ in range(3):
        metrics = Metrics(registry)
        metrics.queue(QUEUE)
        assert b"longshore_received_total" in metrics.render()[0]
        assert b"process_" not in metrics.render()[0]
        metrics.close()
    assert not list(registry.collect())


def test_a_scrape_beside_the_loop_sees_queues_come() -> None:
    """The server renders in a thread while queues are added."""
    metrics = Metrics()
    failures: list[BaseException] = []

    def scrape() -> None:
        try:
            for _ in range(5):
                metrics.render()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test must see it
            failures.append(error)

    thread = threading.Thread(target=scrape)
    thread.start()
    for number in range(20):
        metrics.queue(f"queue-{number}").received(1)
    thread.join()
    assert not failures


def test_the_multiprocess_mode_of_the_library_changes_nothing(tmp_path: Path) -> None:
    """A PROMETHEUS_MULTIPROC_DIR that a base image sets would turn counters into files that pile up."""
    code = (
        "from worker.telemetry.metrics import Metrics; m = Metrics(); m.queue('q').received(5);"
        "print(m.render()[0].decode())"
    )
    environment = {
        **os.environ,
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert 'longshore_received_total{queue="q"} 5.0' in done.stdout
    assert not list(tmp_path.iterdir())
