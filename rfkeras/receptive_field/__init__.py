"""The receptive field (RF): of any Keras model, its arithmetic, the plan from rho to kernels.

This package can be called: `rfkeras.receptive_field(model)` is `receptive_field(model)`.
"""

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rfkeras.receptive_field.arithmetic import (
    AxisField,
    AxisLayer,
    FiniteChain,
    LayerChain,
    compose,
)
from rfkeras.receptive_field.explain import RhoStep, explain_rho
from rfkeras.receptive_field.inverse import accepted_rhos, rho_for
from rfkeras.receptive_field.model import receptive_field
from rfkeras.receptive_field.plan import (
    RHO_MAX,
    BlockPlan,
    TrunkPlan,
    plan_trunk,
    rf_of_rho,
)
from rfkeras.receptive_field.registry import Call, register_rule
from rfkeras.receptive_field.result import LayerField, ReceptiveField
from rfkeras.receptive_field.stages import StagedPlan, plan_stages
from rfkeras.receptive_field.tensor import TensorField
from rfkeras.receptive_field.units import (
    SpectrogramScale,
    scale_of_frontend,
    scale_of_preset,
)

if TYPE_CHECKING:
    from rfkeras.receptive_field.effective import EffectiveField, effective_receptive_field

__all__ = [
    "RHO_MAX",
    "AxisField",
    "AxisLayer",
    "BlockPlan",
    "Call",
    "EffectiveField",
    "FiniteChain",
    "LayerChain",
    "LayerField",
    "ReceptiveField",
    "RhoStep",
    "SpectrogramScale",
    "StagedPlan",
    "TensorField",
    "TrunkPlan",
    "accepted_rhos",
    "compose",
    "effective_receptive_field",
    "explain_rho",
    "plan_stages",
    "plan_trunk",
    "receptive_field",
    "register_rule",
    "rf_of_rho",
    "rho_for",
    "scale_of_frontend",
    "scale_of_preset",
]


def __getattr__(name: str) -> Any:
    # The arithmetic needs no NumPy, which takes longer to import than all the rest.
    if name in ("EffectiveField", "effective_receptive_field"):
        from rfkeras.receptive_field import effective

        return getattr(effective, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _CallablePackage(ModuleType):
    """This package, which can be called like the function of its name."""

    def __call__(
        self,
        model: Any,
        layer: str | None = None,
        input_shape: Sequence[int | None] | None = None,
        input_name: str | None = None,
    ) -> ReceptiveField:
        """See `rfkeras.receptive_field.receptive_field`."""
        return receptive_field(model, layer, input_shape, input_name)


sys.modules[__name__].__class__ = _CallablePackage
