"""The exact and effective receptive field (RF) of any Keras model, and rho to RF and back.

The arithmetic imports no framework.
"""

from typing import TYPE_CHECKING

from rfkeras.rf.axis import AxisField, AxisLayer, FiniteChain, LayerChain, compose
from rfkeras.rf.field import LayerField, ReceptiveField
from rfkeras.rf.rho import (
    RHO_MAX,
    BackbonePlan,
    BlockPlan,
    RhoStep,
    StagedPlan,
    accepted_rhos,
    explain_rho,
    plan_backbone,
    plan_stages,
    rf_of_rho,
    rho_for,
)
from rfkeras.rf.rule_registry import Call, register_rule
from rfkeras.rf.tensor import TensorField
from rfkeras.utils.lazy import lazy_attributes

if TYPE_CHECKING:
    from rfkeras.rf.effective import effective_receptive_field
    from rfkeras.rf.effective_result import EffectiveField
    from rfkeras.rf.lengths import shortest_input
    from rfkeras.rf.trace import receptive_field

__all__ = [
    "RHO_MAX",
    "AxisField",
    "AxisLayer",
    "BackbonePlan",
    "BlockPlan",
    "Call",
    "EffectiveField",
    "FiniteChain",
    "LayerChain",
    "LayerField",
    "ReceptiveField",
    "RhoStep",
    "StagedPlan",
    "TensorField",
    "accepted_rhos",
    "compose",
    "effective_receptive_field",
    "explain_rho",
    "plan_backbone",
    "plan_stages",
    "receptive_field",
    "register_rule",
    "rf_of_rho",
    "rho_for",
    "shortest_input",
]


# The rest needs neither Keras nor NumPy.
__getattr__ = lazy_attributes(
    __name__,
    {
        "effective_receptive_field": "rfkeras.rf.effective",
        "EffectiveField": "rfkeras.rf.effective_result",
        "receptive_field": "rfkeras.rf.trace",
        "shortest_input": "rfkeras.rf.lengths",
    },
)
