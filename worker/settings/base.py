"""`Settings`, the base of every section of the fleet file, and the words in which a section refuses a combination."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import PydanticCustomError

__all__ = ["Key", "KeyPath", "Settings", "found", "masked", "note", "refusal"]

Key = str | int
KeyPath = tuple[Key, ...]
"""The way to a value: keys of mappings and positions in lists."""

LONGEST_FOUND = 80
"""Characters of a wrong value that a sentence shows."""


class Settings(BaseModel):
    """Frozen, strict (text is no number), without unknown keys, documented by the docstrings of its attributes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )


def refusal(sentence: str, *keys: Key | KeyPath) -> PydanticCustomError:
    """Return the error that refuses a combination, to be raised in a validator.

    `keys` are the keys that are involved, relative to what is validated, the one to blame first; the sentence goes
    on where that key ends: `refusal("is 9, but must be at most max_seconds (5)", "base_seconds", "max_seconds")`.
    """
    paths = tuple(key if isinstance(key, tuple) else (key,) for key in keys)
    subject = ".".join(str(part) for part in paths[0]) + " " if paths else ""
    return PydanticCustomError(
        "refused", "{subject}{sentence}", {"subject": subject, "sentence": sentence, "keys": paths}
    )


def note(*, allowed: str | None = None, because: str | None = None, default: str | None = None) -> dict[str, JsonValue]:
    """Return what a field tells beyond its bounds: what is allowed, why, and a default that depends on other keys."""
    told = {"x-allowed": allowed, "x-because": because, "x-default": default}
    return {key: text for key, text in told.items() if text is not None}


def found(value: Any) -> str:
    """Return how a value is shown in a sentence: short, as YAML writes it, and never with the password of a URL."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case str():
            return _shortened(repr(re.sub(r"//[^/@]*@", "//***@", value)))
        case _:
            return _shortened(str(value))


def masked(url: str) -> str:
    """Return a URL as it may be shown and logged: without user and password, and without its query, which may hold them too."""
    return re.sub(r"//.*@", "//***@", url).partition("?")[0]


def _shortened(text: str) -> str:
    """Cut what would not fit into a sentence."""
    return text if len(text) <= LONGEST_FOUND else f"{text[:LONGEST_FOUND]}..."
