"""Golden arrays of SAC, TD-MPC and DreamerV3, and how far this project is from them."""

from tests.golden_baselines.dreamerv3 import (
    GoldenDreamerV3,
    errors_of_dreamerv3_imagination,
    errors_of_dreamerv3_networks,
)
from tests.golden_baselines.errors import Errors, errors_of_updates
from tests.golden_baselines.sac import GoldenSAC, errors_of_sac_networks
from tests.golden_baselines.tdmpc import (
    GoldenTDMPC,
    errors_of_tdmpc_networks,
    errors_of_tdmpc_plans,
    errors_of_tdmpc_replay,
    errors_of_tdmpc_schedules,
)

READERS = {"sac": GoldenSAC, "tdmpc": GoldenTDMPC, "dreamerv3": GoldenDreamerV3}

__all__ = [
    "READERS",
    "Errors",
    "GoldenDreamerV3",
    "GoldenSAC",
    "GoldenTDMPC",
    "errors_of_dreamerv3_imagination",
    "errors_of_dreamerv3_networks",
    "errors_of_sac_networks",
    "errors_of_tdmpc_networks",
    "errors_of_tdmpc_plans",
    "errors_of_tdmpc_replay",
    "errors_of_tdmpc_schedules",
    "errors_of_updates",
]
