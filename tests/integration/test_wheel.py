"""The wheel holds what a user needs, and nothing else."""

from email.message import Message
from email.parser import Parser
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.wheel import ROOT, build_wheel

pytestmark = pytest.mark.wheel

VERSION = metadata.version("longshore")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def names(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def head(wheel: Path) -> Message:
    """What an index shows of the wheel."""
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"longshore-{VERSION}.dist-info/METADATA").decode())


def test_the_wheel_is_for_every_platform(wheel: Path) -> None:
    assert wheel.name == f"longshore-{VERSION}-py3-none-any.whl"


def test_the_wheel_holds_every_file_of_the_package(names: list[str]) -> None:
    """Also those that are no Python: the demo's fleet files, the scaffold's templates, the mark that it is typed."""
    files = [path for path in (ROOT / "worker").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    fleets = {"worker/demo/fleet.yaml", "worker/demo/distributed_queue/fleet.yaml"}
    assert {"worker/py.typed", "worker/scaffold/templates/Makefile.tmpl", *fleets} <= wanted
    assert {name for name in names if name.startswith("worker/")} == wanted


def test_the_wheel_holds_nothing_but_the_package(names: list[str]) -> None:
    """No tests, no benchmarks: they would be importable beside a user's own."""
    assert {name.partition("/")[0] for name in names} == {"worker", f"longshore-{VERSION}.dist-info"}


def test_the_wheel_says_what_it_is(head: Message) -> None:
    assert (head["Name"], head["Version"], head["License-Expression"]) == ("longshore", VERSION, "Apache-2.0")
    assert head["Requires-Python"] == ">=3.11"
    assert head["Description-Content-Type"] == "text/markdown"
    assert str(head.get_payload()).startswith("# Longshore\n")
    assert {"local", "orders", "uvloop"} <= set(head.get_all("Provides-Extra", []))


def test_the_wheel_brings_its_licence_and_its_command(wheel: Path, names: list[str]) -> None:
    assert f"longshore-{VERSION}.dist-info/licenses/LICENSE" in names
    with ZipFile(wheel) as archive:
        entry_points = archive.read(f"longshore-{VERSION}.dist-info/entry_points.txt").decode()
    assert "longshore = worker.cli:main" in entry_points


def test_a_plain_install_brings_no_emulator(head: Message) -> None:
    """What only demos and tests need comes with an extra."""
    plain = [each for each in head.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert plain
    assert [each for each in plain if each.startswith(("ministack", "aiosmtpd", "sqlalchemy"))] == []
