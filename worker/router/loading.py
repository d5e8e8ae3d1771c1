"""From `module:attribute`, as a fleet file names its handlers, to the router; every mistake is one sentence."""

import difflib
import importlib
import os
import pkgutil
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Final

from worker.errors import ConfigError, UsageError
from worker.router.handler import shown_path
from worker.router.routing import Router

__all__ = ["load_router"]

_REFERENCE: Final = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<attribute>[^\W\d]\w*)")
_NOT_THE_USERS: Final = tuple(
    f"{path}{os.sep}"
    for path in (
        *(Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")),
        Path(__file__).parent,
        Path(__file__).parents[1] / "middleware",
    )
)


def load_router(reference: str) -> Router:
    """Import the module of `module:attribute` and return its router, checked; the working directory is importable.

    Raises `ConfigError`: a missing module or attribute (with the nearest name), an import that fails (with the place
    in the user's code), something that is no router, or a router without handlers.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise ConfigError(
            f"handlers {reference!r} is not of the form `module:attribute`, such as `orders.handlers:router`"
        )
    module = _imported(match["module"], reference)
    found = getattr(module, match["attribute"], None)
    if isinstance(found, Router):
        try:
            found.check()
        except ConfigError as error:
            raise ConfigError(f"handlers `{reference}`: {error}") from None
        return found
    routers = [name for name, value in vars(module).items() if isinstance(value, Router)]
    hint = _hidden(match["module"]) or _did_you_mean(match["attribute"], routers or vars(module))
    if hasattr(module, match["attribute"]):
        raise ConfigError(
            f"handlers `{reference}` names a {type(found).__name__}, not a Router{hint}; name a `worker.Router` object"
        )
    raise ConfigError(
        f"handlers `{reference}`: the module has no `{match['attribute']}`{hint}; name a `worker.Router` object"
    )


def _imported(name: str, reference: str) -> ModuleType:
    if (here := _working_directory()) not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except UsageError as error:  # by `Router(...)` or `on` in the user's module
        place = _users_place(error)
        where = "" if place.rpartition(":")[0] in str(error) else f" ({place})"
        raise ConfigError(f"handlers `{reference}`: {error}{where}") from None
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _import_failed(reference, error) from None
        parent, _, missing = error.name.rpartition(".")
        hint = _hidden(name) or _did_you_mean(missing, _modules_in(parent))
        raise ConfigError(
            f"handlers `{reference}`: there is no module `{error.name}`{hint}; it must be installed or stand in {here}"
        ) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's module raises is told in one sentence
        raise _import_failed(reference, error) from None


def _working_directory() -> str:
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        raise UsageError("the working directory does not exist any more: change to one that does") from None


def _import_failed(reference: str, error: BaseException) -> ConfigError:
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return ConfigError(f"handlers `{reference}` cannot be imported: {what} ({_users_place(error)})")


def _users_place(error: BaseException) -> str:
    """Return file:line of the innermost frame in the user's code, or in a library's when there is none."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{shown_path(error.filename)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    users = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    last = (users or frames)[-1]
    return f"{shown_path(last.filename)}:{last.lineno}"


def _hidden(name: str) -> str:
    """Say so when a module in the working directory is not found because an imported one has its name, as `email` has."""
    top = name.partition(".")[0]
    origin = getattr(sys.modules.get(top), "__file__", None) or ""
    own = next((each for each in (Path(f"{top}.py"), Path(top)) if each.exists()), None)
    if own is None or not origin or Path(origin).is_relative_to(Path.cwd()):
        return ""
    return f", because `{top}` is {origin}, which hides {own} here: rename yours"


def _modules_in(package: str) -> Iterable[str]:
    paths = getattr(sys.modules[package], "__path__", ()) if package else None
    return [module.name for module in pkgutil.iter_modules(paths)]


def _did_you_mean(name: str, candidates: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, candidates, n=1)
    return f", did you mean `{nearest[0]}`?" if nearest else ""
