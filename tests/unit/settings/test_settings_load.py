"""Finding the fleet file, and what comes out as a whole."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from worker.errors import ConfigError
from worker.settings import effective, load

MINIMAL = "queues: {orders: {handlers: app:router}}\n"
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: str, service: str) -> Path:
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).write_text(f"service: {service}\n{MINIMAL}", encoding="utf-8")
    return Path(path)


def refusal(path: Path | None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as refused:
        load(path, environ=environ or {})
    return str(refused.value)


def test_the_file_is_looked_for_where_it_usually_is() -> None:
    """A path, else the variable, else config/fleet.yaml, else fleet.yaml."""
    write("fleet.yaml", "last")
    assert load(environ={}).service == "last"
    write("config/fleet.yaml", "usual")
    assert load(environ={"LONGSHORE_CONFIG": ""}).service == "usual"
    write("named.yaml", "named")
    assert load(environ={"LONGSHORE_CONFIG": "named.yaml"}).service == "named"
    assert load(write("given.yaml", "given"), environ={"LONGSHORE_CONFIG": "named.yaml"}).service == "given"


def test_the_process_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGSHORE_SERVICE", "overridden")
    assert load(write("fleet.yaml", "written")).service == "overridden"


def test_a_missing_file_is_refused_with_what_was_tried() -> None:
    """Nothing else is taken in place of a file that was named (X1)."""
    assert refusal(None) == (
        "no fleet file was found: tried LONGSHORE_CONFIG (not set), config/fleet.yaml and fleet.yaml; "
        "write one of them or name one with --config"
    )
    write("fleet.yaml", "other")
    assert refusal(Path("x.yaml")) == "the fleet file x.yaml does not exist: name an existing file with --config"
    assert (
        refusal(None, {"LONGSHORE_CONFIG": "x.yaml"})
        == "the fleet file x.yaml does not exist: correct LONGSHORE_CONFIG, or mount the file there"
    )


def test_a_directory_is_refused_with_the_file_in_it() -> None:
    Path("config").mkdir()
    assert refusal(Path("config")) == "config is a directory, but must be a fleet file, such as config/fleet.yaml"


def test_a_file_that_cannot_be_read_is_refused() -> None:
    """Whatever the operating system says of it."""
    path = write("fleet.yaml", "x")
    assert refusal(path / "below").startswith("the fleet file fleet.yaml/below does not exist")
    assert refusal(Path("a\0b")).endswith("does not exist: name an existing file with --config")
    assert refusal(Path("x" * 300)).endswith("cannot be read: File name too long; name an existing file with --config")


def test_a_place_that_may_not_be_looked_into_is_told_of() -> None:
    """It is not passed over for the next one; a link to itself stands for any refusal of the operating system."""
    write("fleet.yaml", "last")
    Path("config").symlink_to("x" * 300)
    assert refusal(None).startswith("the fleet file config/fleet.yaml cannot be read: File name too long")


def test_what_is_shown_can_be_loaded_again() -> None:
    """`config show` is a fleet file: merged, with every default."""
    arn = "arn:aws:sqs:us-east-1:123456789012:orders"
    text = (ROOT / "config/fleet.yaml").read_text(encoding="utf-8")
    path = Path("fleet.yaml")
    path.write_text(f"{text}\n  '{arn}': {{handlers: app:router, dead_letter: none}}\n", encoding="utf-8")
    settings = load(path, environ={"LONGSHORE_DEFAULTS__ATTEMPTS": "4"})
    shown = effective(settings)
    assert shown["queues"][arn]["attempts"] == 4
    assert shown["queues"][arn]["dead_letter"] == "none"
    path.write_text(yaml.safe_dump(shown), encoding="utf-8")
    assert load(path, environ={}) == settings


def test_settings_import_neither_aws_nor_logging() -> None:
    """Settings are read before anything else is: what they add to the package's own imports stays small."""
    code = (
        "import sys, worker; before = set(sys.modules); import worker.settings; "
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    added = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"aiohttp", "aiobotocore", "boto3", "botocore", "structlog", "rich", "typer", "prometheus_client"} & {
        *added
    }
    assert "pydantic" in added
