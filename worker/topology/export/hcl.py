"""HCL as `terraform fmt` writes it: values, and blocks of attributes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

__all__ = ["Expression", "attributes", "block", "json_of", "quoted"]

_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), 0x7F)},
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}
_STEP = "  "


@dataclass(frozen=True, slots=True)
class Expression:
    """What Terraform computes: a reference, a call."""

    text: str


@dataclass(frozen=True, slots=True)
class _Json:
    value: Any


def json_of(value: Any) -> _Json:
    """Return a call of `jsonencode`, with references inside it."""
    return _Json(value)


def quoted(text: str) -> str:
    """Return a string literal; nothing in it is computed."""
    return f'"{text.translate(_ESCAPES).replace("${", "$${").replace("%{", "%%{")}"'


def block(head: str, body: Sequence[str]) -> list[str]:
    """Return the lines of a block: its head, what is in it, its end."""
    return [f"{head} {{", *(f"{_STEP}{line}" if line else "" for line in body), "}"]


def attributes(values: Mapping[str, Any]) -> list[str]:
    """Return the lines of attributes; the signs of neighbours on one line each stand in one column."""
    rendered = [(name, _lines(value)) for name, value in values.items()]
    lines: list[str] = []
    for is_short, group in groupby(rendered, key=lambda each: len(each[1]) == 1):
        entries = list(group)
        width = max(len(name) for name, _ in entries) if is_short else 0
        for name, (first, *rest) in entries:
            lines += [f"{name:<{width}} = {first}", *rest]
    return lines


def _lines(value: Any) -> list[str]:
    match value:
        case Expression(text):
            return [text]
        case _Json(inner):
            first, *rest = _lines(inner)
            return [f"jsonencode({first}", *rest[:-1], f"{rest[-1]})"] if rest else [f"jsonencode({first})"]
        case bool():
            return ["true" if value else "false"]
        case None:
            return ["null"]
        case str():
            return [quoted(value)]
        case float() if value.is_integer():
            return [str(int(value))]
        case int() | float():
            return [repr(value)]
        case Mapping():
            entries = attributes({quoted(str(key)): inner for key, inner in value.items()})
            return ["{", *(_STEP + line for line in entries), "}"] if entries else ["{}"]
        case _:
            return _list(value)


def _list(values: Sequence[Any]) -> list[str]:
    rendered = [_lines(value) for value in values]
    if all(len(lines) == 1 for lines in rendered):
        return [f"[{', '.join(line for (line,) in rendered)}]"]
    return ["[", *(_STEP + line for line in _separated(rendered)), "]"]


def _separated(rendered: Sequence[Sequence[str]]) -> Iterator[str]:
    for *before, last in rendered:
        yield from before
        yield f"{last},"
