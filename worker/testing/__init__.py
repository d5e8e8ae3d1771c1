"""What tests of handlers and fleets need: a queue in memory, faults on demand, virtual time."""

from worker.testing import virtual_time
from worker.testing.faults import Faults, Operation, Rule
from worker.testing.memory import DeadLettered, MemorySource

__all__ = ["DeadLettered", "Faults", "MemorySource", "Operation", "Rule", "virtual_time"]
