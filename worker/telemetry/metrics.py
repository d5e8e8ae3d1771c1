"""One process's metrics, and the only place that knows Prometheus.

The numbers are plain objects and a scrape reads them, so a verb costs a fraction of a microsecond, nothing is global to the
module, and the library's multiprocess mode (an environment variable that turns counters into files) has nothing to take over.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from worker.telemetry import declared, logs
from worker.telemetry.cells import Cell, Computed, Number, Sheet, Spread
from worker.telemetry.declared import ALL, Declared
from worker.telemetry.limit_metrics import LimitMetrics
from worker.telemetry.outbox_metrics import OutboxMetrics, OutboxSnapshot
from worker.telemetry.queue_metrics import QueueMetrics, QueueSnapshot

__all__ = ["LimitMetrics", "Metrics", "OutboxMetrics", "OutboxSnapshot", "QueueMetrics", "QueueSnapshot"]


class Metrics:
    """The metrics of one process, in a registry of its own.

    A registry that is passed in takes the `longshore_*` metrics only; its owner has the process's metrics there already.
    `close` takes them out of it again.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._queues: dict[str, QueueMetrics] = {}
        self._limits: dict[str, LimitMetrics] = {}
        self._outboxes: dict[str, OutboxMetrics] = {}
        self._sheet = sheet = Sheet({})
        self._identity = Sheet({})
        self._event_loop_lag = sheet.one(declared.EVENT_LOOP_LAG, lambda: Spread(declared.EVENT_LOOP_LAG.buckets))
        self._draining = sheet.one(declared.DRAINING, Number)
        self._drain_began: float | None = None
        sheet.put(declared.DRAIN_SECONDS, Computed(self._drain_seconds))
        sheet.put(declared.LOG_LINES_DROPPED, Computed(logs.dropped_lines))
        self._registry = registry or CollectorRegistry()
        self._collector = _Collector(self._sheets)
        self._registry.register(self._collector)
        if registry is None:
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self._registry)

    def queue(self, name: str) -> QueueMetrics:
        """Return the verbs of a queue, the same object each time; all its series exist from the first call on."""
        if name not in self._queues:
            self._queues[name] = QueueMetrics(name, clock=self._clock)
        return self._queues[name]

    def limit(self, name: str) -> LimitMetrics:
        """Return the verbs of a limit, the same object each time."""
        if name not in self._limits:
            self._limits[name] = LimitMetrics(name)
        return self._limits[name]

    def outbox(self, topic: str) -> OutboxMetrics:
        """Return the verbs of a topic's outbox, the same object each time."""
        if topic not in self._outboxes:
            self._outboxes[topic] = OutboxMetrics(topic)
        return self._outboxes[topic]

    def info(self, *, service: str, version: str) -> None:
        """Say which service this is, and which version of Longshore runs it."""
        self._identity = Sheet({"service": service, "version": version})
        self._identity.one(declared.INFO, Number).value = 1

    def event_loop_lag(self, seconds: float) -> None:
        """Observe how late the event loop ran a timer."""
        self._event_loop_lag.observe(seconds)

    def draining(self) -> None:
        """Say that the process shuts down from now on."""
        if self._drain_began is None:
            self._drain_began = self._clock()
        self._draining.value = 1

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics where the Accept header asks for it, else Prometheus text.

        It may run in a thread beside the event loop.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def snapshot(self) -> dict[str, QueueSnapshot]:
        """Return every queue's numbers at this moment, by name."""
        return {name: queue.snapshot() for name, queue in self._queues.items()}

    def outboxes(self) -> dict[str, OutboxSnapshot]:
        """Return the numbers of every topic's outbox at this moment."""
        return {topic: outbox.snapshot() for topic, outbox in self._outboxes.items()}

    def close(self) -> None:
        """Take the metrics out of the registry."""
        self._registry.unregister(self._collector)

    def _sheets(self) -> list[Sheet]:
        queues, limits = list(self._queues.values()), list(self._limits.values())
        owned = [queue.sheet for queue in queues] + [limit.sheet for limit in limits]
        return [self._identity, self._sheet, *owned, *(outbox.sheet for outbox in list(self._outboxes.values()))]

    def _drain_seconds(self) -> float:
        return 0.0 if self._drain_began is None else self._clock() - self._drain_began


class _Collector(Collector):
    """Turns cells into samples when Prometheus asks."""

    def __init__(self, sheets: Callable[[], list[Sheet]]) -> None:
        self._sheets = sheets

    def collect(self) -> Iterable[Metric]:
        sheets = self._sheets()
        return [_family(metric, sheets) for metric in ALL]


def _family(metric: Declared, sheets: Iterable[Sheet]) -> Metric:
    family = Metric(metric.name.removesuffix("_total"), metric.meaning, metric.kind)
    for sheet in sheets:
        for labels, cell in sheet.series(metric):
            family.samples.extend(_samples(metric.name, labels, cell))
    return family


def _samples(name: str, labels: dict[str, str], cell: Cell) -> Iterator[Sample]:
    if isinstance(cell, Spread):
        totals = list(itertools.accumulate(cell.counts))
        bounds = (*(str(float(bound)) for bound in cell.bounds), "+Inf") if cell.bounds else ()
        for bound, total in zip(bounds, totals, strict=False):  # a summary has a total and no bounds
            yield Sample(f"{name}_bucket", {**labels, "le": bound}, total)
        yield Sample(f"{name}_count", labels, totals[-1])
        yield Sample(f"{name}_sum", labels, cell.sum)
    elif (value := cell.value) is not None:
        yield Sample(name, labels, value)
