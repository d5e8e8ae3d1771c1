"""`longshore run` as it is measured: one queue each, everything on. What is written per message goes to /dev/null."""

from pathlib import Path

from benchmarks.programs import CONSUMER_CORE, LONGSHORE, Program, Stub

__all__ = ["BATCHES", "FIFO", "ONCE", "PLAIN", "fleet_of", "worker"]

PLAIN, FIFO, BATCHES, ONCE = "worker", "worker.fifo", "batches", "once"
HEAD = """
service: benchmark
server: {{port: 0}}
log: {{format: json, level: info}}
state_dir: {folder}
idempotency: {{store: 'sqlite:///{folder}/marks.sqlite'}}
queues:
"""
QUEUES = {
    PLAIN: "{handlers: 'benchmarks.handlers:router', concurrency: 40, handler_timeout_seconds: 20}",
    FIFO: "{handlers: 'benchmarks.handlers:router', concurrency: 100, handler_timeout_seconds: 20}",
    ONCE: "{handlers: 'benchmarks.handlers:once', concurrency: 40, handler_timeout_seconds: 20}",
    BATCHES: "{handlers: 'benchmarks.handlers:batches', concurrency: 4, handler_timeout_seconds: 20}",
}


def fleet_of(queue: str, folder: str) -> Path:
    """Write the fleet file of one queue and return its path."""
    path = Path(folder) / f"{queue}.yaml"
    path.write_text(HEAD.format(folder=folder) + f"  {queue}: {QUEUES[queue]}\n")
    return path


def worker(queue: str, folder: str, stub: Stub) -> Program:
    """Start a worker that consumes the queue."""
    command = (*LONGSHORE, "run", "--config", str(fleet_of(queue, folder)))
    return Program(command, CONSUMER_CORE, extra=stub.environment)
