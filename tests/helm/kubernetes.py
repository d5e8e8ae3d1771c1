"""Manifests against the schemas of Kubernetes' versions, and of the custom resources that the chart makes."""

import importlib
import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

from helm.chart import Manifest

__all__ = ["VERSIONS", "Schemas"]

VERSIONS = ("1.27", "1.31", "1.34", "1.37")
CUSTOM = Path(__file__).resolve().parent / "schemas"
"""Hand-written, closed subsets of KEDA's and Prometheus's definitions: as much of them as the chart uses."""


class Schemas:
    """Says what is wrong with a manifest."""

    def __init__(self, libraries: Path) -> None:
        if str(libraries) not in sys.path:
            sys.path.append(str(libraries))
        self._bundled = libraries / "kubernetes_validate/kubernetes-json-schema"
        self._validator = cache(self._make)
        self._registry = cache(self._definitions)

    def violations(self, manifest: Manifest, version: str) -> list[str]:
        """Return what is wrong, a sentence each: unknown keys, wrong types, missing keys."""
        validator = self._validator(manifest["apiVersion"], manifest["kind"], version)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]

    def values(self, schema: dict[str, Any]) -> Any:
        """Return a validator of a draft 7 schema."""
        return importlib.import_module("jsonschema").Draft7Validator(schema)

    def _make(self, api: str, kind: str, version: str) -> Any:
        jsonschema = importlib.import_module("jsonschema")
        custom = CUSTOM / f"{kind.lower()}.json"
        if custom.exists():
            return jsonschema.Draft7Validator(json.loads(custom.read_text()))
        group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
        schema = json.loads((self._folder(version) / f"{kind.lower()}-{group}.json").read_text())
        return jsonschema.Draft202012Validator(schema, registry=self._registry(version))

    def _definitions(self, version: str) -> Any:
        referencing = importlib.import_module("referencing")
        contents = json.loads((self._folder(version) / "_definitions.json").read_text())
        resource = referencing.Resource.from_contents(
            contents, default_specification=importlib.import_module("referencing.jsonschema").DRAFT202012
        )
        return referencing.Registry().with_resource("/api/_definitions.json", resource).crawl()

    def _folder(self, version: str) -> Path:
        return self._bundled / f"v{version}.0-local-strict"
