"""CPU per message: the worker with everything on against a bare aiobotocore loop, on the same endless stub, in turns."""

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Figures, goal
from benchmarks.programs import CONSUMER_CORE, LONGSHORE, STUB_CORE, Program, Stub
from benchmarks.sqs import ACCOUNT

__all__ = ["RATIO_GOAL", "run"]

RATIO_GOAL = 1.3
WARM_UP_MESSAGES = 5_000
HAND_OVER_SECONDS = 0.3
"""What was on its way for the other consumer is settled by then."""
BARE_QUEUE, WORKER_QUEUE = "bare", "worker"
FLEET = f"""
service: benchmark
server: {{port: 0}}
log: {{format: json, level: info}}
queues:
  {WORKER_QUEUE}:
    handlers: benchmarks.handlers:router
    concurrency: 40
    handler_timeout_seconds: 20
"""


@dataclass
class Consumer:
    """One of the two, and what it cost in each round."""

    name: str
    queue: str
    program: Program
    cpu_seconds: Figures = field(default_factory=Figures)
    """Per 10,000 messages received, handled and deleted."""
    rate: Figures = field(default_factory=Figures)
    """Messages per second."""
    load: Figures = field(default_factory=Figures)
    """Share of its core, in percent."""
    stub_load: Figures = field(default_factory=Figures)
    rss_megabytes: Figures = field(default_factory=Figures)


def run(rounds: int, seconds: float) -> bool:
    """Measure in turns, print, and return whether the goal is met."""
    with tempfile.TemporaryDirectory() as folder, Stub() as stub, _bare(stub) as bare, _worker(stub, folder) as worker:
        yardstick = Consumer("aiobotocore", BARE_QUEUE, bare)
        longshore = Consumer("longshore", WORKER_QUEUE, worker)
        consumers = [yardstick, longshore]
        for consumer in consumers:
            stub.supply(consumer.queue)
            stub.wait_until_deleted(WARM_UP_MESSAGES, consumer.queue, consumer.program)
        for _ in range(rounds):
            for consumer in consumers:
                _measure(consumer, stub, seconds)
            consumers.reverse()
    _print(consumers, rounds, seconds)
    ratio = longshore.cpu_seconds.median / yardstick.cpu_seconds.median
    pairs = zip(longshore.cpu_seconds.values, yardstick.cpu_seconds.values, strict=True)
    print(
        f"ratio round by round, which a noisy machine disturbs less: {Figures([ours / theirs for ours, theirs in pairs]).spread()}"
    )
    print(f"ratio of the medians: {ratio:.2f}; {goal(ratio, RATIO_GOAL, '')}")
    return ratio <= RATIO_GOAL


def _measure(consumer: Consumer, stub: Stub, seconds: float) -> None:
    """Give the consumer its turn and add one round to its figures; the other waits in its long polls."""
    program = consumer.program
    stub.supply(consumer.queue)
    time.sleep(HAND_OVER_SECONDS)
    began, deleted = time.monotonic(), stub.deleted(consumer.queue)
    cpu, stub_cpu = program.cpu_seconds(), stub.cpu_seconds()
    time.sleep(seconds)
    messages = stub.deleted(consumer.queue) - deleted
    cpu, stub_cpu = program.cpu_seconds() - cpu, stub.cpu_seconds() - stub_cpu
    elapsed = time.monotonic() - began
    consumer.cpu_seconds.values.append(cpu / messages * 10_000)
    consumer.rate.values.append(messages / elapsed)
    consumer.load.values.append(cpu / elapsed * 100)
    consumer.stub_load.values.append(stub_cpu / elapsed * 100)
    consumer.rss_megabytes.values.append(program.rss_bytes() / 1e6)


def _bare(stub: Stub) -> Program:
    url = f"{stub.endpoint}/{ACCOUNT}/{BARE_QUEUE}"
    return Program((sys.executable, "-m", "benchmarks.bare", url), CONSUMER_CORE, extra=stub.environment)


def _worker(stub: Stub, folder: str) -> Program:
    """Start `longshore run`. Each message's log line is rendered and written; what a disk makes of it is not Longshore's."""
    path = Path(folder) / "fleet.yaml"
    path.write_text(FLEET)
    return Program((*LONGSHORE, "run", "--config", str(path)), CONSUMER_CORE, extra=stub.environment)


def _print(consumers: list[Consumer], rounds: int, seconds: float) -> None:
    shared = " (one core for both: the figures are of little use)" if CONSUMER_CORE == STUB_CORE else ""
    print(f"messages: {rounds} rounds of {seconds:g} s each, in turns, consumer and stub on a core each{shared}")
    print(f"{'':24}{'min':>9}{'median':>9}{'max':>9}")
    for consumer in sorted(consumers, key=lambda consumer: consumer.name):
        print(consumer.name)
        _print_figures("CPU s per 10,000", consumer.cpu_seconds, digits=3)
        _print_figures("messages per second", consumer.rate)
        _print_figures("% of its core", consumer.load)
        _print_figures("% of the stub's core", consumer.stub_load)
        _print_figures("RSS MB", consumer.rss_megabytes)


def _print_figures(name: str, figures: Figures, *, digits: int = 0) -> None:
    print(f"  {name:22}{figures.spread(digits)}")
