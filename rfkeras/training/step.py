"""The model that is trained: a tagger with all that happens in training only around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from rfkeras.errors import ConfigError
from rfkeras.frontend import find_frontend
from rfkeras.layers import Mixup, find_head
from rfkeras.training.losses import weigh
from rfkeras.training.optimizer import is_kernel
from zoo.tagger import classifier_input

TESTED_KERAS = "3.13."


class CollectiveModel(keras.Model):
    """A model whose `fit` also works under `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras 3 does not support that strategy (keras-team/keras issue 20585): its `fit` averages
    what a step returns along a batch axis that a loss does not have, and builds the model
    from values that lie in several processes. Here a step's results are averaged over the
    replicas, and the model must be built, and its optimiser too, before `fit`. Data must
    come from `strategy.distribute_datasets_from_function`. Under other strategies nothing
    changes.

    Raises:
        ConfigError: `fit` by several workers with a version of Keras that this was not
            tested with.
    """

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        if not is_collective(self.distribute_strategy):
            super()._maybe_symbolic_build(iterator, data_batch)

    def _make_function(self, step_function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        strategy = self.distribute_strategy
        if not is_collective(strategy):
            return super()._make_function(step_function)  # type: ignore[no-any-return]
        if not keras.__version__.startswith(TESTED_KERAS):
            raise ConfigError(
                f"Training by several workers replaces parts of Keras and was tested with "
                f"Keras {TESTED_KERAS}x. Received: {keras.__version__}. Install "
                f"'keras>={TESTED_KERAS}0,<3.14', or train in one process."
            )

        def step(iterator: Any) -> dict[str, Any]:
            results = strategy.run(step_function, args=(next(iterator),))
            mean = tf.distribute.ReduceOp.MEAN
            return {name: strategy.reduce(mean, v, axis=None) for name, v in results.items()}

        compiled: Callable[[Any], Any] = tf.function(step, reduce_retracing=True)
        return compiled


def is_collective(strategy: Any) -> bool:
    """Whether a strategy spans several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


EMA_WARM_UP = 8.0  # steps after the first, which the average equals


class TrainingModel(CollectiveModel):
    """Trains a tagger; the tagger itself stays free of everything that training adds.

    A step takes (waveform, labels, mask). The front-end computes the spectrogram, outside
    of the gradient; the augmentation changes it; the trunk, the part of the tagger behind
    the front-end, is what the gradient runs through. Gradients are summed over the
    replicas of a `tf.distribute` strategy, and only then clipped and applied, so the
    optimiser must be one of `rfkeras.training.optimizer`.

    All state besides the optimiser's is in `state_variables(model)`: the tagger's, seeds,
    the running average, the pruning masks.

    Args:
        tagger: Functional model from waveform (or, without a front-end, spectrogram) to
            logits.
        waveform_augmentation: Layers between the waveform and the front-end.
        augmentation: Layers between the front-end and the trunk.
        mixup: Blends spectrograms and labels last of all; None for no blending.
        class_weights: (classes,) weights for `class_weights.weigh`, or None.
        averaging: Average of the weights to keep. "swa": the mean over the moments at
            which `average_epoch` is called. "ema": an exponential moving average over the
            steps. "none".
        ema_decay: Share of the old moving average that stays at each step; in the first
            steps less, at most (step - 1) / (step + 8), so that the initial weights are soon
            forgotten.
        prune: Keep a mask for each kernel, all ones at first, and multiply the kernels by
            it after every step.
        jit: Compile forward and backward pass of the trunk by XLA.
        may_freeze: Be ready for `freeze`.
        **kwargs: As for `keras.Model`.

    Attributes:
        tagger: The tagger, which shares all its layers with this model.
        averages: (variable, its average) pairs.
        masks: (kernel, its mask) pairs.
        is_frozen: Whether the classifier alone trains, see `freeze`.

    Raises:
        ConfigError: Waveform augmentation without a front-end, or `may_freeze` for a model
            without a classifier of its own.

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
        inputs = tagger.inputs[0] if self.frontend is None else self.frontend.output
        self.trunk = keras.Model(inputs, tagger.outputs[0], name="trunk")
        self.may_freeze = may_freeze
        self.is_frozen = False
        if may_freeze:
            features = classifier_input(tagger)
            self.features = keras.Model(inputs, features, name="features")
            self.classifier = keras.Model(features, tagger.outputs[0], name="classifier")
        self.waveform_augmentation = list(waveform_augmentation)
        self.augmentation = list(augmentation)
        self.mixup = mixup
        self.class_weights = class_weights
        head = find_head(tagger)
        self.task = "multi_label" if head is None else head.task
        self.averaging = averaging
        self.ema_decay = ema_decay
        self.jit = jit
        trainable = tagger.trainable_variables
        self.averages = [(v, self._twin(v)) for v in trainable if averaging != "none"]
        self.average_count = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="float32",
            trainable=False,
            name="average_count",
        )
        kernels = [v for v in trainable if prune and is_kernel(v)]
        self.masks = [(v, self._twin(v, "mask", "ones")) for v in kernels]
        self.built = True

    def _twin(self, variable: Any, name: str = "average", initializer: str = "zeros") -> Any:
        # Every replica computes the same values: none of them needs to hear of the others'.
        return self.add_weight(
            shape=variable.shape,
            initializer=initializer,
            dtype="float32",
            trainable=False,
            aggregation="none",
            name=f"{variable.path.replace('/', '_')}_{name}",
        )

    def freeze(self, frozen: bool) -> None:
        """Train the classifier alone from now on, or everything again.

        A frozen trunk computes what it computes at inference: with the statistics that its
        batch normalisation has, without dropout or Shake-Shake. No gradient is computed for
        it, so neither its weights nor their moments in the optimiser move, and a step takes
        less time. The optimiser stays built for all variables.

        Args:
            frozen: Needs `may_freeze`.
        """
        if frozen != self.is_frozen:
            self.is_frozen = frozen
            self.train_function = None  # the compiled step is that of before

    @property
    def trunk_places(self) -> list[int]:
        """Places of the trunk's variables among the trainable ones; none but to freeze."""
        if not self.may_freeze:
            return []
        own = {id(variable) for variable in self.classifier.trainable_variables}
        variables = self.tagger.trainable_variables
        return [i for i, variable in enumerate(variables) if id(variable) not in own]

    @property
    def trained_variables(self) -> list[Any]:
        """The variables that a step changes by gradients."""
        return list((self.classifier if self.is_frozen else self.tagger).trainable_variables)

    @property
    def trained_part(self) -> keras.Model:
        """What trains: the trunk with the classifier, or the classifier alone."""
        return self.classifier if self.is_frozen else self.trunk

    def fixed_part(self, spectrogram: Any) -> Any:
        """The input of `trained_part`: features if the trunk is frozen, else unchanged."""
        return self.features(spectrogram, training=False) if self.is_frozen else spectrogram

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.tagger(inputs, training=training)

    def prepare(self, waveform: Any, labels: Any, mask: Any) -> tuple[Any, Any, Any]:
        """(spectrogram, labels, weights) of a training batch, augmented, in float32."""
        for layer in self.waveform_augmentation:
            waveform = layer(waveform, training=True)
        spectrogram = waveform if self.frontend is None else self.frontend(waveform)
        for layer in self.augmentation:
            spectrogram = layer(spectrogram, training=True)
        weights = mask
        if self.class_weights is not None:
            weights = weigh(labels, mask, self.class_weights, self.task)
        if self.mixup is None:
            return spectrogram, labels, weights
        return tuple(self.mixup([spectrogram, labels, weights], training=True))

    def train_step(self, data: tuple[Any, Any, Any]) -> dict[str, Any]:
        spectrogram, labels, weights = self.prepare(*data)
        loss, gradients = self._loss_and_gradients(spectrogram, labels, weights)
        replicas = tf.distribute.get_replica_context()
        self._loss_tracker.update_state(
            # compute_loss divides by the replicas, so that their sum is the batch's mean.
            loss * replicas.num_replicas_in_sync,
            sample_weight=ops.shape(labels)[0],
        )
        variables = self.trained_variables
        gradients = replicas.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.apply_masks()
        if self.averaging == "ema":
            self._average_step()
        return {"loss": self._loss_tracker.result()}

    def _loss_and_gradients(
        self, spectrogram: Any, labels: Any, weights: Any
    ) -> tuple[Any, list[Any]]:
        """Loss and gradients of this replica's part; statistics and seeds move on.

        XLA computes on values: what the trunk would assign to its variables is collected,
        handed out and assigned here, where replicas can average it.
        """
        changed: list[Any] = []

        def compute(spectrogram: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
            inputs = self.fixed_part(spectrogram)
            with keras.StatelessScope() as scope, tf.GradientTape() as tape:
                logits = self.trained_part(inputs, training=True)
                loss = self.compute_loss(None, labels, logits, weights, training=True)
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, self.trained_variables)
            new = [(v, scope.get_current_value(v)) for v in self.trunk.non_trainable_variables]
            changed.extend(variable for variable, value in new if value is not None)
            return loss, gradients, [value for _, value in new if value is not None]

        if self.jit:
            # Made for each replica anew: a function knows on which one it was traced.
            compute = tf.function(compute, jit_compile=True, autograph=False)
        loss, gradients, values = compute(spectrogram, labels, weights)
        for variable, value in zip(changed, values, strict=True):
            variable.assign(value)
        return loss, gradients

    def apply_masks(self) -> None:
        """Set what is pruned to zero."""
        for kernel, mask in self.masks:
            kernel.assign(kernel * mask)

    def _average_step(self) -> None:
        """Take the weights after this step into the moving average."""
        count = self.average_count + 1.0
        decay = ops.minimum(self.ema_decay, (count - 1.0) / (count + EMA_WARM_UP))
        moving = {id(variable) for variable in self.trained_variables}
        for variable, average in self.averages:
            if id(variable) in moving:
                average.assign(average * decay + variable * (1.0 - decay))
            else:
                average.assign(variable)  # the mean of equal values, but for rounding
        self.average_count.assign(count)

    def average_epoch(self) -> None:
        """Take the present weights into the mean of stochastic weight averaging."""
        count = self.average_count + 1.0
        for variable, average in self.averages:
            average.assign(average + (variable - average) / count)
        self.average_count.assign(count)

    def load_average(self) -> None:
        """Give the tagger the averaged weights; what is pruned stays pruned."""
        for variable, average in self.averages:
            variable.assign(average)
        self.apply_masks()
