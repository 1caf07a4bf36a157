"""The receptive field (RF): its arithmetic, and the plan from rho to kernels."""

from rfkeras.receptive_field.arithmetic import (
    AxisField,
    AxisLayer,
    FiniteChain,
    LayerChain,
    compose,
)
from rfkeras.receptive_field.plan import (
    RHO_MAX,
    BlockPlan,
    TrunkPlan,
    plan_trunk,
    rf_of_rho,
)
from rfkeras.receptive_field.stages import StagedPlan, plan_stages

__all__ = [
    "RHO_MAX",
    "AxisField",
    "AxisLayer",
    "BlockPlan",
    "FiniteChain",
    "LayerChain",
    "StagedPlan",
    "TrunkPlan",
    "compose",
    "plan_stages",
    "plan_trunk",
    "rf_of_rho",
]
