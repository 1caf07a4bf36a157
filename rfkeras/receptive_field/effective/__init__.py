"""The effective receptive field: measured by gradients, kept in numbers, drawn."""

from rfkeras.receptive_field.effective.field import EffectiveField
from rfkeras.receptive_field.effective.measure import effective_receptive_field

__all__ = ["EffectiveField", "effective_receptive_field"]
