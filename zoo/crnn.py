"""The recurrent baseline: convolutions, then gated recurrent units over time.

It has four 3x3 convolutions with batch normalisation, ELU, max-pooling (2, 3, 4 and 4 on both
axes) and dropout, two layers of 32 recurrent units and a classifier (Choi et al.,
"Convolutional Recurrent Neural Networks for Music Classification", arXiv 1609.04243; channels
and dropout as in https://github.com/keunwoochoi/music-auto_tagging-keras). Its receptive field
is unlimited, in contrast to the networks with rho.

Choices of this library:
- The published network has 96 mel bands, which pooling reduces to one row. Here any number of
  bands works: the rows that are left after pooling are averaged. Pooling windows may reach
  beyond the end of the map, so no spectrogram is too small and no last frames are lost.
- The classifier is applied to every state of the last recurrent layer and its logits are
  averaged over time, as in the other networks of the zoo. So late parts of a clip do not count
  more, and tags can be read every 96 frames. `summary="last"` is as published.
- The classifier has batch normalisation and no bias, as in the other networks. The
  convolutions have no bias either, because batch normalisation follows. The front-end
  standardises each mel band, in place of batch normalisation of the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.rf.axis import AxisLayer, LayerChain
from zoo.common import tagger
from zoo.registry import register_alias, register_model

if TYPE_CHECKING:
    import keras

    from rfkeras.frontend import Frontend

Pair = tuple[int, int]

CHANNELS = (1, 2, 2, 2)  # of each convolution, as multiples of the width
KERNEL = 3
POOLING: tuple[Pair, ...] = ((2, 2), (3, 3), (4, 4), (4, 4))  # (time, frequency)
SUMMARIES = ("mean", "last")
SIZES = {"_small": 32, "_tiny": 16}


@dataclass(frozen=True)
class CrnnPlan(LayerChain):
    """The convolutions and pooling layers before the recurrent layers.

    Their chain (`axis_layers`) gives what one recurrent step reads and how many frames are
    between two steps; the network itself sees everything. The first window of a pooling layer
    may begin before the map, depending on the map's size. The chain assumes that it begins
    with the map, as it does if the stride divides the size. For other sizes call
    `rfkeras.receptive_field(model, "pool4", input_shape=...)`.

    Attributes:
        pooling: Window and stride of each pooling layer, each (time, frequency).
    """

    pooling: tuple[Pair, ...]

    def axis_layers(self, axis: int) -> Iterator[AxisLayer]:
        for number, pool in enumerate(self.pooling, start=1):
            yield AxisLayer(f"conv{number}", KERNEL, padding=KERNEL // 2)
            yield AxisLayer(f"pool{number}", pool[axis], pool[axis])

    @property
    def time(self) -> None:
        """Unlimited: the recurrent layers remember all frames so far."""
        return None

    @property
    def frequency(self) -> None:
        """Unlimited: the rows are averaged before the recurrent layers."""
        return None

    @property
    def minimum_frames(self) -> int:
        """One: a window that the map does not fill also counts."""
        return 1


def plan_crnn(pooling: Sequence[Sequence[int]]) -> CrnnPlan:
    """Return the layers before the recurrent ones.

    Raises:
        ConfigError: pooling is not one pair per convolution.
    """
    pairs = tuple(tuple(pool) for pool in pooling)
    if len(pairs) != len(CHANNELS) or not all(
        len(pair) == 2 and all(_is_positive(size) for size in pair) for pair in pairs
    ):
        raise ConfigError(
            f"pooling must be {len(CHANNELS)} pairs (time, frequency) of whole numbers of at "
            f"least 1, such as {POOLING}. Received: {pooling!r}."
        )
    return CrnnPlan(tuple((time, frequency) for time, frequency in pairs))


@register_model(
    plan=plan_crnn,
    summary="Convolutional recurrent baseline; its receptive field is unlimited.",
)
def crnn(
    num_classes: int,
    *,
    name: str = "crnn",
    label_names: tuple[str, ...] | None = None,
    task: str = "multi_label",
    width: int = 64,
    units: int = 32,
    pooling: tuple[Pair, ...] = POOLING,
    dropout: float = 0.1,
    final_dropout: float = 0.3,
    summary: str = "mean",
    initialization: str = "published",
    head: str = "average",
    frontend: str | Frontend | None = "perceptual_mel_22k",
    input_channels: int = 1,
) -> keras.Model:
    """Build a convolutional recurrent tagger, whose receptive field is unlimited.

    Args:
        num_classes: Number of tags.
        name: Name of the Keras model.
        label_names: Names of the tags, saved in the model.
        task: "multi_label" or "single_label".
        width: Channels of the first convolution; the others have twice as many.
        units: Size of the state of both recurrent layers.
        pooling: Window and stride after each of the four convolutions, each
            (time, frequency). The product over time is the number of frames per state.
        dropout: Dropout rate after each pooling layer.
        final_dropout: Dropout rate of the states that the classifier reads.
        summary: "mean": average the logits of all states; "last": only use the last state.
        initialization: "published": the classifier starts at zero, as in the published
            residual networks; "he": it starts He-normal, like the convolutions. Recurrent
            layers start as in Keras.
        head: How frames are pooled to a clip: "average" (as in the paper), "max",
            "log_mean_exp" or "attention". "frames": logits per frame, (batch, time, classes).
        frontend: Preset, layer, or None for a model that takes spectrograms
            (batch, time, mel, input_channels).
        input_channels: 1 for mono, 2 for stereo.

    Returns:
        Model from waveforms or spectrograms to logits (batch, num_classes).

    Raises:
        ConfigError: An option has a value that is not allowed.
    """
    for option, value in (("width", width), ("units", units)):
        if not _is_positive(value):
            raise ConfigError(
                f"{option} must be a whole number of at least 1. Received: {value!r}."
            )
    if summary not in SUMMARIES:
        raise ConfigError(unknown_name("summary", str(summary), SUMMARIES))
    plan = plan_crnn(pooling)

    def backbone(x: Any) -> Any:
        x = convolutions(x, plan, width, dropout)
        return recurrence(x, units, final_dropout, every_state=summary == "mean")

    return tagger(
        backbone,
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


def convolutions(x: Any, plan: CrnnPlan, width: int, dropout: float) -> Any:
    """Apply the convolutions: (batch, time, mel, channels) to (batch, time', mel', 2 width)."""
    import keras

    from rfkeras.layers import BatchNormalization, ReplicaDropout, make_conv
    from rfkeras.layers.conv import he_normal

    for number, (channels, pool) in enumerate(zip(CHANNELS, plan.pooling, strict=True), 1):
        x = make_conv(
            channels * width,
            (KERNEL, KERNEL),
            initializer=he_normal("fan_in"),
            name=f"conv{number}",
        )(x)
        x = BatchNormalization(name=f"bn{number}")(x)
        x = keras.layers.ELU(name=f"elu{number}")(x)
        # "same": a window beyond the end of the map takes the maximum of what it covers.
        x = keras.layers.MaxPooling2D(
            pool, padding="same", data_format="channels_last", name=f"pool{number}"
        )(x)
        x = ReplicaDropout(dropout, name=f"dropout{number}")(x)
    return x


def recurrence(x: Any, units: int, dropout: float, every_state: bool) -> Any:
    """Apply the recurrent layers: features to states (batch, time or 1, 1, units)."""
    import keras
    from keras import ops

    from rfkeras.layers import ReplicaDropout

    x = ops.mean(x, axis=2)
    for number in (1, 2):
        # cuDNN's kernel would be part of the exported graph, which then runs neither on a CPU
        # nor with XLA. The plain kernel is fast enough, as a clip has few steps.
        x = keras.layers.GRU(
            units,
            return_sequences=every_state or number == 1,
            reset_after=True,
            use_cudnn=False,
            name=f"gru{number}",
        )(x)
    x = ReplicaDropout(dropout, name="final_dropout")(x)
    return ops.expand_dims(x, 2) if every_state else ops.expand_dims(x, (1, 2))


def _is_positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


for _size, _width in SIZES.items():
    register_alias(f"crnn{_size}", "crnn", f"crnn, width {_width}.", width=_width)
