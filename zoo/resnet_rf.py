"""The paper's CP-ResNet, a ResNet whose receptive field is set with rho, and its variants.

Reference: Koutini et al., "Receptive-Field Regularized CNNs for Music Classification and
Tagging", arXiv 2007.13503. Low-complexity variants: arXiv 2011.02955.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rfkeras.rf.rho import RHO_MAX, BackbonePlan, plan_backbone
from zoo.common import max_pool, stem, tagger
from zoo.registry import register_alias, register_model

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend

SIZES = {"": 128, "_small": 64, "_tiny": 32}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("", {}),
    "_shake": (" with Shake-Shake", {"shake": True}),
    "_fa": (", frequency-aware", {"frequency_aware": True}),
    "_shake_fa": (
        " with Shake-Shake, frequency-aware",
        {"shake": True, "frequency_aware": True},
    ),
    "_damped": (" with frequency damping", {"damping": 0.01}),
    "_decomposed": (" with decomposed convolutions", {"decomposition": 4}),
}


@register_model(
    plan=plan_backbone,
    summary="Receptive-field-regularised ResNet (CP-ResNet), rho from 0 to 22.",
)
def resnet_rf(
    num_classes: int,
    *,
    name: str = "resnet_rf",
    label_names: tuple[str, ...] | None = None,
    task: str = "multi_label",
    rho: int | tuple[int, int] = 7,
    width: int = 128,
    blocks: tuple[int, int, int] = (4, 4, 4),
    allow_rf_change: bool = False,
    shake: bool | None = None,
    branches: int | None = None,
    shake_per: str = "sample",
    frequency_aware: bool = False,
    damping: float | None = None,
    damp_time: bool = False,
    damp_stem: bool | None = None,
    decomposition: int | None = None,
    initialization: str = "published",
    head: str = "average",
    frontend: str | Frontend | None = "perceptual_mel_22k",
    input_channels: int = 1,
) -> keras.Model:
    """Build a receptive-field-regularised ResNet (CP-ResNet).

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, saved in the model.
        task: "multi_label" or "single_label".
        rho: Receptive field, 0 to 22: the number of 3-wide convolutions after the first
            block, or (rho_time, rho_frequency).
        width: Channels of the first stage; the others have 2 and 4 times as many.
        blocks: Number of blocks in each stage.
        allow_rf_change: Allow removing blocks that affect the receptive field.
        shake: Shake-Shake: mix two branches per block with random weights in training. None:
            only if there are two branches. False averages them.
        branches: Branches per block; None: 2 with `shake`, otherwise 1.
        shake_per: Draw the random weights per "sample" or per "batch".
        frequency_aware: Add a channel with the frequency position before each convolution
            of the blocks.
        damping: Weight at the kernel edges along frequency, from 0 to 1 (published: 0.01 and
            0.1); None or 1 for no damping.
        damp_time: Damp along time as well.
        damp_stem: Damp the stem too. None: as published, which is True unless the blocks
            are decomposed. (Version 0.1.0 always damped the stem; its files keep that.)
        decomposition: Divide the channels by this factor (published: 4) inside each
            convolution of the blocks; None for no decomposition.
        initialization: "published": the classifier and the last convolution of each block
            start at zero. "he": they start He-normal, which learns faster in short runs,
            because with batch normalisation Adam's steps are large compared to weights that
            started at zero.
        head: How frames are pooled to a clip: "average" (as in the paper), "max",
            "log_mean_exp" or "attention". "frames": logits per frame, (batch, time, classes).
        frontend: Preset, layer, or None for a model that takes spectrograms
            (batch, time, mel, input_channels).
        input_channels: 1 for mono, 2 for stereo.

    Returns:
        Model from waveforms or spectrograms to logits (batch, num_classes). With the
        published initialisation the initial logits are exactly 0.

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    plan = plan_backbone(rho, blocks, allow_rf_change)
    if damp_stem is None:
        damp_stem = decomposition is None
    stem_damping = damping if damp_stem else None
    block_options = {
        "branches": branches,
        "shake": shake,
        "shake_per": shake_per,
        "frequency_aware": frequency_aware,
        "damping": damping,
        "damp_time": damp_time,
        "decomposition": decomposition,
        "initialization": initialization,
    }
    return tagger(
        lambda x: backbone(stem(x, width, stem_damping, damp_time), plan, width, block_options),
        plan,
        num_classes=num_classes,
        name=name,
        label_names=label_names,
        task=task,
        initialization=initialization,
        head=head,
        frontend=frontend,
        input_channels=input_channels,
    )


def backbone(x: Any, plan: BackbonePlan, width: int, block_options: dict[str, Any]) -> Any:
    """Apply the residual stages to the stem output (batch, time, mel, width)."""
    from rfkeras.layers import ResidualBlock

    for block in plan.blocks:
        x = ResidualBlock(
            width * 2 ** (block.stage - 1),
            block.kernels,
            depth=len(plan.blocks),
            name=block.name,
            **block_options,
        )(x)
        if block.pooled:
            x = max_pool(x, f"{block.name}_pool")
    return x


def _register_variants() -> None:
    for variant, (description, options) in VARIANTS.items():
        for size, width in SIZES.items():
            if variant or size:
                register_alias(
                    f"resnet_rf{variant}{size}",
                    "resnet_rf",
                    f"resnet_rf{description}, width {width}.",
                    width=width,
                    **options,
                )


_register_variants()

register_alias(
    "resnet",
    "resnet_rf",
    "ResNet with 3x3 kernels only; its receptive field is not regularised.",
    rho=RHO_MAX,
)
