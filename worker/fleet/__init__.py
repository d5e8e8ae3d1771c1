"""One process of the fleet: its queues wired, supervised, drained."""

from worker.fleet.supervisor import Supervisor

__all__ = ["Supervisor"]
