"""The commands of `longshore`: each is one function whose docstring is its help."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line: exit 2 for a user's mistake, 1 for a failure, each told in one sentence."""
    from worker.cli.app import app
    from worker.errors import LongshoreError, UsageError

    try:
        app()
    except UsageError as error:
        sys.exit(_told(error, 2))
    except LongshoreError as error:
        sys.exit(_told(error, 1))
    except BrokenPipeError:  # whoever read our output has gone
        sys.exit(1)


def _told(error: Exception, status: int) -> int:
    sys.stderr.write(f"longshore: {error}\n")
    return status
