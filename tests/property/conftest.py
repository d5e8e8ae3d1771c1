"""How many worlds are tried: a fixed few with every change, `LONGSHORE_DOSE=full` many more, new ones each time."""

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "quick",
    max_examples=60,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("full", settings.get_profile("quick"), max_examples=3000, derandomize=False, print_blob=True)
settings.load_profile("full" if os.environ.get("LONGSHORE_DOSE") == "full" else "quick")
