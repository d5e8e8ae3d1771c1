"""`longshore new`: a service that passes its own tests at once, here and where only the wheel is."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Ended, clean_environment, longshore, mistake
from support.wheel import build_wheel

OF_OUR_OWN_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTEST_ADDOPTS")
"""What `make test` hands down, and what would change what the service's own commands print."""
WALK_SECONDS = 600
"""What two environments take to install on a slow day."""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A service called shop, made by the command."""
    ended = longshore("new", "shop", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith("shop is ready: cd shop && make test && make demo\n")
    return tmp_path / "shop"


def run(*command: str | Path, folder: Path, seconds: float = 120, without: tuple[str, ...] = ()) -> Ended:
    return subprocess.run(
        command,
        cwd=folder,
        env=clean_environment(folder, without=(*OF_OUR_OWN_MAKE, *without)),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def test_a_new_service_passes_its_own_tests(shop: Path) -> None:
    ended = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", folder=shop)
    assert ended.returncode == 0, ended.stdout
    assert "5 passed" in ended.stdout


def test_a_new_service_is_clean_by_the_rules_that_linters_have_by_themselves(shop: Path) -> None:
    """A stranger's first `ruff` and `mypy --strict` find nothing to mend."""
    for tool in (
        ("ruff", "check", "--isolated", "--no-cache"),
        ("ruff", "format", "--isolated", "--no-cache", "--check"),
        ("mypy", "--strict", "--explicit-package-bases", "--cache-dir", "/dev/null"),
    ):
        ended = run(sys.executable, "-m", *tool, ".", folder=shop)
        assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.integration
def test_the_demo_of_a_new_service_ends_by_itself_when_every_order_is_taken(shop: Path) -> None:
    ended = run(sys.executable, "demo.py", folder=shop)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.endswith("3 of 3 orders were taken; exit 0\n")


def test_the_demo_of_a_broken_service_fails_and_says_why(shop: Path) -> None:
    """A demo that could not fail would show nothing."""
    (shop / "handlers.py").write_text("import nowhere_to_be_found\n")
    ended = run(sys.executable, "demo.py", folder=shop)
    assert ended.returncode == 1
    assert "longshore: handlers `handlers:router` cannot be imported" in ended.stdout
    assert ended.stdout.endswith("0 of 3 orders were taken; exit 2\n")


def test_a_wrong_name_is_one_sentence(tmp_path: Path) -> None:
    assert "cannot name a service" in mistake(longshore("new", "My Shop", folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_second_service_in_the_same_place_is_one_sentence(shop: Path) -> None:
    assert "shop is not empty" in mistake(longshore("new", "shop", folder=shop.parent))


def test_a_place_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = longshore("new", "shop", "--directory", "file/shop", folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr == "longshore: file/shop: Not a directory\n"


@pytest.fixture
def pip(shop: Path) -> Path:
    """A Python in the service's environment that installs whatever it is told, and writes down what; nothing is there."""
    calls = shop / "calls"
    python = shop / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$*" >> \'{calls}\'\n[ "$1" = -m ]\n')
    python.chmod(0o755)
    return calls


def test_longshore_comes_from_where_this_one_came_from(shop: Path, pip: Path) -> None:
    """An index may have another project of its name; what Longshore depends on does come from there."""
    run("make", "setup", folder=shop)
    first, second, _ = [line.removeprefix("-m pip install ") for line in pip.read_text().splitlines()]
    assert first.split()[-3:] == ["--no-deps", "--force-reinstall", str(Path(__file__).parents[2])]
    assert second.endswith("-r requirements.txt")


def test_a_wheel_that_is_not_there_is_one_sentence(shop: Path, pip: Path) -> None:
    ended = run("make", "test", "LONGSHORE=../dist/longshore.whl", folder=shop)
    assert ended.returncode == 2
    assert ended.stdout.splitlines()[-1].startswith("LONGSHORE is ../dist/longshore.whl, but there is nothing: name")
    assert not pip.exists()


def test_another_project_of_longshores_name_is_noticed(shop: Path, pip: Path) -> None:
    ended = run("make", "test", "LONGSHORE=", folder=shop)
    assert ended.returncode == 2
    assert "gave another project of that name: name its wheel or checkout" in ended.stdout.splitlines()[-1]
    assert not (shop / ".venv/.installed").exists()
    assert len(pip.read_text().splitlines()) == 2, "it is asked whether Longshore is there, and then no test is run"


@pytest.mark.wheel
def test_a_service_begins_where_only_the_wheel_is(tmp_path: Path) -> None:
    """`longshore new` needs no extra; the service's Makefile takes Longshore from the wheel that the command came from."""
    wheel = build_wheel(tmp_path / "dist")
    venv = tmp_path / "venv"

    def walk(*command: str | Path, folder: Path = tmp_path) -> str:
        ended = run(*command, folder=folder, seconds=WALK_SECONDS, without=("PYTHONPATH",))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    walk(sys.executable, "-m", "venv", venv)
    walk(venv / "bin/python", "-m", "pip", "install", "--quiet", wheel)
    walk(venv / "bin/longshore", "new", "shop")
    make = ("make", "--no-print-directory", f"PYTHON={venv}/bin/python")
    assert "5 passed" in walk(*make, "test", folder=tmp_path / "shop")
    assert walk(*make, "demo", folder=tmp_path / "shop").endswith("3 of 3 orders were taken; exit 0\n")
