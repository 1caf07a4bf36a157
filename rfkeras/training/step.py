"""One training step: a batch through augmentation, network, loss, gradients and optimizer.

`build_training_model` builds the model of a run and everything needed to train it.
`TrainingModel.train_step` is the step that Keras calls for every batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.config.train_config import TrainConfig
from rfkeras.errors import ConfigError
from rfkeras.frontend import create_frontend, find_frontend, preset_config
from rfkeras.layers import Mixup, RandomGain, RandomTimeRoll, SpecAugment, model_outputs
from rfkeras.training.losses import apply_class_weights, class_weights, make_loss
from rfkeras.training.optimizer import is_kernel, make_optimizer
from rfkeras.utils.keras_workarounds import CollectiveModel
from rfkeras.utils.model_graph import inlined, layer_tensor, only_input, only_output
from rfkeras.utils.user_code import AUGMENTATIONS
from zoo.tagger import classifier_input

if TYPE_CHECKING:
    from rfkeras.training.data import Inputs

EMA_WARM_UP = 8.0  # steps after the first, in which the average equals the weights


def audio_format(config: TrainConfig) -> AudioFormat:
    """Return the sample rate and channels of the waveforms that a run's model takes.

    Raises:
        ConfigError: The model has no front-end.
    """
    known = zoo.model_info(config.model).options
    if "frontend" in known and "input_channels" in known:
        rate_hz = preset_config(config.frontend)["sample_rate_hz"]
        return AudioFormat(rate_hz, config.input_channels)
    model = zoo.create_model(
        config.model, 1, **_audio_options(config), **config.model_options()
    )
    frontend = find_frontend(model)
    if frontend is None:
        raise ConfigError(
            f"Model {config.model!r} has no rfkeras.frontend.Frontend, so it takes no audio. "
            "Put create_frontend(...) behind its input; or train it on your own spectrograms "
            "with model.fit."
        )
    shape = only_input(model).shape
    return AudioFormat(frontend.sample_rate_hz, 1 if len(shape) == 2 else int(shape[2]))


def _audio_options(config: TrainConfig) -> dict[str, Any]:
    """Return front-end and channels, if the model has these options."""
    known = zoo.model_info(config.model).options
    options: dict[str, Any] = {}
    if "frontend" in known:
        options["frontend"] = create_frontend(config.frontend, fixed_floor=config.fixed_floor)
    if "input_channels" in known:
        options["input_channels"] = config.input_channels
    return options


def build_tagger(inputs: Inputs, num_classes: int | None = None) -> keras.Model:
    """Return the untrained tagger of a run, from waveform to logits.

    Args:
        inputs: The data of the run, with its configuration.
        num_classes: Another number of classes, which then have no names.
    """
    config = inputs.config
    return zoo.create_model(
        config.model,
        num_classes,
        label_names=inputs.dataset.label_names if num_classes is None else None,
        task=inputs.dataset.task,
        **_audio_options(config),
        **config.model_options(),
    )


def build_training_model(inputs: Inputs, strategy: Any) -> TrainingModel:
    """Return the model of a run, ready for `fit`.

    Args:
        inputs: The data of the run, with its configuration.
        strategy: The `tf.distribute` strategy.

    Raises:
        ConfigError: The class weights name an unknown tag.
    """
    config = inputs.config
    split = inputs.dataset.split("train")
    with strategy.scope(), dtype_policy(config.precision):
        tagger = build_tagger(inputs)
        tagger.jit_compile = False  # for predict; "auto" would compile the front-end with XLA
        model = TrainingModel(
            tagger,
            waveform_augmentation=_waveform_augmentation(config),
            augmentation=_spectrogram_augmentation(config),
            mixup=Mixup(config.mixup) if config.mixup else None,
            class_weights=class_weights(
                config.class_weights,
                split.labels,
                split.mask,
                inputs.dataset.label_names,
                inputs.dataset.task,
            ),
            averaging=config.averaging,
            ema_decay=config.ema_decay,
            prune=config.prunes,
            jit=config.jit,
            may_freeze=config.freeze == "trunk" or config.trunk_lr_scale != 1.0,
            from_features=config.cache_features,
            name=config.model,
        )
        variables = tagger.trainable_variables
        model.compile(
            optimizer=make_optimizer(
                config, variables, inputs.steps_per_epoch, model.backbone_indices
            ),
            loss=make_loss(config.loss, inputs.dataset.task),
            jit_compile=False,
        )
        model.optimizer.build(variables)
    return model


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Set Keras' global dtype policy within the block, and restore it afterwards."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _waveform_augmentation(config: TrainConfig) -> list[keras.layers.Layer]:
    own = [RandomGain(config.gain_db)] if config.gain_db else []
    return [*own, *_users_augmentation(config, "waveform")]


def _users_augmentation(config: TrainConfig, on: str) -> list[keras.layers.Layer]:
    """Return the augmentation layers of the user for waveforms or for spectrograms.

    Raises:
        ConfigError: One is not a layer.
    """
    layers = []
    for name in config.augment:
        place, part = AUGMENTATIONS[name]
        if place == on:
            layer = part if isinstance(part, keras.layers.Layer) else part()
            if not isinstance(layer, keras.layers.Layer):
                raise ConfigError(
                    f"Augmentation {name!r} must be a Keras layer, or a function that returns "
                    f"one. Received: {type(layer).__name__}."
                )
            layers.append(layer)
    return layers


def _spectrogram_augmentation(config: TrainConfig) -> list[keras.layers.Layer]:
    layers: list[keras.layers.Layer] = [RandomTimeRoll()] if config.time_roll else []
    if config.spec_augment:
        layers.append(
            SpecAugment(
                config.time_masks,
                config.time_mask_frames,
                config.frequency_masks,
                config.frequency_mask_bands,
            )
        )
    return layers + _users_augmentation(config, "spectrogram")


class TrainingModel(CollectiveModel):
    """Trains a tagger. Everything that only training needs is here, not in the tagger.

    A step takes (waveform, labels, mask), or with `from_features` (mel spectrogram in dB,
    labels, mask). The front-end computes the spectrogram outside of the gradient, or only
    standardises it. The augmentation changes it, and the gradient runs through the network, the
    part of the tagger after the front-end. Gradients are summed over the replicas of a
    `tf.distribute` strategy, and only then clipped and applied. The optimizer must therefore
    be from `rfkeras.training.optimizer`.

    `state_variables(model)` contains all state but the optimizer's: that of the tagger, the
    seeds, the averages and the pruning masks.

    Args:
        tagger: Functional model from waveform (or, without a front-end, spectrogram) to
            logits. Outputs that are probabilities are converted to logits for the loss.
        waveform_augmentation: Layers between the waveform and the front-end.
        augmentation: Layers between the front-end and the network.
        mixup: Blends spectrograms and labels, after the augmentation. None: no mixup.
        class_weights: (classes,) from `losses.class_weights`, or None.
        averaging: Which average of the weights to keep. "swa": the mean over the calls of
            `average_epoch`. "ema": an exponential moving average over the steps. "none".
        ema_decay: Share of the old moving average that is kept at each step. In the first
            steps it is at most (step - 1) / (step + 8), to forget the initial weights quickly.
        prune: Keep a mask for each kernel, initially all ones, and multiply the kernel by it
            after every step.
        jit: Compile the forward and backward pass of the network with XLA.
        may_freeze: Prepare for `freeze`.
        from_features: Training batches contain results of the front-end's `mel_db` instead of
            waveforms.
        **kwargs: As in `keras.Model`.

    Attributes:
        tagger: The tagger. It shares all its layers with this model.
        averages: Pairs (variable, its average).
        masks: Pairs (kernel, its mask).
        is_frozen: Whether only the classifier trains, see `freeze`.

    Raises:
        ConfigError: Waveform augmentation without a front-end, or `may_freeze` for a model
            without a separate classifier.

    Example:
        >>> model = TrainingModel(tagger, augmentation=[RandomTimeRoll()], mixup=Mixup(0.3))
        >>> model.compile(Adam(1e-4), MaskedBinaryCrossentropy(), jit_compile=False)
        >>> model.fit(batches)  # of (waveform, labels, mask)
        >>> tagger.save("model.keras")
    """

    def __init__(
        self,
        tagger: keras.Model,
        *,
        waveform_augmentation: Sequence[keras.layers.Layer] = (),
        augmentation: Sequence[keras.layers.Layer] = (),
        mixup: Mixup | None = None,
        class_weights: Any = None,
        averaging: str = "none",
        ema_decay: float = 0.999,
        prune: bool = False,
        jit: bool = False,
        may_freeze: bool = False,
        from_features: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.tagger = tagger
        self.frontend = find_frontend(tagger)
        if waveform_augmentation and self.frontend is None:
            raise ConfigError(
                f"Model {tagger.name!r} has no front-end: it takes spectrograms, so there is "
                "no waveform to augment."
            )
        graph = inlined(tagger)
        inputs = only_input(graph)
        if self.frontend is not None:
            inputs = layer_tensor(graph, self.frontend, "output")
        output = only_output(graph)
        # TensorFlow orders sums over replicas by operation names, so these names decide the
        # last bits of the statistics. They are those of version 0.1.0.
        self.network = keras.Model(inputs, output, name="trunk")
        self.may_freeze = may_freeze
        self.is_frozen = False
        if may_freeze:
            features = classifier_input(graph)
            self.backbone = keras.Model(inputs, features, name="features")
            self.classifier = keras.Model(features, output, name="classifier")
        self.waveform_augmentation = list(waveform_augmentation)
        self.augmentation = list(augmentation)
        self.mixup = mixup
        self.class_weights = class_weights
        self.tagger_outputs = model_outputs(tagger)
        self.task = self.tagger_outputs.task
        self.averaging = averaging
        self.ema_decay = ema_decay
        self.jit = jit
        self.from_features = from_features
        trainable = tagger.trainable_variables
        self.averages = [(v, self._add_copy(v)) for v in trainable if averaging != "none"]
        self.average_count = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            name="average_count",
        )
        kernels = [v for v in trainable if prune and is_kernel(v)]
        self.masks = [(v, self._add_copy(v, "mask", "ones")) for v in kernels]
        self.built = True

    def _add_copy(
        self, variable: Any, name: str = "average", initializer: str = "zeros"
    ) -> Any:
        # Every replica computes the same values, so nothing is aggregated over replicas.
        return self.add_weight(
            shape=variable.shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            aggregation="none",
            name=f"{variable.path.replace('/', '_')}_{name}",
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self.from_features:  # Keras calls it with a training batch under a strategy
            return self.network(self.spectrogram(inputs), training=training)
        return self.tagger(inputs, training=training)

    # The training step

    def train_step(self, data: tuple[Any, Any, Any]) -> dict[str, Any]:
        spectrogram, labels, weights = self.prepare(*data)
        loss, gradients = self._loss_and_gradients(spectrogram, labels, weights)
        replicas = tf.distribute.get_replica_context()
        clips = ops.shape(labels)[0]
        if self.skips_overflow:
            # The optimizer skips this step, so its loss does not count.
            clips = ops.where(ops.isfinite(loss), clips, 0)
            loss = ops.where(ops.isfinite(loss), loss, 0.0)
        self._loss_tracker.update_state(
            # compute_loss divides by the number of replicas, so that the sum over them is
            # the mean over the batch.
            loss * replicas.num_replicas_in_sync,
            sample_weight=clips,
        )
        variables = self.trained_variables
        gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.apply_masks()
        if self.averaging == "ema":
            self._average_step()
        mean_loss = self._loss_tracker.result()
        if self.skips_overflow:  # NaN as long as no step counts
            mean_loss = ops.where(self._loss_tracker.count > 0, mean_loss, float("nan"))
        return {"loss": mean_loss}

    @property
    def skips_overflow(self) -> bool:
        """Whether the optimizer skips steps whose gradients overflow, as in float16."""
        return isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer)

    def spectrogram(self, inputs: Any) -> Any:
        """Return the standardised spectrograms of a training batch, without augmentation.

        Args:
            inputs: Waveforms; with `from_features`, mel spectrograms in dB; for a tagger
                without a front-end, spectrograms.
        """
        if self.frontend is None:
            return inputs
        if self.from_features:
            return self.frontend.standardise(inputs)
        return self.frontend(inputs)

    def prepare(self, inputs: Any, labels: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Return augmented spectrograms, labels and label weights of a training batch.

        Args:
            inputs: As in `spectrogram`.
            labels: (batch, classes).
            mask: (batch, classes), 1 where the label is known.

        Returns:
            (batch, time, mel, channel), (batch, classes) and (batch, classes), float32.
        """
        for layer in self.waveform_augmentation:
            inputs = layer(inputs, training=True)
        spectrogram = self.spectrogram(inputs)
        for layer in self.augmentation:
            spectrogram = layer(spectrogram, training=True)
        weights = mask
        if self.class_weights is not None:
            weights = apply_class_weights(labels, mask, self.class_weights, self.task)
        if self.mixup is None:
            return spectrogram, labels, weights
        return tuple(self.mixup([spectrogram, labels, weights], training=True))

    def _loss_and_gradients(
        self, spectrogram: Any, labels: Any, weights: Any
    ) -> tuple[Any, list[Any]]:
        """Return loss and gradients on this replica; update moving statistics and seeds.

        A function compiled with XLA cannot assign variables of a strategy. So `compute` runs
        in a scope that collects what the network would assign, returns these values, and
        they are assigned here, where a strategy can average them over the replicas.
        """
        changed: list[Any] = []

        def compute(spectrogram: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
            inputs = self.fixed_part(spectrogram)
            with keras.StatelessScope() as scope, tf.GradientTape() as tape:
                logits = self.trained_part(inputs, training=True)
                if not self.tagger_outputs.from_logits:
                    logits = self.tagger_outputs.logits(logits)
                loss = self.compute_loss(None, labels, logits, weights, training=True)
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, self.trained_variables)
            state = self.network.non_trainable_variables
            new = [(v, scope.get_current_value(v)) for v in state]
            changed.extend(variable for variable, value in new if value is not None)
            return loss, gradients, [value for _, value in new if value is not None]

        if self.jit:
            # One function per replica, because its trace contains the replica.
            compute = tf.function(compute, jit_compile=True, autograph=False)
        loss, gradients, values = compute(spectrogram, labels, weights)
        if self.skips_overflow:
            values = _unless_overflow(loss, values, changed)
        for variable, value in zip(changed, values, strict=True):
            variable.assign(value)
        return loss, gradients

    # Freezing

    def freeze(self, frozen: bool) -> None:
        """Train only the classifier from now on, or the whole network again.

        A frozen backbone runs as in inference: batch normalisation uses its moving
        statistics, and dropout and Shake-Shake are off. It gets no gradients, so neither its
        weights nor their optimizer state change, and a step is faster. The optimizer stays
        built for all variables.

        Args:
            frozen: True needs `may_freeze`.
        """
        if frozen != self.is_frozen:
            self.is_frozen = frozen
            self.train_function = None  # it was traced for the other state

    @property
    def backbone_indices(self) -> list[int]:
        """Indices of the backbone's trainable variables. Empty without `may_freeze`."""
        if not self.may_freeze:
            return []
        own = {id(variable) for variable in self.classifier.trainable_variables}
        variables = self.tagger.trainable_variables
        return [i for i, variable in enumerate(variables) if id(variable) not in own]

    @property
    def trained_variables(self) -> list[Any]:
        """Variables that a step changes with gradients."""
        return list((self.classifier if self.is_frozen else self.tagger).trainable_variables)

    @property
    def trained_part(self) -> keras.Model:
        """Model that trains: the network, or only the classifier while frozen."""
        return self.classifier if self.is_frozen else self.network

    def fixed_part(self, spectrogram: Any) -> Any:
        """Return the input of `trained_part`: features while frozen, else the spectrogram."""
        return self.backbone(spectrogram, training=False) if self.is_frozen else spectrogram

    # Pruning and averaging

    def apply_masks(self) -> None:
        """Set pruned weights to zero."""
        for kernel, mask in self.masks:
            kernel.assign(kernel * mask)

    def _average_step(self) -> None:
        """Update the moving average with the weights after this step."""
        count = self.average_count + 1.0
        decay = ops.minimum(self.ema_decay, (count - 1.0) / (count + EMA_WARM_UP))
        moving = {id(variable) for variable in self.trained_variables}
        for variable, average in self.averages:
            if id(variable) in moving:
                average.assign(average * decay + variable * (1.0 - decay))
            else:
                average.assign(variable)  # frozen: the average is exact, without rounding
        self.average_count.assign(count)

    def average_epoch(self) -> None:
        """Include the current weights in the mean of stochastic weight averaging."""
        count = self.average_count + 1.0
        for variable, average in self.averages:
            average.assign(average + (variable - average) / count)
        self.average_count.assign(count)

    def load_average(self) -> None:
        """Set the tagger's weights to their average. Pruned weights stay zero."""
        for variable, average in self.averages:
            variable.assign(average)
        self.apply_masks()


