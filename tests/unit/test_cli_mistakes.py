"""What a user gets for a mistake: exit status 2 and one sentence on standard error (X1)."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from worker.cli import main

Longshore = Callable[..., tuple[int, str, str]]

GOOD = """
from worker import Message, Router
router = Router()
@router.on("order.created")
async def handle(message: Message[str]) -> None: ...
"""
HANDLERS = {
    "cli_typo.py": GOOD.replace("Message[str]", "Mesage[str]"),
    "cli_missing.py": "import no_such_library",
    "cli_syntax.py": "x = {",
    "cli_exits.py": "import sys\nsys.exit(3)",
    "cli_tie.py": GOOD + '@router.on("order.created")\nasync def other(message: Message[str]) -> None: ...\n',
    "cli_empty.py": "from worker import Router\nrouter = Router()\n",
    "cli_unknown.py": "from __future__ import annotations\n" + GOOD.replace("Message[str]", "Message[Order]"),
    "email.py": GOOD,
    "cli_plain.py": GOOD.replace("Message[str]", "int"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, importable, forgotten with its modules afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("LONGSHORE_CONFIG", raising=False)
    known = set(sys.modules)
    (tmp_path / "cli_good.py").write_text(GOOD)
    yield tmp_path
    for name in set(sys.modules) - known:
        if name.startswith("cli_"):
            del sys.modules[name]


@pytest.fixture
def longshore(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Longshore:
    """Return a function that runs a command line and returns its exit status, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["longshore", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        status = ended.value.code
        assert isinstance(status, int)
        return status, out, err

    return run


def told(longshore: Longshore, *arguments: str) -> str:
    """Run what must be refused and return its sentence."""
    status, out, err = longshore(*arguments)
    assert (status, out) == (2, "")
    assert re.fullmatch(r"longshore: [^\n]+\n", err), err
    return err


def queue(**settings: str) -> str:
    lines = "".join(f"\n    {name}: {value}" for name, value in {"handlers": "cli_good:router", **settings}.items())
    return f"queues:\n  orders:{lines}\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (queue(concurency="3"), ["queues.orders.concurency", "did you mean concurrency?"]),
        (queue(concurrency="many"), ["queues.orders.concurrency is 'many'", "1 to 1000"]),
        (queue(concurrency="0"), ["queues.orders.concurrency is 0", "1 to 1000"]),
        (queue().replace("queues", "queue"), ["queue is not a setting", "did you mean queues?"]),
        ("service: shop\n", ["queues is missing", "at least one queue"]),
        ("queues:\n  orders: {handlers: a:b\n  other: 1\n", ["is not YAML: line 3"]),
        ("queues:\n\torders: {}\n", ["line 2", "tabs are not allowed"]),
        ("", ["is empty", "at least one queue"]),
        ("- orders\n", ["is a list", "must be a mapping"]),
        ("drain_seconds: 10\n" + queue(), ["wait_time_seconds is 20", "at most 5", "drain_seconds (10)"]),
        ("server: {host: ''}\n" + queue(), ["server.host is ''", "such as 127.0.0.1"]),
        ("server: {port: 80800}\n" + queue(), ["server.port is 80800", "65535"]),
        (
            queue(dead_letter="{queue: orders-dlq}").replace("  orders:", "  orders.fifo:"),
            ["orders-dlq, a standard queue", "write orders-dlq.fifo"],
        ),
        (queue(dead_letter="{queue: dead.fifo}"), ["dead.fifo, a FIFO queue", "write orders-dlq"]),
        (
            "topics: {events: {}}\n" + queue(subscribe="[{topic: evnts}]"),
            ["subscribe[0].topic is evnts", "did you mean events?"],
        ),
    ],
)
def test_a_mistake_in_the_fleet_file_is_one_sentence(
    folder: Path, longshore: Longshore, text: str, parts: list[str]
) -> None:
    """It names the file and the key, what was found and what is allowed (X1)."""
    (folder / "fleet.yaml").write_text(text)
    for command in ("check", "show"):
        sentence = told(longshore, "config", command)
        for part in ("fleet.yaml", *parts):
            assert part in sentence


