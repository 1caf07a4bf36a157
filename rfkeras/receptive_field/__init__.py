"""The receptive field (RF): its arithmetic, and the plan from rho to kernels."""

from rfkeras.receptive_field.arithmetic import AxisField, AxisLayer, LayerChain, compose
from rfkeras.receptive_field.plan import (
    RHO_MAX,
    BlockPlan,
    TrunkPlan,
    plan_trunk,
    rf_of_rho,
)

__all__ = [
    "RHO_MAX",
    "AxisField",
    "AxisLayer",
    "BlockPlan",
    "LayerChain",
    "TrunkPlan",
    "compose",
    "plan_trunk",
    "rf_of_rho",
]
