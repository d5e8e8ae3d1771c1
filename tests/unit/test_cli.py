"""The commands that need no AWS: what they print, for eyes and for programs."""

import json
import signal
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
import typer
import yaml

from worker.cli import main
from worker.cli.early import ending_early
from worker.cli.streams import mend_standard_streams
from worker.settings import schema

CONFIG = Path(__file__).parents[2] / "config" / "fleet.yaml"

Longshore = Callable[..., str]


@pytest.fixture
def longshore(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Longshore:
    """Return a function that runs a command line which must succeed, and returns its output."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["longshore", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        assert (ended.value.code, err) == (0, "")
        return out

    return run


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_is_the_distributions(longshore: Longshore, arguments: list[str]) -> None:
    assert longshore(*arguments) == metadata.version("longshore") + "\n"


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["run"],
        ["demo"],
        ["local"],
        ["version"],
        ["config"],
        ["config", "check"],
        ["config", "show"],
        ["config", "schema"],
        ["topology"],
        ["topology", "apply"],
        ["topology", "plan"],
        ["topology", "export"],
        ["publish"],
        ["new"],
        ["healthcheck"],
    ],
)
def test_help_fits_a_terminal_and_cuts_no_sentence(longshore: Longshore, command: list[str]) -> None:
    """At 80 columns every line fits, and the list of commands says each in full."""
    text = longshore(*command, "--help")
    assert text.startswith(f"Usage: {' '.join(['longshore', *command])}")
    assert max(map(len, text.splitlines())) <= 80
    assert "..." not in text.replace("[ARGS]...", "")


def test_a_good_fleet_file_is_said_to_be_in_order(longshore: Longshore) -> None:
    assert longshore("config", "check", "--config", str(CONFIG)) == "orders: 6 queues are in order\n"
    answer = json.loads(longshore("config", "check", "--config", str(CONFIG), "--json"))
    assert answer == {"ok": True, "problems": [], "warnings": []}


def test_what_is_odd_is_a_warning_and_no_mistake(longshore: Longshore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and the status is 0."""
    monkeypatch.setenv("LONGSHORE_QUEUES__INVENTORY_UPDATE__HANDLER_TIMEOUT_SECONDS", "200")
    out = longshore("config", "check", "--config", str(CONFIG))
    assert out.startswith("warning: queues.inventory-update.handler_timeout_seconds is 200")
    assert out.endswith("orders: 6 queues are in order\n")
    (warning,) = json.loads(longshore("config", "check", "--config", str(CONFIG), "--json"))["warnings"]
    assert warning in out


def test_show_prints_the_settings_in_effect(longshore: Longshore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment over the file over the defaults; as YAML that is a fleet file itself, or as JSON."""
    monkeypatch.setenv("LONGSHORE_QUEUES__ORDER_PROCESSING__CONCURRENCY", "7")
    shown = yaml.safe_load(longshore("config", "show", "--config", str(CONFIG)))
    assert json.loads(longshore("config", "show", "--config", str(CONFIG), "--json")) == shown
    assert shown["queues"]["order-processing"]["concurrency"] == 7
    assert shown["queues"]["order-processing"]["wait_time_seconds"] == 20


def test_what_show_prints_is_a_fleet_file_with_the_same_effect(longshore: Longshore, tmp_path: Path) -> None:
    shown = longshore("config", "show", "--config", str(CONFIG))
    copy = tmp_path / "copy.yaml"
    copy.write_text(shown)
    assert longshore("config", "show", "--config", str(copy)) == shown


def test_schema_prints_the_schema(longshore: Longshore) -> None:
    assert json.loads(longshore("config", "schema")) == schema()


def test_sigterm_ends_what_has_not_started() -> None:
    """With status 0, as nothing is in hand; what SIGTERM did before is put back (D1)."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as ended, ending_early():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.exit_code == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_is_not_taken_for_sigterm() -> None:
    with pytest.raises(KeyboardInterrupt), ending_early():
        raise KeyboardInterrupt


def test_closed_streams_are_opened_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no socket gets their numbers, and nothing that is printed raises."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    mend_standard_streams()
    opened = (sys.stdin, sys.stdout, sys.stderr)
    try:
        print("nobody reads this", file=sys.stderr)  # noqa: T201 - what a handler may do
        assert sys.stdin.read() == ""
    finally:
        for stream in opened:
            stream.close()