@pytest.mark.parametrize(
    ("rules", "part"),
    [
        ("{a: [1], b: [1], c: [1], d: [1], e: [1], f: [1]}", "the filter has 6 keys, but SNS takes at most 5"),
        ("{event_type: [{prefx: order.}]}", "event_type.0 has the operator prefx, but SNS knows"),
        ("{event_type: []}", "event_type is an empty list, but must be a list of at least one alternative"),
    ],
    ids=["too many keys", "wrong operator", "empty list"],
)
def test_a_filter_that_sns_would_refuse_is_found_before_sns_is_asked(
    folder: Path, longshore: Longshore, rules: str, part: str
) -> None:
    """It names the queue, its subscription and what SNS takes, without an AWS to ask (X1)."""
    subscribed = queue(subscribe=f"[{{topic: calm}}, {{topic: events, filter: {rules}}}]")
    (folder / "fleet.yaml").write_text("topics: {calm: {}, events: {}}\n" + subscribed)
    sentence = told(longshore, "config", "check")
    assert part in sentence
    assert re.search(r"queues\.orders\.subscribe(\.1|\[1\])\.filter\b", sentence)


@pytest.mark.parametrize(
    ("handlers", "parts"),
    [
        ("cli_god:router", ["there is no module `cli_god`, did you mean `cli_good`?"]),
        ("cli_good:ruter", ["has no `ruter`, did you mean `router`?"]),
        ("cli_good:handle", ["names a function, not a Router; name a `worker.Router` object"]),
        ("cli_good", ["module:attribute"]),
        ("cli_typo:router", ["NameError", "Mesage", "cli_typo.py:5"]),
        ("cli_missing:router", ["No module named 'no_such_library'", "cli_missing.py:1"]),
        ("cli_syntax:router", ["SyntaxError", "cli_syntax.py:1"]),
        ("cli_exits:router", ["SystemExit: 3", "cli_exits.py:2"]),
        ("cli_tie:router", ["both take the pattern 'order.created'", "cli_tie.py"]),
        ("cli_empty:router", ["has no handlers", "@router.on"]),
        ("cli_unknown:router", ["name 'Order' is not defined", "cli_unknown.py"]),
        ("email:router", ["which hides email.py here: rename yours"]),
        ("email.orders:router", ["which hides email.py here: rename yours"]),
        ("cli_plain:router", ["annotates `message` as `int`", "Message[OrderCreated]"]),
    ],
)
def test_handlers_that_cannot_be_used_are_one_sentence(
    folder: Path, longshore: Longshore, handlers: str, parts: list[str]
) -> None:
    """It names the reference, the place in the user's code, and the nearest name where there is one (X1)."""
    for name, text in HANDLERS.items():
        (folder / name).write_text(text)
    (folder / "fleet.yaml").write_text(queue(handlers=handlers))
    sentence = told(longshore, "config", "check")
    for part in (handlers, *parts):
        assert part in sentence


