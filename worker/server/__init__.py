"""The worker's HTTP door: probes, metrics and status, read-only."""

from worker.server.status import StatusServer, StatusView

__all__ = ["StatusServer", "StatusView"]
