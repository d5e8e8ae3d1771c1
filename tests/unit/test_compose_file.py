"""The compose file and its demo, as far as they can be looked at without Docker."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.settings import load

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)


def test_a_container_may_run_longer_than_its_drain() -> None:
    worker = SERVICES["worker"]
    grace_seconds = int(worker["stop_grace_period"].removesuffix("s"))
    assert grace_seconds >= int(worker["environment"]["LONGSHORE_DRAIN_SECONDS"]) + 5


def test_the_workers_environment_fits_the_fleet_file() -> None:
    """A variable that is no setting of it would end every worker at its start."""
    environment = {name: str(value) for name, value in SERVICES["worker"]["environment"].items()}
    settings = load(ROOT / "config" / "fleet.yaml", environ=environment)
    assert settings.server.host == environment["LONGSHORE_SERVER__HOST"]
    assert settings.aws.endpoint_url == environment["AWS_ENDPOINT_URL"]


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_on_loopback_and_can_be_moved(service: str) -> None:
    for port in SERVICES[service].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{[A-Z]+_PORT:-\d+\}:\d+", port)


def test_workers_can_be_scaled() -> None:
    """Neither a name nor a port of the host is theirs alone."""
    assert not {"ports", "container_name"} & set(SERVICES["worker"])


@pytest.mark.parametrize("service", OURS)
def test_our_containers_have_no_rights(service: str) -> None:
    ours = SERVICES[service]
    assert ours["init"]
    assert ours["read_only"]
    assert ours["cap_drop"] == ["ALL"]
    assert ours["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("service", sorted(set(SERVICES) - set(OURS)))
def test_images_of_others_are_pinned_and_can_be_replaced(service: str) -> None:
    image = re.fullmatch(r"\$\{[A-Z]+_IMAGE:-([^:]+):(.+)\}", SERVICES[service]["image"])
    assert image is not None
    assert re.match(r"v?\d+", image[2])


class TestComposeDemo:
    """`make compose-demo` on a machine where something is missing: one sentence, and what works instead."""

    def run(self, folder: Path, *, docker: str | None, **variables: str) -> str:
        """Return the sentence; `docker` is a shell script in place of Docker."""
        for name in ("sh", "dirname"):
            (folder / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
        if docker is not None:
            (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
            (folder / "docker").chmod(0o755)
        ours = {name: value for name, value in os.environ.items() if not name.startswith("LOCALSTACK_")}
        ended = subprocess.run(
            [ROOT / "deploy" / "compose-demo"],
            env={**ours, "PATH": str(folder), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 1
        (sentence,) = ended.stderr.splitlines()
        return sentence

    @pytest.mark.parametrize(
        ("docker", "missing"),
        [
            (None, "no docker command"),
            ('[ "$1" != compose ]', "no Compose v2"),
            ('[ "$1" = compose ]', "no Docker engine answers"),
        ],
    )
    def test_without_docker_it_points_at_the_demo_that_needs_none(
        self, tmp_path: Path, docker: str | None, missing: str
    ) -> None:
        sentence = self.run(tmp_path, docker=docker)
        assert missing in sentence
        assert sentence.endswith("make demo")

    @pytest.mark.parametrize("tag", ["latest", "2026.3.0", "stable"])
    def test_a_newer_localstack_without_a_token_is_refused_before_anything_starts(
        self, tmp_path: Path, tag: str
    ) -> None:
        sentence = self.run(tmp_path, docker="exit 0", LOCALSTACK_IMAGE=f"localstack/localstack:{tag}")
        assert "LOCALSTACK_AUTH_TOKEN" in sentence

    def test_when_something_does_not_start_it_says_where_to_look(self, tmp_path: Path) -> None:
        sentence = self.run(tmp_path, docker='[ "$2" != up ]')
        assert "docker compose logs" in sentence
        assert "LOCALSTACK_AUTH_TOKEN" in sentence
