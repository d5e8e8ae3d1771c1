"""`make audit`: what it says of what its tools say."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {"name": "orjson", "version": "3.10.0", "vulns": []}
VULNERABLE = {"name": "yarl", "version": "1.0", "vulns": [{"id": "PYSEC-1"}, {"id": "PYSEC-2"}]}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found"}


class Audit:
    """The audit with tools that answer what a test wants."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for tool in ("cyclonedx-py", "hadolint", "check-jsonschema", "zizmor"):
            self.tool(tool, "exit 0")
        self.answer([CLEAN])

    def tool(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!{shutil.which('sh')}\n{script}\n")
        path.chmod(0o755)

    def answer(self, packages: list[dict[str, Any]]) -> None:
        """Let pip-audit write these packages to the file that its last argument names."""
        report = json.dumps({"dependencies": packages})
        self.tool("pip-audit", f"for last; do :; done\nprintf '%s' '{report}' > \"$last\"")

    def run(self) -> tuple[int, str]:
        folder = str(self.folder)
        command = [sys.executable, ".ci/audit.py", folder, folder, "--dist", f"{folder}/dist"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.stderr == ""
        return ended.returncode, ended.stdout


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(tmp_path)


def test_nothing_found_is_a_success(audit: Audit) -> None:
    status, said = audit.run()
    assert status == 0
    assert said.endswith("ok      vulnerabilities of requirements.lock: none known in 1 packages\n")


def test_a_known_vulnerability_is_named_and_fails(audit: Audit) -> None:
    audit.answer([CLEAN, VULNERABLE, UNKNOWN])
    status, said = audit.run()
    assert status == 1
    assert "yarl 1.0: PYSEC-1\nyarl 1.0: PYSEC-2\nFOUND " in said


def test_a_package_that_nobody_has_looked_up_is_not_in_order(audit: Audit) -> None:
    """pip-audit itself says that no vulnerabilities were found when it could not look anything up."""
    audit.answer([CLEAN, UNKNOWN])
    status, said = audit.run()
    assert status == 3
    assert (
        "UNKNOWN vulnerabilities of requirements.lock: nothing can be said about 1 of 2 packages, such as rich" in said
    )


def test_a_service_that_cannot_be_reached_is_said_in_a_sentence(audit: Audit) -> None:
    audit.tool("pip-audit", "echo 'Traceback ...' >&2; echo 'ConnectionError: no such host' >&2; exit 1")
    status, said = audit.run()
    assert status == 3
    assert "cannot be reached (ConnectionError: no such host)" in said
    assert "Traceback" not in said


def test_a_report_of_yesterday_is_not_believed(audit: Audit) -> None:
    audit.run()
    audit.tool("pip-audit", "exit 1")
    assert audit.run()[0] == 3


def test_what_a_tool_finds_is_shown_and_the_others_go_on(audit: Audit) -> None:
    audit.tool("hadolint", "echo 'Dockerfile:3 DL3006'; exit 1")
    status, said = audit.run()
    assert status == 1
    assert "Dockerfile:3 DL3006\nFOUND   hadolint" in said
    assert "ok      zizmor" in said
    assert "ok      vulnerabilities" in said


def test_what_was_found_outweighs_what_is_unknown(audit: Audit) -> None:
    audit.tool("zizmor", "exit 14")
    audit.answer([UNKNOWN])
    assert audit.run()[0] == 1
