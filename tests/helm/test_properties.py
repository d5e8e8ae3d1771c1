"""Whatever values there are: allowed ones make what Kubernetes takes, all others are refused with a sentence."""

import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from helm.any_values import SCHEMA, allowed, breakable, mistakes_in
from helm.chart import Helm, Refused
from helm.kubernetes import Schemas
from helm.rules import broken
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.helm

quietly = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
NEWEST = "1.37"
SENTENCE = re.compile(
    r"^(groups|fleet|autoscaling|aws|env|podMonitor|serviceMonitor|serviceAccount|strategy|terminationGracePeriodSeconds"
    r"|preStopSleep)\S* .+: .+"
)
ACCIDENT = re.compile(
    r"nil pointer|error calling|YAML parse error|wrong type|can't evaluate|interface conversion|panic"
)
VALID: dict[str, Any] = {
    "fleet": {"queues": {"orders": {"handlers": "x:y"}}},
    "groups": {"orders": {"queues": ["orders"]}},
}
PATHS = list(breakable())


@quietly
@given(values=allowed())
def test_allowed_values_make_what_kubernetes_takes_or_are_refused_in_a_sentence(
    values: dict[str, Any], helms: dict[str, Helm], schemas: Schemas
) -> None:
    """There is nothing in between: no manifest that is none, no error of a template."""
    assert list(schemas.values(SCHEMA).iter_errors(values)) == []
    try:
        manifests = helms["4"].render(values, kubernetes=NEWEST)
    except Refused as refused:
        said = str(refused)
        assert not ACCIDENT.search(said), said
        assert any(SENTENCE.match(line) for line in said.splitlines()), said
        return
    assert [found for each in manifests if (found := schemas.violations(each, NEWEST))] == []
    with tempfile.TemporaryDirectory() as folder:
        assert broken(manifests, Path(folder)) == []


@settings(quietly, max_examples=60)
@given(data=st.data())
def test_what_the_schema_does_not_allow_is_refused_by_its_place(data: st.DataObject, helms: dict[str, Helm]) -> None:
    """A wrong kind of value, or a key that there is not, wherever it stands."""
    path, node = data.draw(st.sampled_from(PATHS))
    wrong = data.draw(mistakes_in(node) | st.just({"no-such-key": 1}) if "properties" in node else mistakes_in(node))
    with pytest.raises(Refused) as refused:
        helms["4"].render(_with(VALID, path, wrong), kubernetes=NEWEST)
    said = str(refused.value)
    assert "values don't meet the specifications of the schema" in said
    assert f"at '/{'/'.join(path)}'" in said


def test_every_value_can_be_broken() -> None:
    """The test above draws from all that the schema names."""
    assert len(PATHS) > 200
    assert {path[0] for path, _ in PATHS} == set(SCHEMA["properties"]) - {"global"}


def _with(values: dict[str, Any], path: tuple[str, ...], wrong: Any) -> dict[str, Any]:
    """Return a copy of the values with something wrong at a path."""
    key, *rest = path
    return {**values, key: _with(values.get(key, {}), tuple(rest), wrong) if rest else wrong}
