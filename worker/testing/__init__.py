"""What tests of handlers and fleets need: one event, a whole fleet, a queue and a topic in memory, faults on demand, virtual time."""

from worker.idempotency import MemoryStore
from worker.sql.migration import migrate
from worker.testing import virtual_time
from worker.testing.faults import Faults, Operation, Rule
from worker.testing.fleet import Fleet
from worker.testing.memory import DeadLettered, MemorySource
from worker.testing.memory_objects import MemoryObjects
from worker.testing.memory_topic import MemoryTopic
from worker.testing.permits import MemoryPermits
from worker.testing.run import FakeLease, run, run_batch

__all__ = [
    "DeadLettered",
    "FakeLease",
    "Faults",
    "Fleet",
    "MemoryObjects",
    "MemoryPermits",
    "MemorySource",
    "MemoryStore",
    "MemoryTopic",
    "Operation",
    "Rule",
    "migrate",
    "run",
    "run_batch",
    "virtual_time",
]
