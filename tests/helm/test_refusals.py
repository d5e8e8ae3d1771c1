"""Values that cannot work are refused with a sentence that names the value, what it is and what to do."""

import pytest
from helm.chart import Helm, Refused
from helm.scenario import REFUSED, Scenario

pytestmark = pytest.mark.helm


@pytest.mark.parametrize("scenario", REFUSED, ids=str)
def test_wrong_values_are_refused_with_a_sentence(scenario: Scenario, helm: Helm) -> None:
    with pytest.raises(Refused) as refused:
        helm.render(scenario.values, kubernetes=scenario.kubernetes, release=scenario.release)
    said = str(refused.value)
    assert scenario.says
    assert scenario.says in said
    if not scenario.says.startswith("at '"):  # a template's sentence stands on a line of its own, whole
        assert scenario.says in said.splitlines()


def test_a_cluster_that_is_too_old_is_refused(helm: Helm) -> None:
    with pytest.raises(Refused, match=r"chart requires kubeVersion: >=1\.27\.0-0 which is incompatible"):
        helm.render({"fleet": {"queues": {"orders": {"handlers": "x:y"}}}}, kubernetes="1.26")
