"""Write what is made from other files: the part of values.schema.json about `fleet`, and the chart's README.

`python helm/generate.py`; a test compares what it would write with what is there.
"""  # noqa: INP001 - a script beside the chart

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

__all__ = ["documented", "main", "pages"]

HERE = Path(__file__).resolve().parent
CHART = HERE / "longshore"
FLEET = "fleet"
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z]\w*):")


def pages() -> dict[Path, str]:
    """Return the content of every generated file by its path."""
    return {CHART / "values.schema.json": _schema(), CHART / "README.md": _readme()}


def main() -> None:
    """Write the generated files."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def _schema() -> str:
    """Put the schema of the fleet file into that of the values; what is required there is asked for by a template."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    fleet = json.loads((HERE.parent / "config/fleet.schema.json").read_text(encoding="utf-8"))
    definitions = {FLEET: {key: fleet[key] for key in ("type", "additionalProperties", "properties")}}
    definitions |= {f"{FLEET}.{name}": node for name, node in fleet["$defs"].items()}
    chart = {name: node for name, node in schema["$defs"].items() if name.split(".")[0] != FLEET}
    schema["$defs"] = chart | _as_values(definitions)
    queues = schema["$defs"][FLEET]["properties"]["queues"]
    queues.pop("minProperties", None)  # a template says better what to do
    return json.dumps(schema, indent=2) + "\n"


def _as_values(node: Any, *, is_names: bool = False) -> Any:
    """Return the schema in draft 7, references under their new names, without the notes that only Longshore reads.

    In a mapping of names (`properties`, `$defs`) every key is a name, also one that is called `default`.
    """
    if isinstance(node, list):
        return [_as_values(inner) for inner in node]
    if not isinstance(node, Mapping):
        return node
    if "$ref" in node:
        return {"$ref": node["$ref"].replace("#/$defs/", f"#/$defs/{FLEET}.")}
    return {
        key: _as_values(inner, is_names=key in {"properties", "$defs"} and not is_names)
        for key, inner in node.items()
        if is_names or not (key.startswith("x-") or key in {"examples", "default"})
    }


def documented(text: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the comment of every value that has one that starts with `# --`."""
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            comment = [stripped.removeprefix("# -- ")]
        elif stripped.startswith("#"):
            comment += [stripped.removeprefix("# ")] if comment else []
        elif found := _KEY.match(line):
            indent = len(found["indent"])
            path = [*(each for each in path if each[0] < indent), (indent, found["key"])]
            if comment:
                yield ".".join(key for _, key in path), " ".join(comment)
            comment = []


def _readme() -> str:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for key, comment in documented(text):
        default: Any = values
        for part in key.split("."):
            default = default[part]
        cell = f"`{json.dumps(default)}`".replace("|", r"\|")
        lines.append(f"| `{key}` | {cell} | {comment.replace('|', chr(92) + '|')} |")
    written = (HERE / "README.md.in").read_text(encoding="utf-8")
    replaced = {
        "@VALUES@": "\n".join(lines),
        "@DESCRIPTION@": chart["description"],
        "@VERSION@": chart["version"],
        "@KUBE@": chart["kubeVersion"].removesuffix("-0").removeprefix(">="),
    }
    for mark, content in replaced.items():
        written = written.replace(mark, content)
    return written


if __name__ == "__main__":
    main()
