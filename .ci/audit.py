"""What is shipped, looked at from outside: `make audit` runs it with the tools of .venv-audit.

A bill of materials of the image's lock (CycloneDX) goes to dist/; Dockerfiles, workflows and the compose file are
checked; the lock is looked up in a database of known vulnerabilities. The exit status is 1 when something was found,
and 3 when nothing was found but the lock could not be looked up: what nobody has looked at is not in order.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

LOCK: Final = "requirements.lock"
FOUND: Final = 1
UNKNOWN: Final = 3


def main() -> int:
    """Run every check, the slow and fragile one last, and say how each ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("tools", type=Path, help="the folder of the tools")
    parser.add_argument("service", type=Path, help="the folder of a service that `longshore new` has just made")
    parser.add_argument("--dist", type=Path, default=Path("dist"), help="where reports go")
    given = parser.parse_args()
    given.dist.mkdir(parents=True, exist_ok=True)
    statuses = [told(name, run(given.tools, *command)) for name, *command in checks(given.service, given.dist)]
    statuses.append(vulnerabilities(given.tools, given.dist / "vulnerabilities.json"))
    return FOUND if FOUND in statuses else max(statuses)


def checks(service: Path, dist: Path) -> Iterator[tuple[str, ...]]:
    """Yield the name of each check, its tool and its arguments."""
    bill = f"{dist}/longshore.cdx.json"
    yield (
        *(f"bill of materials {bill}", "cyclonedx-py", "requirements", LOCK, "--pyproject", "pyproject.toml"),
        *("--output-reproducible", "--of", "JSON", "--output-file", bill),
    )
    dockerfiles = [str(path) for path in (Path("Dockerfile"), service / "Dockerfile") if path.exists()]
    yield f"hadolint {' '.join(dockerfiles)}", "hadolint", "--no-color", *dockerfiles
    schemas = {
        "github-workflows": sorted(Path(".github/workflows").glob("*.yml")),
        "dependabot": [Path(".github/dependabot.yml")],
        "compose-spec": [*Path().glob("docker-compose*.yml"), *service.glob("docker-compose.yml")],
    }
    for schema, paths in schemas.items():
        files = [str(path) for path in paths]
        yield f"schema of {' '.join(files)}", "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files
    yield "zizmor .github", "zizmor", "--offline", "--quiet", ".github"


def vulnerabilities(tools: Path, report: Path) -> int:
    """Look the lock up, and believe no answer that leaves a package out: pip-audit calls that clean."""
    report.unlink(missing_ok=True)
    ended = run(
        *(tools, "pip-audit", "--requirement", LOCK, "--require-hashes", "--disable-pip"),
        *("--progress-spinner", "off", "--format", "json", "--output", str(report)),
    )
    if not report.exists():
        words = (ended.stderr.strip().splitlines() or ["it left no word"])[-1]
        return say(UNKNOWN, f"vulnerabilities of {LOCK}: the service that knows them cannot be reached ({words[:200]})")
    packages: list[dict[str, Any]] = json.loads(report.read_text())["dependencies"]
    known = [f"{each['name']} {each['version']}: {one['id']}" for each in packages for one in each.get("vulns", ())]
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    for line in known:
        sys.stdout.write(f"{line}\n")
    if known:
        return say(FOUND, f"vulnerabilities of {LOCK}: {len(known)} known, see {report}")
    if unknown or not packages:
        return say(
            UNKNOWN,
            f"vulnerabilities of {LOCK}: nothing can be said about {len(unknown)} of {len(packages)} packages, such as "
            f"{', '.join(unknown[:3])}, because the service that knows does not answer for them here: run it where it does",
        )
    return say(0, f"vulnerabilities of {LOCK}: none known in {len(packages)} packages")


def run(tools: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a tool to its end; raise nothing for what it says."""
    return subprocess.run([tools / tool, *arguments], capture_output=True, text=True, check=False)


def told(name: str, ended: subprocess.CompletedProcess[str]) -> int:
    """Say how a check ended, with its words only if it found something."""
    if ended.returncode:
        sys.stdout.write(ended.stdout + ended.stderr)
    return say(FOUND if ended.returncode else 0, name)


def say(status: int, sentence: str) -> int:
    """Print the sentence behind its verdict, and return the status."""
    verdict = {0: "ok", FOUND: "FOUND", UNKNOWN: "UNKNOWN"}[status]
    sys.stdout.write(f"{verdict:8}{sentence}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
