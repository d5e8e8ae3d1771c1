"""The image, as the product's Dockerfile makes it."""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.docker_engine import Engine

pytestmark = pytest.mark.compose

MOST_BYTES_OVER_BASE = 85_000_000
HARDENED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp")  # noqa: S108


def inspect(engine: Engine, image: str) -> Any:
    (known,) = json.loads(engine.docker("image", "inspect", image).stdout)
    return known


def test_without_a_fleet_file_it_says_what_to_mount_and_exits_with_2(engine: Engine, images: Mapping[str, str]) -> None:
    ended = engine.docker("run", "--rm", *HARDENED, images["LONGSHORE_IMAGE"], is_checked=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "longshore: the fleet file /etc/longshore/fleet.yaml does not exist: "
        "correct LONGSHORE_CONFIG, or mount the file there\n"
    )


def test_it_checks_a_fleet_file_that_is_mounted(engine: Engine, images: Mapping[str, str]) -> None:
    """With a read-only root, without capabilities, as nobody, and without a network."""
    config = Path(__file__).parents[2] / "config" / "fleet.yaml"
    mount = f"{config}:/etc/longshore/fleet.yaml:ro"
    ended = engine.docker(
        *("run", "--rm", "--network", "none", *HARDENED, "--volume", mount),
        *(images["LONGSHORE_IMAGE"], "config", "check"),
    )
    assert ended.stdout == "orders: 6 queues are in order\n"


def test_it_says_how_it_is_run(engine: Engine, images: Mapping[str, str]) -> None:
    """A user that Kubernetes can tell from root, no shell between it and its signals, and a healthcheck of its own."""
    config = inspect(engine, images["LONGSHORE_IMAGE"])["Config"]
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["longshore"], ["run"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "longshore", "healthcheck"]
    assert {"PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1"} <= set(config["Env"])
    labels = {name.removeprefix("org.opencontainers.image.") for name in config["Labels"]}
    assert labels >= {"title", "description", "licenses", "version", "revision"}


def test_it_is_small(engine: Engine, images: Mapping[str, str]) -> None:
    over_base = inspect(engine, images["LONGSHORE_IMAGE"])["Size"] - inspect(engine, images["PYTHON_IMAGE"])["Size"]
    print(f"over its base: {over_base / 1e6:.0f} MB")  # noqa: T201 - a figure for the docs
    assert 0 < over_base < MOST_BYTES_OVER_BASE


def test_nothing_in_it_is_setuid_or_builds(engine: Engine, images: Mapping[str, str], tmp_path: Path) -> None:
    """Looked at from outside, in the layers over the base; the state directory belongs to the worker."""
    base_layers = len(inspect(engine, images["PYTHON_IMAGE"])["RootFS"]["Layers"])
    archive = tmp_path / "image.tar"
    engine.docker("save", "--output", str(archive), images["LONGSHORE_IMAGE"])
    found: dict[str, tarfile.TarInfo] = {}
    with tarfile.open(archive) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        for layer in json.load(manifest)[0]["Layers"][base_layers:]:
            with tarfile.open(fileobj=image.extractfile(layer)) as files:
                found |= {member.name: member for member in files.getmembers()}
    assert [name for name, member in found.items() if member.mode & 0o6000] == []
    assert [name for name in found if Path(name).name in {"pip", "gcc", "strip", "hatchling"}] == []
    state = found["var/lib/longshore"]
    assert (state.uid, state.gid) == (65532, 65532)