def test_a_fleet_file_that_is_not_there_is_one_sentence(
    folder: Path, longshore: Longshore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing where it was said to be, missing where it is looked for, or a directory (X1)."""
    assert "nowhere.yaml does not exist" in told(longshore, "config", "check", "--config", "nowhere.yaml")
    assert "config/fleet.yaml and fleet.yaml" in told(longshore, "config", "check")
    assert "is a directory" in told(longshore, "config", "show", "--config", str(folder))
    monkeypatch.setenv("LONGSHORE_CONFIG", "gone.yaml")
    assert "gone.yaml does not exist: correct LONGSHORE_CONFIG" in told(longshore, "config", "check")


def test_a_variable_that_names_no_setting_is_one_sentence(
    folder: Path, longshore: Longshore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt override must not be without effect in silence (X1)."""
    (folder / "fleet.yaml").write_text(queue())
    monkeypatch.setenv("LONGSHORE_QUEUES__ORDRES__CONCURRENCY", "3")
    assert "did you mean LONGSHORE_QUEUES__ORDERS__CONCURRENCY?" in told(longshore, "config", "check")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({}, "no AWS credentials were found"),
        ({"AWS_ACCESS_KEY_ID": "only-this"}, "missing: AWS_SECRET_ACCESS_KEY"),
        ({"AWS_PROFILE": "nobody"}, "the AWS profile 'nobody' was not found"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "AWS_ENDPOINT_URL is 'nonsense', but must be a URL"),
        ({"AWS_REGION": ""}, "no AWS region was found"),
        ({"AWS_REGION": "us east"}, "AWS_REGION is 'us east', but must be an AWS region"),
        ({"AWS_CONFIG_FILE": "broken.ini", "AWS_PROFILE": "p"}, "broken.ini"),
    ],
)
def test_an_environment_without_an_aws_is_one_sentence(
    folder: Path, longshore: Longshore, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], part: str
) -> None:
    """Whom to ask, where and as whom must be known before anything is asked (X1)."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    usual = {"HOME": str(folder), "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    for name, value in {**usual, **change}.items():
        monkeypatch.setenv(name, value)
    (folder / "broken.ini").write_text("[p\n")
    (folder / "fleet.yaml").write_text(queue())
    assert part in told(longshore, "config", "check", "--live")


def test_a_working_directory_that_was_removed_is_one_sentence(folder: Path, longshore: Longshore) -> None:
    """Handlers are looked for in the working directory; without one the user is told so."""
    config = folder / "fleet.yaml"
    config.write_text(queue())
    (folder / "gone").mkdir()
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder / "gone")
        (folder / "gone").rmdir()
        assert "the working directory does not exist" in told(longshore, "config", "check", "--config", str(config))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rnu"], "no such command 'rnu', did you mean 'run'? (see longshore --help)"),
        (["config", "chek"], "no such command 'chek', did you mean 'check', 'schema'? (see longshore config --help)"),
        (["run", "--cofnig", "x"], "no such option: --cofnig (Possible options: --config) (see longshore run --help)"),
        (["run", "--config"], "option '--config' requires an argument (see longshore --help)"),
        (["local", "--port", "65536"], "'--port': '65536' must be a whole number from 0 to 65535"),
        (["demo", "--events", "0"], "'--events': '0' must be a whole number from 1 to 100000"),
        (["demo", "--events", "many"], "'--events': 'many' must be a whole number from 1 to 100000"),
        (["demo", "--fleet", "order"], "--fleet 'order' is no fleet of the demo; did you mean orders?"),
        (["demo", "--fleet", "x"], "--fleet 'x' is no fleet of the demo; allowed are: orders, distributed-queue"),
        (["demo", "--fleet", "distributed-queue", "--forever"], "--forever is for the fleet orders, and distributed-"),
        (["demo", "--redis", "redis://h"], "--redis is for the fleet distributed-queue, and orders counts nothing"),
        (["demo", "--events", "9" * 9], "'--events': '999999999' must be a whole number from 1 to 100000"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(longshore: Longshore, arguments: list[str], sentence: str) -> None:
    """It names what was typed, the nearest name where there is one, and where the help is (X1)."""
    assert sentence in told(longshore, *arguments)


@pytest.mark.parametrize("group", [[], ["config"], ["topology"]])
def test_a_group_without_a_command_shows_its_help(longshore: Longshore, group: list[str]) -> None:
    """Nothing was done, so the status is 2; what can be done is on standard error."""
    status, out, err = longshore(*group)
    assert (status, out) == (2, "")
    assert err.startswith(f"Usage: {' '.join(['longshore', *group])}")
    assert "Commands:" in err
