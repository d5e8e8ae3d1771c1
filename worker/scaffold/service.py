"""From a name to a folder with a service that passes its own tests."""

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from worker.errors import UsageError

__all__ = ["scaffold"]

_FOLDER: Final = Path(__file__).with_name("templates")
_SUFFIX: Final = ".tmpl"  # so that no tool takes a template for code of ours
_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_MAX_NAME: Final = 40
"""With what is appended, a name is within the 80 characters that SQS allows."""


def scaffold(service: str, folder: Path) -> list[Path]:
    """Write the files of a new service into the folder, which is made if need be, and return them in order.

    Raises `UsageError` for a name that cannot name queues and images, and for a folder that is not empty or is none.
    """
    _check_name(service)
    _check_folder(folder)
    values = {"{{service}}": service, "{{version}}": metadata.version("longshore"), "{{origin}}": _origin()}
    return [_write(template, folder, values) for template in sorted(_FOLDER.rglob(f"*{_SUFFIX}"))]


def _origin() -> str:
    """Return the wheel or checkout that this Longshore was installed from, as the installer wrote it down (PEP 610).

    Empty for one that came from a package index, and where nothing is known.
    """
    written = metadata.distribution("longshore").read_text("direct_url.json") or "{}"
    url = urlsplit(json.loads(written).get("url", ""))
    return unquote(url.path) if url.scheme == "file" and not re.search(r"[\s$#]", unquote(url.path)) else ""


def _check_name(service: str) -> None:
    if _NAME.fullmatch(service) and len(service) <= _MAX_NAME:
        return
    nearest = re.sub(r"[^a-z0-9]+", "-", service.lower()).lstrip("-0123456789")[:_MAX_NAME].strip("-")
    raise UsageError(
        f"{service!r} cannot name a service, as it becomes part of the names of queues and images: use at most "
        f"{_MAX_NAME} lowercase letters, digits and single hyphens, a letter first, such as {nearest or 'my-service'}"
    )


def _check_folder(folder: Path) -> None:
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty, and nothing in it was touched: name a new one with --directory")
    elif folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists and is not a directory: name a new one with --directory")


def _write(template: Path, folder: Path, values: dict[str, str]) -> Path:
    place = template.relative_to(_FOLDER).with_suffix("")
    text = template.read_text(encoding="utf-8")
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    # A name that begins with a dot would be a hidden file of this repository, too.
    path = folder / place.with_name(re.sub(r"^dot-", ".", place.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
