"""The house's outside: workflows, issue forms, hooks. What they name exists, and they may do no more than they need."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
OUTSIDE = [path for path in sorted((ROOT / ".github").rglob("*")) if path.suffix in {".yml", ".yaml"}]
HOOKS = ROOT / ".pre-commit-config.yaml"
REGISTRY_HOST = re.compile(r"\b(pypi|pythonhosted|docker|quay|ghcr|gcr|npmjs|crates)\.(org|io|com)\b")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def steps(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in read(workflow)["jobs"].values() for step in job["steps"]]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_there_are_workflows_for_changes_vulnerabilities_and_releases() -> None:
    assert {path.stem for path in WORKFLOWS} == {"audit", "ci", "release"}


@pytest.mark.parametrize("path", [*OUTSIDE, HOOKS], ids=name)
def test_every_file_of_the_outside_can_be_read(path: Path) -> None:
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_every_target_that_a_workflow_makes_is_in_the_makefile(workflow: Path) -> None:
    commands = [command for step in steps(workflow) for command in step.get("run", "").split("&&")]
    made = {word for command in commands if command.split()[:1] == ["make"] for word in command.split()[1:]}
    assert made <= targets()


def test_what_a_contributor_is_told_to_run_is_run() -> None:
    """The gate has no check that CI leaves out."""
    made = {step.get("run") for step in steps(ROOT / ".github/workflows/ci.yml")}
    gate = re.findall(r"^make [a-z-]+$", (ROOT / ".ci/run").read_text(), flags=re.MULTILINE)
    assert gate
    assert set(gate) <= made


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_a_workflow_may_read_and_no_more(workflow: Path) -> None:
    """Only the job that makes a release writes, and it runs no code of the repository."""
    document = read(workflow)
    assert document["permissions"] == {"contents": "read"}
    for job in document["jobs"].values():
        if job.get("permissions"):
            assert (workflow.stem, job["permissions"]) == ("release", {"contents": "write"})
            assert [step["uses"] for step in job["steps"] if "uses" in step] == ["actions/download-artifact@v5"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_a_workflow_ends(workflow: Path) -> None:
    document = read(workflow)
    assert document["concurrency"]["group"] == "${{ github.workflow }}-${{ github.ref }}"
    assert all(job["timeout-minutes"] <= 60 for job in document["jobs"].values())


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name)
def test_every_action_is_pinned_by_tag_and_the_token_is_not_kept(workflow: Path) -> None:
    for step in steps(workflow):
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", step.get("uses", "any/action@v1"))
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_ci_runs_every_python_that_the_package_claims() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    claimed = [text.rpartition(" ")[2] for text in classifiers if re.search(r":: 3\.\d+$", text)]
    matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == claimed


def test_hooks_run_what_lint_runs() -> None:
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert lint
    entries = [hook["entry"] for repository in read(HOOKS)["repos"] for hook in repository["hooks"]]
    tools = [entry.replace(" --force-exclude", "").removeprefix(".venv/bin/") for entry in entries]
    assert tools == ["ruff check", "ruff format --check", "mypy"]
    assert all(f"$(BIN)/{tool}" in lint[1] for tool in tools)


@pytest.mark.parametrize("path", [*OUTSIDE, HOOKS, *ROOT.glob("requirements*")], ids=name)
def test_no_registry_is_named(path: Path) -> None:
    """Where packages come from is the business of whoever installs them."""
    assert REGISTRY_HOST.search(path.read_text(encoding="utf-8")) is None


@pytest.mark.parametrize("path", ["Makefile", "Dockerfile"])
def test_what_is_installed_from_a_lock_is_not_resolved_again(path: str) -> None:
    """A lock is complete; an old pip that resolves it anew takes a newer release for an extra and then misses its hash."""
    text = (ROOT / path).read_text()
    installs = [
        line for line in text.splitlines() if "pip" in line and "install" in line and "--require-hashes" in line
    ]
    assert installs
    assert [line for line in installs if "--no-deps" not in line] == []
