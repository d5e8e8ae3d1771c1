"""Values files: what works (`scenarios/`, `helm/examples/`) and what is refused (`refused/`); their first lines are comments that tell more."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helm.chart import EXAMPLES, OLDEST

__all__ = ["REFUSED", "SCENARIOS", "Scenario"]

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Scenario:
    """One values file."""

    path: Path

    @property
    def values(self) -> dict[str, Any]:
        values: dict[str, Any] = yaml.safe_load(self.path.read_text())
        return values

    @property
    def kubernetes(self) -> str:
        """The oldest Kubernetes that it works on."""
        return self._told("kubernetes") or OLDEST

    @property
    def release(self) -> str:
        """The release's name."""
        return self._told("release") or "orders"

    @property
    def says(self) -> str:
        """The sentence that refuses it."""
        return self._told("says")

    def _told(self, key: str) -> str:
        found = re.search(rf"^# {key}: (.*)$", self.path.read_text(), re.MULTILINE)
        return found[1] if found else ""

    def __str__(self) -> str:
        return self.path.stem


SCENARIOS = [Scenario(path) for path in sorted([*(HERE / "scenarios").glob("*.yaml"), *EXAMPLES.glob("*-values.yaml")])]
REFUSED = [Scenario(path) for path in sorted((HERE / "refused").glob("*.yaml"))]
