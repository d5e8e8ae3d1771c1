"""What waiting costs: CPU and memory of `longshore run` with four empty queues."""

import tempfile
import time
from pathlib import Path

from benchmarks.figures import goal
from benchmarks.programs import CONSUMER_CORE, LONGSHORE, Program, Stub

__all__ = ["CPU_GOAL_PERCENT", "RSS_GOAL_MEGABYTES", "run"]

RSS_GOAL_MEGABYTES = 85
CPU_GOAL_PERCENT = 2
QUEUES = ("order-processing", "inventory-update", "email-notification", "audit-trail")
SETTLE_SECONDS = 5.0
FLEET = """
service: benchmark
server: {port: 0}
log: {format: json, level: info}
queues:
""" + "".join(f"  {name}: {{handlers: 'benchmarks.handlers:router'}}\n" for name in QUEUES)


def run(seconds: float) -> bool:
    """Measure, print, and return whether the goals are met."""
    with tempfile.TemporaryDirectory() as folder, Stub() as stub:
        path = Path(folder) / "fleet.yaml"
        path.write_text(FLEET)
        command = (*LONGSHORE, "run", "--config", str(path))
        with Program(command, CONSUMER_CORE, extra=stub.environment) as program:
            time.sleep(SETTLE_SECONDS)
            began, calls, cpu = time.monotonic(), _calls(stub), program.cpu_seconds()
            time.sleep(seconds)
            cpu, calls = program.cpu_seconds() - cpu, _calls(stub) - calls
            percent = cpu / (time.monotonic() - began) * 100
            rss = program.rss_bytes() / 1e6
    print(f"idle: {len(QUEUES)} empty queues, {seconds:g} s, long polls of 20 s")
    print(f"  CPU % of a core {percent:.2f}; {goal(percent, CPU_GOAL_PERCENT, ' %')}")
    print(f"  RSS MB {rss:.1f}; {goal(rss, RSS_GOAL_MEGABYTES, ' MB')}")
    print(f"  calls to SQS per minute {calls / seconds * 60:.1f}")
    return percent <= CPU_GOAL_PERCENT and rss <= RSS_GOAL_MEGABYTES


def _calls(stub: Stub) -> int:
    return sum(stub.counted()["calls"].values())
