"""What `longshore new` writes, and what it refuses to write."""

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from worker.errors import UsageError
from worker.scaffold import scaffold
from worker.settings import load

SHOP = [
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
    "Makefile",
    "README.md",
    "demo.py",
    "docker-compose.yml",
    "fleet.yaml",
    "handlers.py",
    "pytest.ini",
    "requirements.txt",
    "tests/test_fleet.py",
    "tests/test_handlers.py",
]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A service called shop."""
    scaffold("shop", tmp_path / "shop")
    return tmp_path / "shop"


def compose(shop: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((shop / "docker-compose.yml").read_text())
    return document


def test_a_service_has_everything_that_it_needs_to_be_tested_and_shipped(tmp_path: Path) -> None:
    written = scaffold("shop", tmp_path / "deep" / "down")
    assert sorted(path.relative_to(tmp_path / "deep" / "down").as_posix() for path in written) == SHOP
    assert all(path.is_file() for path in written)


def test_no_placeholder_is_left(shop: Path) -> None:
    left = {path.name: re.findall(r"\{\{.*?\}\}", path.read_text()) for path in shop.rglob("*") if path.is_file()}
    assert {name: found for name, found in left.items() if found} == {}


def test_every_name_that_is_allowed_makes_a_fleet_that_loads(tmp_path: Path) -> None:
    """Also the longest: what is appended to it keeps within SQS's 80 characters."""
    for name in ("s", "shop", "my-service", "a1-b2-c3", "s" * 40):
        scaffold(name, tmp_path / name)
        fleet = load(tmp_path / name / "fleet.yaml", environ={})
        assert (fleet.service, list(fleet.queues), fleet.warnings) == (name, [f"{name}-orders"], ())


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("My_Shop", "my-shop"),
        ("shop-", "shop"),
        ("-shop", "shop"),
        ("2shops", "shops"),
        ("my--shop", "my-shop"),
        ("my shop", "my-shop"),
        ("my.shop/../..", "my-shop"),
        ("shop\n", "shop"),
        ("s" * 41, "s" * 40),
        ("läden", "l-den"),
        ("", "my-service"),
        ("..", "my-service"),
        ("店", "my-service"),
    ],
)
def test_a_name_that_cannot_name_queues_and_images_is_refused_with_the_nearest(
    tmp_path: Path, name: str, nearest: str
) -> None:
    with pytest.raises(UsageError, match=rf"cannot name a service, .* such as {nearest}\Z"):
        scaffold(name, tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []
    scaffold(nearest, tmp_path / "shop")


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(shop: Path) -> None:
    (shop / "handlers.py").write_text("mine")
    with pytest.raises(UsageError, match="shop is not empty, and nothing in it was touched"):
        scaffold("shop", shop)
    assert (shop / "handlers.py").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert scaffold("shop", tmp_path / "shop")


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_place_that_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "shop"
    if kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to("nowhere")
    with pytest.raises(UsageError, match="exists and is not a directory"):
        scaffold("shop", place)


def test_a_service_wants_the_release_that_made_it(shop: Path) -> None:
    version = metadata.version("longshore")
    assert f"longshore[local,uvloop]=={version}\n" in (shop / "requirements.txt").read_text()
    assert f"ARG LONGSHORE_IMAGE=longshore:{version}\n" in (shop / "Dockerfile").read_text()
    assert f"${{LONGSHORE_IMAGE:-longshore:{version}}}" in (shop / "docker-compose.yml").read_text()


def test_the_image_adds_nothing_but_handlers_and_fleet_file(shop: Path) -> None:
    instructions = [line.split(maxsplit=1) for line in (shop / "Dockerfile").read_text().splitlines()]
    assert [name for name, _ in instructions[:2]] == ["ARG", "FROM"]
    assert instructions[2:] == [["COPY", "fleet.yaml /etc/longshore/"], ["COPY", "handlers.py /app/"]]
    assert (shop / ".dockerignore").read_text() == "*\n!handlers.py\n!fleet.yaml\n"


def test_compose_gives_the_drain_its_time(shop: Path) -> None:
    drain = load(shop / "fleet.yaml", environ={}).drain_seconds
    assert int(compose(shop)["services"]["worker"]["stop_grace_period"].removesuffix("s")) >= drain + 5


def test_compose_listens_on_loopback_only(shop: Path) -> None:
    ports = [port for service in compose(shop)["services"].values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_takes_another_localstack_and_its_token(shop: Path) -> None:
    localstack = compose(shop)["services"]["localstack"]
    assert localstack["image"] == "${LOCALSTACK_IMAGE:-localstack/localstack:4.14.0}"
    assert localstack["environment"]["LOCALSTACK_AUTH_TOKEN"] == "${LOCALSTACK_AUTH_TOKEN:-}"


def test_compose_starts_workers_once_their_queues_are_there(shop: Path) -> None:
    services = compose(shop)["services"]
    assert services["topology"]["command"] == ["topology", "apply"]
    assert services["worker"]["depends_on"] == {"topology": {"condition": "service_completed_successfully"}}
    assert not {"ports", "container_name"} & services["worker"].keys(), "or --scale would not work"


def test_compose_takes_rights_away_that_a_worker_does_not_need(shop: Path) -> None:
    for name in ("topology", "worker"):
        service = compose(shop)["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose(shop)["services"]["worker"]["volumes"] == ["state:/var/lib/longshore"]  # the image's state_dir
