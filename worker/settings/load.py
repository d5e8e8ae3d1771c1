"""`load`: from a file and the environment to settings that hold together."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.errors import ConfigError
from worker.settings.address import by_name
from worker.settings.base import masked
from worker.settings.document import parse
from worker.settings.environment import CONFIG_VARIABLE, overridden
from worker.settings.fleet import FleetSettings
from worker.settings.keys import checked
from worker.settings.sentences import Origin, sentence

__all__ = ["effective", "load"]

USUAL_PLACES = (Path("config/fleet.yaml"), Path("fleet.yaml"))


def load(path: Path | None = None, *, environ: Mapping[str, str] | None = None) -> FleetSettings:
    """Return the settings of a fleet, the environment over the file, defaults under it.

    `path` defaults to `$LONGSHORE_CONFIG`, else `config/fleet.yaml`, else `fleet.yaml`; `environ` to `os.environ`.
    Raises `ConfigError` with one sentence on the first mistake.
    """
    environ = os.environ if environ is None else environ
    place, advice = _place(path, environ)
    where = str(place)
    raw = checked(parse(_read(place, advice), where), where)
    raw, variables = overridden(raw, environ)
    try:
        return FleetSettings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(sentence(error, Origin(where, _by_name(raw), variables))) from None


def effective(settings: FleetSettings) -> dict[str, Any]:
    """Return the settings as plain data that could be written as a fleet file: merged, with every default, no secrets."""
    plain = settings.model_dump(mode="json")
    for section, members in (("queues", settings.queues), ("topics", settings.topics)):
        plain[section] = {member.address: plain[section][name] for name, member in members.items()}
    for section, key in (("idempotency", "store"), ("outbox", "database")):
        if (url := plain[section][key]) is not None:
            plain[section][key] = masked(url)
    return plain


def _by_name(raw: Mapping[Any, Any]) -> dict[Any, Any]:
    sections = {section: raw[section] for section in ("queues", "topics") if isinstance(raw.get(section), Mapping)}
    return {
        **raw,
        **{
            section: {by_name((section, key))[-1]: member for key, member in members.items()}
            for section, members in sections.items()
        },
    }


def _place(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return where the file is, and what to do if it is not there."""
    if path is not None:
        return path, "name an existing file with --config"
    if environ.get(CONFIG_VARIABLE):
        return Path(environ[CONFIG_VARIABLE]), f"correct {CONFIG_VARIABLE}, or mount the file there"
    for place in USUAL_PLACES:
        if _is_there(place):
            return place, "write it anew"
    raise ConfigError(
        f"no fleet file was found: tried {CONFIG_VARIABLE} (not set), {' and '.join(map(str, USUAL_PLACES))}; "
        f"write one of them or name one with --config"
    )


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a directory that may not be looked into: reading tells why
        return True


def _read(path: Path, advice: str) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a null byte in the name
        raise ConfigError(f"the fleet file {path} does not exist: {advice}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a directory, but must be a fleet file, such as {path / 'fleet.yaml'}") from None
    except OSError as error:
        raise ConfigError(f"the fleet file {path} cannot be read: {error.strerror}; {advice}") from None
