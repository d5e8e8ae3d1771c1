"""What all stages of one queue share."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.engine.clock import Clock, Ticker
from worker.engine.journal import NoJournal, Suspects
from worker.engine.verdict import Rules
from worker.engine.vitals import Vitals
from worker.idempotency import Store
from worker.limits import Limiter
from worker.objects import Objects
from worker.settings import QueueSettings
from worker.source import Depth, QueueFacts, Source
from worker.telemetry.metrics import QueueMetrics

__all__ = ["QueueContext"]


@dataclass(slots=True)
class QueueContext:
    """One queue: where it comes from, how it is configured, what is known of it."""

    source: Source
    settings: QueueSettings
    metrics: QueueMetrics
    clock: Clock
    ticker: Ticker
    vitals: Vitals
    rules: Rules = field(init=False)
    """The retry rules; replaced when SQS has said what it knows of the queue."""
    journal: NoJournal = field(default_factory=NoJournal)
    """What is being handled, for the process that comes after a crash."""
    suspects: Suspects = field(default_factory=Suspects)
    """What was being handled when processes before this one died."""
    objects: Objects | None = None
    """Where large payloads lie; given to every queue that names buckets."""
    limits: Mapping[str, Limiter] = field(default_factory=dict)
    """The limits of the process, by name."""
    store: Store | None = None
    """Where it is marked what is in progress and what is done, for handlers with an `idempotency_key`."""
    depth: Depth | None = None
    """What SQS said last of the queue's size; up to half a minute old."""
    drain_ends_at: float | None = None
    """Set once the consumer drains: the moment at which handlers are cancelled."""

    def __post_init__(self) -> None:
        self.rules = Rules(self.settings)

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.settings.name

    @property
    def is_draining(self) -> bool:
        """Whether nothing new is received any more."""
        return self.drain_ends_at is not None

    def learn(self, facts: QueueFacts) -> None:
        """Take over what SQS says of the queue."""
        self.rules = Rules(self.settings, facts)
