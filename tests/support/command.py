"""The command line as a user has it: a process of its own, with an environment that holds no other AWS."""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

__all__ = ["COMMAND", "Ended", "clean_environment", "failure", "longshore", "mistake"]

COMMAND = (sys.executable, "-c", "from worker.cli import main; main()")
Ended = subprocess.CompletedProcess[str]


def clean_environment(
    folder: Path, environment: Mapping[str, str] | None = None, *, without: Collection[str] = ()
) -> dict[str, str]:
    """Return the variables of this process without what configures AWS or Longshore, at home in an empty folder."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LONGSHORE_"))}
    whole = {**ours, "HOME": str(folder), "AWS_EC2_METADATA_DISABLED": "true", "COLUMNS": "80", **(environment or {})}
    return {name: value for name, value in whole.items() if name not in without}


def longshore(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> Ended:
    """Run `longshore` in the folder until it ends."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=clean_environment(folder, environment, without=without),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def mistake(ended: Ended) -> str:
    """Return the one sentence that a user got for a mistake."""
    return _sentence(ended, 2)


def failure(ended: Ended) -> str:
    """Return the one sentence that a user got for what failed without a mistake of his."""
    return _sentence(ended, 1)


def _sentence(ended: Ended, status: int) -> str:
    assert ended.returncode == status, (ended.returncode, ended.stdout, ended.stderr)
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("longshore: ")
    return sentence
