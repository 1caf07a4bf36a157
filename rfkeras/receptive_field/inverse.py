"""From a wanted receptive field back to rho."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.receptive_field.arithmetic import LayerChain
from rfkeras.receptive_field.plan import Pair, plan_trunk
from rfkeras.receptive_field.units import SpectrogramScale, scale_of_preset

Plan = Callable[[int | Pair], LayerChain]

RULES = ("at_most", "at_least", "nearest")
_ENOUGH = 1000  # rhos tried of a plan that takes all; fields of that size end nowhere
_AXES = ("time", "frequency")


def rho_for(
    *,
    rf_time: float | None = None,
    rf_frequency: float | None = None,
    time_ms: float | None = None,
    mel_bands: float | None = None,
    bandwidth_hz: float | None = None,
    centre_hz: float | None = None,
    rule: str = "at_most",
    frontend: str | SpectrogramScale = "perceptual_mel_22k",
    plan: Plan = plan_trunk,
) -> int | Pair:
    """The rho whose receptive field (RF) is the wanted one, or comes next to it.

    Wishes on one axis give one rho, which then holds on both axes. A wish on each axis
    gives a pair; the axes do not depend on each other.

    Args:
        rf_time: RF along time, in spectrogram frames.
        rf_frequency: RF along frequency, in spectrogram pixels, which are mel bands.
        time_ms: RF along time, in milliseconds of audio, the analysis window included.
        mel_bands: Another name of `rf_frequency`.
        bandwidth_hz: RF along frequency, in Hz around `centre_hz`.
        centre_hz: Where `bandwidth_hz` is meant, for mel bands are wider the higher they
            lie.
        rule: "at_most": the largest RF that does not exceed the wish; "at_least": the
            smallest that reaches it; "nearest": the nearest, of two as near the smaller.
        frontend: Preset or scale that tells what a frame and a band are.
        plan: From rho to the layers of the network, raising ConfigError beyond the largest
            rho; by default the residual network's. Of another architecture it is
            `zoo.model_info(name).plan`.

    Returns:
        rho, or (rho_time, rho_frequency).

    Raises:
        ConfigError: No wish or two for one axis, one that is not positive, an unknown rule,
            a network without a limit or without a rho, or no rho that fits the rule; the
            message then gives the RF that comes next.

    Example:
        >>> rho_for(rf_time=135)
        7
        >>> rho_for(time_ms=2000, mel_bands=60)
        (4, 3)
    """
    if rule not in RULES:
        raise ConfigError(unknown_name("rule", str(rule), RULES))
    scale = scale_of_preset(frontend) if isinstance(frontend, str) else frontend
    if (bandwidth_hz is None) != (centre_hz is None):
        raise ConfigError(
            "bandwidth_hz and centre_hz go together: a mel band is few Hz wide in the bass "
            f"and many in the treble. Received: bandwidth_hz={bandwidth_hz}, "
            f"centre_hz={centre_hz}."
        )
    wishes = [
        _Wish(0, "rf_time", rf_time, "frames", float),
        _Wish(0, "time_ms", time_ms, "ms", scale.ms),
        _Wish(1, "rf_frequency", rf_frequency, "mel bands", float),
        _Wish(1, "mel_bands", mel_bands, "mel bands", float),
        _Wish(
            1,
            "bandwidth_hz",
            bandwidth_hz,
            f"Hz around {centre_hz or 0:g} Hz",
            lambda size: scale.bandwidth_hz(size, centre_hz or 0.0),
        ),
    ]
    found = [_choose(plan, wish, rule) for axis in (0, 1) if (wish := _only_wish(wishes, axis))]
    if not found:
        raise ConfigError(
            f"rho_for needs a wish: {', '.join(wish.name for wish in wishes)}. Received: none."
        )
    return found[0] if len(found) == 1 else (found[0], found[1])


def accepted_rhos(plan: Plan) -> Iterator[tuple[int, LayerChain]]:
    """Every rho that a plan takes, from 0 on, with the layers that it gives.

    Raises:
        ConfigError: It does not take rho 0, or rho makes no difference to it.
    """
    before: list[object] = []
    for rho in range(_ENOUGH):
        try:
            chain = plan(rho)
        except ConfigError:
            if rho == 0:
                raise
            return
        layers: list[object] = [list(chain.axis_layers(axis)) for axis in (0, 1)]
        if layers == before:
            raise ConfigError("This network has no rho: its receptive field cannot be chosen.")
        yield rho, chain
        before = layers


@dataclass(frozen=True)
class _Wish:
    """What is wanted of one axis.

    Attributes:
        axis: 0 time, 1 frequency.
        name: Of the argument.
        value: Of the argument.
        unit: In which it is given.
        measure: From pixels to that unit.
    """

    axis: int
    name: str
    value: float | None
    unit: str
    measure: Callable[[int], float]


def _only_wish(wishes: list[_Wish], axis: int) -> _Wish | None:
    """The one wish for an axis, if there is any."""
    given = [wish for wish in wishes if wish.axis == axis and wish.value is not None]
    if len(given) > 1:
        raise ConfigError(
            f"One wish for each axis: {' and '.join(wish.name for wish in given)} are both "
            f"about {_AXES[axis]}. Leave out one of them."
        )
    for wish in given:
        number = isinstance(wish.value, int | float) and not isinstance(wish.value, bool)
        if not number or not 0 < (wish.value or 0) < float("inf"):
            raise ConfigError(
                f"{wish.name} must be a positive number of {wish.unit}. "
                f"Received: {wish.value!r}."
            )
    return given[0] if given else None


def _choose(plan: Plan, wish: _Wish, rule: str) -> int:
    """The rho that fits best."""
    wanted = wish.value or 0.0
    sizes = []
    for _, chain in accepted_rhos(plan):
        field = (chain.time, chain.frequency)[wish.axis]
        if field is None:
            raise ConfigError(
                "The receptive field of this network has no limit along "
                f"{_AXES[wish.axis]}: no rho is to be chosen."
            )
        sizes.append(wish.measure(field.size))
    rhos = range(len(sizes))
    if rule == "nearest":
        return min(rhos, key=lambda rho: abs(sizes[rho] - wanted))
    if rule == "at_most" and sizes[0] <= wanted:
        return max(rho for rho in rhos if sizes[rho] <= wanted)
    if rule == "at_least" and sizes[-1] >= wanted:
        return min(rho for rho in rhos if sizes[rho] >= wanted)
    verb, end, rho = (
        ("keeps within", "smallest", 0)
        if rule == "at_most"
        else ("reaches", "largest", len(sizes) - 1)
    )
    raise ConfigError(
        f"No receptive field {verb} {wish.name}={wanted:g}: the {end}, of rho {rho}, is "
        f"{sizes[rho]:g} {wish.unit}. Ask for {'more' if rho == 0 else 'less'}, or for "
        "rule='nearest'."
    )
