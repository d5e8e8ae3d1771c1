"""The chart through Helm: values in, manifests or a refusal out."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CHART", "EXAMPLES", "OLDEST", "ROOT", "Helm", "Manifest", "Refused", "by_kind", "pods"]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/longshore"
EXAMPLES = ROOT / "helm/examples"
OLDEST = "1.27"
"""The oldest Kubernetes that the chart is for."""

Manifest = dict[str, Any]


class Refused(Exception):  # noqa: N818 - what Helm said, not a defect
    """Helm refused the values."""


@dataclass(frozen=True, slots=True)
class Helm:
    """One version of Helm, in a folder to work in."""

    binary: Path
    folder: Path

    def render(
        self, values: Mapping[str, Any], *, kubernetes: str = OLDEST, release: str = "orders", chart: Path = CHART
    ) -> list[Manifest]:
        """Return the manifests, hooks and tests included; raise `Refused` with what Helm says."""
        rendered = self._run(
            "template", release, str(chart), values, "--kube-version", f"{kubernetes}.0", "--namespace", "shop"
        )
        return [document for document in yaml.load_all(rendered, Loader=yaml.CSafeLoader) if document]

    def lint(self, values: Mapping[str, Any], *, kubernetes: str = OLDEST) -> str:
        """Return what `helm lint --strict` says; raise `Refused` when it finds something."""
        return self._run("lint", "--strict", str(CHART), values, "--kube-version", f"{kubernetes}.0")

    def notes(self, values: Mapping[str, Any], *, kubernetes: str = OLDEST) -> str:
        """Return what `helm install` prints, rendered in a copy of the chart, as no cluster is asked."""
        copy = self.folder / "with-notes"
        shutil.copytree(CHART, copy, dirs_exist_ok=True)
        shown = 'kind: Notes\ntext: |\n  {{- include "longshore.notes" . | nindent 2 }}\n'
        (copy / "templates/notes-shown.yaml").write_text(shown)
        manifests = self.render(values, kubernetes=kubernetes, chart=copy)
        return str(next(each["text"] for each in manifests if each["kind"] == "Notes"))

    def install_dry(self, values: Mapping[str, Any]) -> str:
        """Return what `helm install --dry-run=client` prints."""
        return self._run("install", "orders", str(CHART), values, "--dry-run=client")

    def _run(self, command: str, *arguments: str | Mapping[str, Any]) -> str:
        file = self.folder / "values.json"
        words: list[str] = []
        for argument in arguments:
            if isinstance(argument, str):
                words.append(argument)
            else:
                file.write_text(json.dumps(argument, ensure_ascii=False), encoding="utf-8")
                words += ["--values", str(file)]
        environment = {"HOME": str(self.folder), "KUBECONFIG": "/dev/null"}
        done = subprocess.run(
            [self.binary, command, *words], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            raise Refused(done.stderr + (done.stdout if command == "lint" else ""))
        return done.stdout


def by_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Return the manifests of a kind."""
    return [each for each in manifests if each["kind"] == kind]


def pods(manifests: list[Manifest]) -> list[tuple[str, Manifest]]:
    """Return kind/name and pod of everything that makes pods; the pod has `metadata` and `spec`."""
    found: list[tuple[str, Manifest]] = []
    for each in manifests:
        where = f"{each['kind']}/{each.get('metadata', {}).get('name')}"
        if each["kind"] == "Pod":
            found.append((where, each))
        elif each["kind"] in {"Deployment", "Job"}:
            found.append((where, each["spec"]["template"]))
    return found
