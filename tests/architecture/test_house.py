"""The house's rules that no linter knows: sizes, who may import what, reasons for exceptions."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_LINES = 350
MAX_FUNCTION_LINES = 45
FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "base_utils"}


def modules(folder: str = "worker") -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no modules in {folder}"
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_module_fits_one_reading(path: Path) -> None:
    """A file of more than 350 lines hides a concept."""
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.stem not in FORBIDDEN_NAMES


@pytest.mark.parametrize("path", modules(), ids=name)
def test_a_function_fits_the_eye(path: Path) -> None:
    """A function of more than about forty lines does two things."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


OWNERS = {
    "prometheus_client": ("worker/telemetry/",),
    "botocore": ("worker/aws/",),
    "aiobotocore": ("worker/aws/",),
    "boto3": ("worker/aws/",),
    "aiohttp": ("worker/aws/", "worker/server/", "worker/handlers/", "worker/demo/"),
    "sqlalchemy": ("worker/handlers/", "worker/sql/"),
    "asyncpg": ("worker/idempotency/", "worker/sql/"),
    "redis": ("worker/idempotency/", "worker/limits/"),
    "aiosmtplib": ("worker/handlers/",),
    "ministack": ("worker/local/",),
    "aiosmtpd": ("worker/demo/",),
    "rich": ("worker/demo/", "worker/cli/"),
    "typer": ("worker/cli/",),
}


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_has_one_home(library: str) -> None:
    """What may be replaced one day is imported in one room only."""
    homes = {name(path) for path in modules() if any(module.split(".")[0] == library for module in imports(path))}
    assert all(home.startswith(OWNERS[library]) for home in homes), homes


def test_only_settings_and_examples_read_the_environment() -> None:
    """Every value that can be set is a documented setting (handlers are a user's code, the embedded AWS a child's world)."""
    readers = {name(path) for path in modules() if re.search(r"os\.(environ|getenv)", path.read_text())}
    allowed = ("worker/settings/", "worker/handlers/", "worker/local/", "worker/demo/")
    assert all(reader.startswith(allowed) for reader in readers), readers


def test_handlers_use_the_public_api_only() -> None:
    """The example fleet imports what any user may import."""
    for path in modules("worker/handlers"):
        for module in imports(path):
            if module.split(".")[0] == "worker":
                assert module in {
                    "worker",
                    "worker.middleware",
                    "worker.outbox",
                    "worker.testing",
                } or module.startswith("worker.handlers")


def test_every_exception_from_a_rule_says_why() -> None:
    """A `no cover`, `noqa` or `type: ignore` is followed by its code, and where it hides a defect, by its reason."""
    for path in [*modules(), *modules("tests")]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if path != Path(__file__) and re.search(r"#.*pragma: no cover(?! - \w)", line):
                pytest.fail(f"{name(path)}:{number} excludes a line from coverage without a reason")


def test_no_test_is_skipped_or_expected_to_fail() -> None:
    """What does not hold is a defect, not an expectation."""
    pattern = re.compile(r"mark\.(skip|skipif|xfail)|pytest\.(skip|xfail|importorskip)\(")
    offenders = [name(path) for path in modules("tests") if path != Path(__file__) and pattern.search(path.read_text())]
    assert offenders == []