def _unless_overflow(loss: Any, values: list[Any], variables: list[Any]) -> list[Any]:
    """Return new values of variables; their old values if the forward pass has overflowed.

    Seeds, which are whole numbers, always get their new values.
    """
    floats = [keras.backend.is_float_dtype(variable.dtype) for variable in variables]
    parts = [value for value, is_float in zip(values, floats, strict=True) if is_float]
    finite = ops.all(ops.stack([ops.all(ops.isfinite(part)) for part in (loss, *parts)]))
    return [
        ops.where(finite, value, variable.value) if is_float else value
        for value, variable, is_float in zip(values, variables, floats, strict=True)
    ]


def recompute_statistics(model: TrainingModel, batches: Iterable[Any]) -> None:
    """Set every moving mean and variance to the mean over some batches.

    Averaged weights need this, because the statistics from training belong to other weights.
    As usual after stochastic weight averaging, each batch passes through the network in
    training mode (normalised with its own statistics, with random dropout and Shake-Shake),
    and all batches have the same weight. The batches are not augmented, like the clips that
    are scored later.

    Args:
        model: Its tagger gets the statistics. If the backbone is frozen, only the classifier
            does. Nothing else changes, including the seeds.
        batches: Batches of the training set, each as `TrainingModel.spectrogram` takes it.

    Raises:
        ConfigError: There are no batches.
    """
    layers = [
        layer
        for layer in model.trained_part._flatten_layers()  # includes layers inside blocks
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    variables = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
    if not variables:
        return
    statistics = {id(variable) for variable in variables}
    others = [v for v in model.network.non_trainable_variables if id(v) not in statistics]

    def batch_statistics(batch: Any) -> tuple[list[Any], dict[int, Any]]:
        inputs = model.fixed_part(model.spectrogram(batch))
        with keras.StatelessScope() as scope:  # collects the values that would be assigned
            model.trained_part(inputs, training=True)
        moved = {i: scope.get_current_value(v) for i, v in enumerate(others)}
        return (
            [scope.get_current_value(variable) for variable in variables],
            {i: value for i, value in moved.items() if value is not None},
        )

    compiled = tf.function(batch_statistics, autograph=False)
    momenta = [layer.momentum for layer in layers]
    before = [variable.numpy() for variable in others]
    sums = [np.zeros(variable.shape) for variable in variables]
    count = 0
    try:
        for layer in layers:
            layer.momentum = 0.0  # so that the new value is that of the batch
        for batch in batches:
            values, moved = compiled(batch)
            for total, value in zip(sums, values, strict=True):
                total += value.numpy()
            for i, value in moved.items():  # seeds: the next batch must draw other numbers
                others[i].assign(value)
            count += 1
    finally:
        for variable, value in zip(others, before, strict=True):
            variable.assign(value)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    if count == 0:
        raise ConfigError("recompute_statistics needs at least one batch.")
    for variable, total in zip(variables, sums, strict=True):
        variable.assign((total / count).astype(np.float32))
