"""`Stack`: the compose file at work in a project of its own, with free ports."""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.request import urlopen

from support.docker_engine import Ended, Engine

__all__ = ["Stack"]

_PORTS: Final = ("LOCALSTACK_PORT", "ORDERS_PORT", "MAIL_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
_STOP_SECONDS: Final = 180.0


class Stack:
    """The services of `docker-compose.yml`, up while inside `with`, and removed with their volumes afterwards."""

    def __init__(self, engine: Engine, images: Mapping[str, str]) -> None:
        self.environment = {
            **engine.environment,
            **images,
            **dict.fromkeys(_PORTS, "0"),
            "COMPOSE_PROJECT_NAME": f"longshore-test-{os.getpid()}",
        }
        self._engine = engine

    def __enter__(self) -> Self:
        try:
            self.up()
        except BaseException:
            self._down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._down()

    def up(self, *, workers: int = 3) -> None:
        """Start what does not run, and wait until it is healthy."""
        self.compose("up", "--detach", "--wait", "--scale", f"worker={workers}")

    def compose(self, *arguments: str) -> str:
        """Run `docker compose` and return its output; raise `EngineError` when it fails."""
        return self._engine.docker("compose", *arguments, environment=self.environment).stdout

    def docker(self, *arguments: str) -> str:
        """Run `docker` and return its output; raise `EngineError` when it fails."""
        return self._engine.docker(*arguments).stdout

    def containers(self, service: str, *, with_ended: bool = False) -> Sequence[str]:
        """Return the names of a service's containers, in order."""
        ended = ("--all",) if with_ended else ()
        return sorted(self.compose("ps", *ended, "--format", "{{.Name}}", service).split())

    def inspect(self, container: str) -> Any:
        """Return what the engine knows of a container."""
        (known,) = json.loads(self.docker("inspect", container))
        return known

    def exec(self, container: str, *command: str) -> Ended:
        """Run a command in a container until it ends, however it ends."""
        return self._engine.docker("exec", container, *command, is_checked=False)

    def get(self, service: str, port: int, path: str) -> Any:
        """Return the JSON that a published port of a service answers."""
        address = self.compose("port", service, str(port)).strip()
        with urlopen(f"http://{address}{path}", timeout=30) as answer:
            return json.load(answer)

    def visit(self, events: int) -> subprocess.Popen[str]:
        """Begin to publish that many events and to check their books; line by line it prints how far they are."""
        command = ("docker", "compose", "run", "--rm", "--no-deps", "-T", "publisher", "--events", str(events))
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def worker_processes(self, container: str) -> Sequence[int]:
        """Return the processes in a container, as this machine numbers them."""
        table = self.docker("top", container, "-eo", "pid").split()[1:]
        return [int(number) for number in table]

    def until(self, what: str, is_so: Any, *, seconds: float = 60) -> None:
        """Ask until it is so; fail with what was awaited."""
        ends_at = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < ends_at, f"not within {seconds:g} s: {what}"
            time.sleep(0.2)

    def _down(self) -> None:
        profiles = ("--profile", "monitoring", "--profile", "publisher")
        self._engine.docker(
            *("compose", *profiles, "down", "--volumes", "--remove-orphans"),
            environment=self.environment,
            seconds=_STOP_SECONDS,
        )
