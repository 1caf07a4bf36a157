"""What each step of rho adds: which layer grows, by how many pixels and parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rfkeras.receptive_field.arithmetic import AxisField, LayerChain
from rfkeras.receptive_field.inverse import Plan, accepted_rhos
from rfkeras.receptive_field.plan import plan_trunk
from rfkeras.receptive_field.units import SpectrogramScale


@dataclass(frozen=True)
class RhoStep:
    """The network of one rho, and what sets it apart from that of one less.

    Attributes:
        rho: On both axes.
        time: Receptive field along time, in spectrogram frames; None: without limit.
        frequency: Along frequency, in mel bands; None: without limit.
        layers: Names of the layers that this step widens; none for rho 0.
        added: Pixels that it adds on (time, frequency); (0, 0) for rho 0.
        parameters: Of the whole network; None where they were not counted.
        added_parameters: Those that the step adds; None likewise.
    """

    rho: int
    time: int | None
    frequency: int | None
    layers: tuple[str, ...] = ()
    added: tuple[int, int] = (0, 0)
    parameters: int | None = None
    added_parameters: int | None = None

    def to_dict(self, scale: SpectrogramScale | None = None) -> dict[str, Any]:
        """The step as a JSON object.

        Args:
            scale: Adds "time_ms", and "mel_share", the part of the mel axis that one
                position sees: 1 where it sees all.
        """
        row: dict[str, Any] = {
            "rho": self.rho,
            "time": self.time,
            "frequency": self.frequency,
            "layers": list(self.layers),
            "added": list(self.added),
            "parameters": self.parameters,
            "added_parameters": self.added_parameters,
        }
        if scale is not None:
            row["time_ms"] = None if self.time is None else scale.ms(self.time)
            row["mel_share"] = mel_share(self.frequency, scale)
        return row


def mel_share(bands: int | None, scale: SpectrogramScale) -> float:
    """The part of the mel axis that so many bands cover, at most 1; None: all bands."""
    return 1.0 if bands is None else min(1.0, bands / scale.n_mels)


def explain_rho(
    plan: Plan = plan_trunk, parameters: Callable[[int], int] | None = None
) -> tuple[RhoStep, ...]:
    """What every rho of a network sees, and what each adds to the one before.

    Args:
        plan: From rho to the layers of the network, raising ConfigError beyond the largest
            rho; see `rho_for`.
        parameters: Number of parameters of the network with that rho. It is called once for
            each rho; building the networks takes far longer than all the rest.

    Returns:
        A step for each rho, from 0 to the largest.

    Raises:
        ConfigError: The network has no rho.

    Example:
        >>> [step.time for step in explain_rho()][:8]
        [23, 31, 39, 55, 71, 87, 103, 135]
    """
    steps: list[RhoStep] = []
    before: LayerChain | None = None
    for rho, chain in list(accepted_rhos(plan)):  # all, before the first is built
        count = None if parameters is None else parameters(rho)
        step = RhoStep(rho, _size(chain.time), _size(chain.frequency), parameters=count)
        if before is not None:
            step = replace(
                step,
                layers=_widened(before, chain),
                added=(
                    (step.time or 0) - (steps[-1].time or 0),
                    (step.frequency or 0) - (steps[-1].frequency or 0),
                ),
                added_parameters=None if count is None else count - (steps[-1].parameters or 0),
            )
        steps.append(step)
        before = chain
    return tuple(steps)


def _size(field: AxisField | None) -> int | None:
    return None if field is None else field.size


def _widened(before: LayerChain, after: LayerChain) -> tuple[str, ...]:
    """Names of the layers whose kernels differ between two networks, in order."""
    names: dict[str, None] = {}
    for axis in (0, 1):
        for old, new in zip(before.axis_layers(axis), after.axis_layers(axis), strict=True):
            if old.kernel != new.kernel:
                names[new.name] = None
    return tuple(names)
