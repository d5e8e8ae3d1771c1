"""The tools, fetched once; every scenario is rendered once by each Helm."""

from collections.abc import Callable
from functools import cache

import pytest
from helm.chart import Helm, Manifest
from helm.kubernetes import Schemas
from helm.scenario import Scenario
from helm.tools import Tools, ToolsMissingError, fetch


@pytest.fixture(scope="session")
def tools() -> Tools:
    try:
        return fetch()
    except ToolsMissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def helms(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Helm]:
    """Helm by its major version."""
    return {major: Helm(path, tmp_path_factory.mktemp(f"helm{major}")) for major, path in tools.helms.items()}


@pytest.fixture(params=["3", "4"], ids=["helm3", "helm4"])
def helm(request: pytest.FixtureRequest, helms: dict[str, Helm]) -> Helm:
    """Each Helm, one after the other."""
    return helms[request.param]


@pytest.fixture(scope="session")
def schemas(tools: Tools) -> Schemas:
    return Schemas(tools.libraries)


Rendered = Callable[[Scenario, str], list[Manifest]]


@pytest.fixture(scope="session")
def rendered(helms: dict[str, Helm]) -> Rendered:
    """Return a function that gives a scenario's manifests, as a major version of Helm makes them."""

    @cache
    def render(scenario: Scenario, major: str) -> list[Manifest]:
        return helms[major].render(scenario.values, kubernetes=scenario.kubernetes, release=scenario.release)

    return render
