"""The residual block and Shake-Shake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rfkeras.errors import ConfigError, unknown_name
from rfkeras.layers.composite import CompositeLayer, check_kernel, check_map, check_whole
from rfkeras.layers.conv import (
    EPSILON,
    MOMENTUM,
    BatchNormalization,
    FrequencyChannel,
    Pair,
    he_normal,
    make_conv,
)
from rfkeras.utils.keras_workarounds import ReplicaSeedGenerator

INITIALIZATIONS = ("published", "he")
SHARED_BY = ("sample", "batch")


@keras.saving.register_keras_serializable(package="rfkeras")
class ResidualBlock(CompositeLayer):
    """Residual block with one or more branches: conv, BN, ReLU, conv, BN; add; ReLU.

    The kernels determine how much the block widens the receptive field. Zero padding keeps
    the map's size. Where the number of channels changes, the shortcut is a 1x1 convolution
    with batch normalisation. With the published initialisation the block initially passes
    on only its shortcut: the second convolution starts at zero, and the first is scaled
    down by the depth of the network.

    Args:
        filters: Output channels.
        kernel_size: Kernels of the two convolutions, each (time, frequency) and odd, such
            as ((3, 3), (1, 1)). One number or one pair is used for both, as in `Conv2D`.
        branches: Number of parallel branches, each with separate weights. None: 2 with
            `shake`, else 1.
        shake: Combine two branches with `ShakeShake` instead of their mean. None: use it
            whenever there are two. All branches have the block's kernels. This is our
            choice, because the combination was never published in detail for music.
        shake_per: "sample" or "batch", see `ShakeShake`.
        frequency_aware: Give both convolutions of each branch a `FrequencyChannel`.
        damping: Damping of every convolution, see `DampedConv2D`; None for none.
        damp_time: Damp along time too.
        decomposition: Make every convolution, including the shortcut's, a
            `DecomposedConv2D` with this factor; None for single convolutions.
        depth: Number of residual blocks in the network. The published initialisation
            scales the first convolution by depth ** -0.5.
        initialization: "published", or "he" (both convolutions He-normal, fan-out).
        momentum: Momentum of the batch normalisations.
        epsilon: Epsilon of the batch normalisations.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        (batch, time, frequency, channels); time and frequency may be unknown.

    Output shape:
        (batch, time, frequency, filters).

    Raises:
        ConfigError: An argument is out of range.

    Example:
        >>> block = ResidualBlock(64, kernel_size=((3, 3), (1, 1)), branches=2)
        >>> block(np.zeros((1, 50, 16, 32), "float32")).shape
        TensorShape([1, 50, 16, 64])

    Reference:
        Koutini et al., "Receptive-Field Regularized CNNs for Music Classification and
        Tagging", arXiv 2007.13503.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int] | Sequence[Sequence[int]] = ((3, 3), (3, 3)),
        branches: int | None = None,
        shake: bool | None = None,
        shake_per: str = "sample",
        frequency_aware: bool = False,
        damping: float | None = None,
        damp_time: bool = False,
        decomposition: int | None = None,
        depth: int = 1,
        initialization: str = "published",
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if branches is None:
            branches = 2 if shake else 1
        check_whole("ResidualBlock", filters=filters, depth=depth, branches=branches)
        self.filters = filters
        self.kernel_size = _kernel_pairs(kernel_size)
        self.branches = branches
        self.shake = branches == 2 if shake is None else shake
        if self.shake and branches != 2:
            raise ConfigError(f"shake=True needs branches=2. Received: branches={branches}.")
        self.shake_per = shake_per
        self.frequency_aware = frequency_aware
        self.damping = damping
        self.damp_time = damp_time
        self.decomposition = decomposition
        self.depth = depth
        self.initialization = initialization
        self.momentum = momentum
        self.epsilon = epsilon
        self.residuals = [self._branch(number) for number in range(1, branches + 1)]
        self.mix = self._mixing_layer()
        self.add = keras.layers.Add(dtype=self.dtype_policy, name="add")
        self.relu = keras.layers.ReLU(dtype=self.dtype_policy, name="relu")
        self.shortcut_conv: Any = None  # created in build if the channels change
        self.shortcut_bn: Any = None

    def _branch(self, number: int) -> ResidualBranch:
        return ResidualBranch(
            self.filters,
            self.kernel_size,
            initializers=block_initializers(self.initialization, self.depth),
            frequency_aware=self.frequency_aware,
            batch_norm={"momentum": self.momentum, "epsilon": self.epsilon},
            conv=self._conv_options,
            dtype=self.dtype_policy,
            name=f"branch{number}",
        )

    def _mixing_layer(self) -> Any:
        if self.branches == 1:
            return None
        if self.shake:
            return ShakeShake(self.shake_per, dtype=self.dtype_policy, name="shake")
        return keras.layers.Average(dtype=self.dtype_policy, name="average")

    @property
    def _conv_options(self) -> dict[str, Any]:
        return {
            "damping": self.damping,
            "damp_time": self.damp_time,
            "decomposition": self.decomposition,
        }

    def build(self, input_shape: Sequence[int | None]) -> None:
        check_map(self, input_shape)
        output_shape = self.compute_output_shape(input_shape)
        for residual in self.residuals:
            residual.build(input_shape)
        if self.mix is not None:
            self.mix.build([output_shape] * self.branches)
        if input_shape[-1] != self.filters:
            self.shortcut_conv = make_conv(
                self.filters,
                (1, 1),
                initializer=he_normal("fan_out"),
                dtype=self.dtype_policy,
                name="shortcut_conv",
                **self._conv_options,
            )
            self.shortcut_bn = BatchNormalization(
                self.momentum, self.epsilon, dtype=self.dtype_policy, name="shortcut_bn"
            )
            self.shortcut_conv.build(input_shape)
            self.shortcut_bn.build(output_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        outputs = [residual(inputs, training=training) for residual in self.residuals]
        if self.branches == 1:
            (x,) = outputs
        elif self.shake:
            x = self.mix(outputs, training=training)
        else:
            x = self.mix(outputs)
        if self.shortcut_conv is None:
            shortcut = inputs
        else:
            shortcut = self.shortcut_bn(self.shortcut_conv(inputs), training=training)
        return self.relu(self.add([shortcut, x]))

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees; see `rfkeras.rf.register_rule`."""
        outputs = [call.apply(residual, inputs) for residual in self.residuals]
        x = outputs[0] if self.mix is None else call.apply(self.mix, outputs)
        shortcut = inputs
        if self.shortcut_conv is not None:
            shortcut = call.apply(self.shortcut_bn, call.apply(self.shortcut_conv, inputs))
        return call.apply(self.add, [shortcut, x])

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "branches": self.branches,
            "shake": self.shake,
            "shake_per": self.shake_per,
            "frequency_aware": self.frequency_aware,
            "damping": self.damping,
            "damp_time": self.damp_time,
            "decomposition": self.decomposition,
            "depth": self.depth,
            "initialization": self.initialization,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
        }


class ResidualBranch(CompositeLayer):
    """One branch of a `ResidualBlock`: conv, BN, ReLU, conv, BN. Only blocks create it."""

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[Pair, Pair],
        initializers: tuple[Any, Any],
        frequency_aware: bool,
        batch_norm: dict[str, float],
        conv: dict[str, Any],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        policy = self.dtype_policy
        self.frequency = (
            FrequencyChannel(dtype=policy, name="frequency") if frequency_aware else None
        )
        self.conv1, self.conv2 = (
            make_conv(
                filters, kernel, initializer=init, dtype=policy, name=f"conv{number}", **conv
            )
            for number, (kernel, init) in enumerate(
                zip(kernel_size, initializers, strict=True), start=1
            )
        )
        self.bn1 = BatchNormalization(**batch_norm, dtype=policy, name="bn1")
        self.bn2 = BatchNormalization(**batch_norm, dtype=policy, name="bn2")
        self.relu = keras.layers.ReLU(dtype=policy, name="relu")

    def build(self, input_shape: Sequence[int | None]) -> None:
        output_shape = (*input_shape[:-1], self.filters)
        for layer, shape in ((self.conv1, tuple(input_shape)), (self.conv2, output_shape)):
            if self.frequency is not None:
                shape = self.frequency.compute_output_shape(shape)
            layer.build(shape)
        self.bn1.build(output_shape)
        self.bn2.build(output_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = self.conv1(self._with_frequency(inputs))
        x = self.relu(self.bn1(x, training=training))
        return self.bn2(self.conv2(self._with_frequency(x)), training=training)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees; see `rfkeras.rf.register_rule`."""
        x = inputs
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            x = x if self.frequency is None else call.apply(self.frequency, x)
            x = call.apply(bn, call.apply(conv, x))
        return x  # the ReLU in between changes nothing

    def _with_frequency(self, x: Any) -> Any:
        return x if self.frequency is None else self.frequency(x)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[Any, ...]:
        return (*input_shape[:-1], self.filters)


def _kernel_pairs(kernel_size: Any) -> tuple[Pair, Pair]:
    """Return the kernels of both convolutions, each (time, frequency)."""
    nested = isinstance(kernel_size, list | tuple) and any(
        isinstance(each, list | tuple) for each in kernel_size
    )
    if not nested:
        kernel = check_kernel("ResidualBlock", kernel_size, odd=True)
        return kernel, kernel
    if len(kernel_size) != 2:
        raise ConfigError(
            "ResidualBlock: kernel_size must have a pair of odd numbers (time, frequency) for "
            "each of the two convolutions, such as ((3, 3), (1, 1)). "
            f"Received: {kernel_size!r}."
        )
    first, second = (check_kernel("ResidualBlock", each, odd=True) for each in kernel_size)
    return first, second


def block_initializers(name: str, depth: int) -> tuple[Any, Any]:
    """Return the initialisers of a branch's two convolutions.

    Raises:
        ConfigError: name is neither "published" nor "he".
    """
    if name == "published":
        return he_normal("fan_out", 2.0 / depth), keras.initializers.Zeros()
    if name == "he":
        return he_normal("fan_out"), he_normal("fan_out")
    raise ConfigError(unknown_name("initialization", name, INITIALIZATIONS))


@keras.saving.register_keras_serializable(package="rfkeras")
class ShakeShake(keras.layers.Layer):
    """Random convex combination of two branches, with a different one for the gradient.

    In training the output is a * x1 + (1 - a) * x2 with a drawn uniformly from [0, 1). The
    gradient reaches the branches with the shares b and 1 - b, where b is drawn
    independently. At inference both shares are 0.5. The coefficients are drawn in float32
    under every dtype policy, and differ between replicas.

    Args:
        per: "sample" draws coefficients per sample; "batch" draws one pair for the whole
            batch (of a replica).
        seed: Seed of the draws. Layers with equal seeds draw the same numbers, so leave it
            None in a network; `keras.utils.set_random_seed` makes results repeatable.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input shape:
        A list of two tensors with the same shape (batch, ...).

    Output shape:
        Same as each input.

    Raises:
        ConfigError: `per` is unknown, or the input is not two tensors of the same shape.

    Example:
        >>> branch_1, branch_2 = np.zeros((2, 8, 50, 20, 4), "float32")
        >>> ShakeShake()([branch_1, branch_2], training=True).shape
        TensorShape([8, 50, 20, 4])

    Reference:
        Gastaldi, "Shake-Shake regularization", arXiv 1705.07485
        (`per="sample"` is its "Shake-Shake-Image").
    """

    def __init__(self, per: str = "sample", seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if per not in SHARED_BY:
            raise ConfigError(unknown_name("per", str(per), SHARED_BY))
        self.per = per
        self.seed = seed
        self.seed_generator = ReplicaSeedGenerator(seed)

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        shapes = [tuple(shape) for shape in input_shape]
        if len(shapes) != 2 or shapes[0] != shapes[1]:
            raise ConfigError(
                f"ShakeShake needs two tensors of the same shape. Received: {shapes}."
            )

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        first, second = inputs
        if not training:
            return (first + second) * 0.5
        difference = first - second
        forward = second + self._draw(first) * difference
        backward = second + self._draw(first) * difference
        # The value of `forward`, the gradient of `backward`.
        return backward + ops.stop_gradient(forward - backward)

    def trace_receptive_field(self, inputs: Any, call: Any) -> Any:
        """Return what the output sees; see `rfkeras.rf.register_rule`."""
        first, second = inputs
        return first.joined(second)

    def _draw(self, x: Any) -> Any:
        rows = ops.shape(x)[0] if self.per == "sample" else 1
        shape = (rows, *(1 for _ in x.shape[1:]))
        share = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return ops.cast(share, x.dtype)

    def compute_output_shape(
        self, input_shape: Sequence[Sequence[int | None]]
    ) -> tuple[int | None, ...]:
        return tuple(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "per": self.per, "seed": self.seed}
