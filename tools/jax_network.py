"""A network of the zoo on JAX: training steps and scores as pure compiled functions.

Importing this module needs KERAS_BACKEND=jax. The weights of training, their moving average
and the moments of AdamW are one state, which stays on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from numpy.typing import NDArray

import zoo
from rfkeras.errors import ConfigError
from rfkeras.training.losses import MaskedBinaryCrossentropy
from rfkeras.training.optimizer import is_kernel
from tools.jax_batches import Augmentation, draw_batch, standardised
from tools.jax_settings import PRECISIONS

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7

State = dict[str, Any]


class Network:
    """A model without front-end, and its functions on JAX.

    Args:
        model: Name of the model in the zoo.
        label_names: The tags.
        precision: "bfloat16" computes in bfloat16 with float32 weights; or "float32".
        seed: Seed of the initial weights.
        options: Options of the architecture.

    Attributes:
        model: The Keras model; its variables keep their initial values.
    """

    def __init__(
        self,
        model: str,
        label_names: tuple[str, ...],
        precision: str = "bfloat16",
        seed: int = 0,
        **options: Any,
    ):
        keras.utils.clear_session(free_memory=False)  # equal names of layers for every model
        keras.utils.set_random_seed(seed)
        keras.config.set_dtype_policy(PRECISIONS[precision])
        try:
            self.model = zoo.create_model(
                model, label_names=label_names, **{"frontend": None, **options}
            )
        finally:
            keras.config.set_dtype_policy("float32")
        self._loss = MaskedBinaryCrossentropy()
        self._decays = [is_kernel(variable) for variable in self.model.trainable_variables]

    @property
    def n_weights(self) -> int:
        """Number of trainable weights."""
        return sum(int(np.prod(v.shape)) for v in self.model.trainable_variables)

    def set_first_logits(self, logits: NDArray[np.float32]) -> None:
        """Set the bias of the classifier, so that training starts at these logits."""
        self.model.get_layer("classifier_bn").beta.assign(logits)

    def load(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Set the weights and statistics to those of `averaged_arrays`.

        Raises:
            ConfigError: One is missing or has another shape.
        """
        for variable in (*self.model.trainable_variables, *self.model.non_trainable_variables):
            if not is_float(variable.value):
                continue
            value = arrays.get(variable.path)
            if value is None or value.shape != tuple(variable.shape):
                found = "nothing" if value is None else f"shape {value.shape}"
                raise ConfigError(
                    f"The earlier weights do not fit: {variable.path} needs shape "
                    f"{tuple(variable.shape)}. Found: {found}. Use the options of that "
                    "training."
                )
            variable.assign(value)

    def new_state(self) -> State:
        """Return the state before the first step."""
        # Copies, because the state is given up to every next step.
        weights, others = (
            [jnp.array(variable.value, copy=True) for variable in variables]
            for variables in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
            )
        )
        return {
            "weights": weights,
            "others": others,
            "mean_weights": [jnp.array(w, copy=True) for w in weights],
            "mean_others": [jnp.array(w, copy=True) for w in others],
            "first": [jnp.zeros_like(w) for w in weights],
            "second": [jnp.zeros_like(w) for w in weights],
            "step": jnp.zeros((), jnp.int32),
        }

    def chunk_function(
        self,
        steps: int,
        batch: int,
        frames: int,
        augmentation: Augmentation,
        weight_decay: float,
        averaging: float,
        consistency: float = 0.0,
    ) -> Callable[..., tuple[State, Any]]:
        """Return a compiled function of many training steps.

        Args:
            steps: Steps in a call.
            batch: Excerpts in a step.
            frames: Frames of an excerpt.
            augmentation: Random changes of the excerpts.
            weight_decay: AdamW's decay of kernels.
            averaging: Share of the old moving average of the weights that a step keeps. It is
                smaller in the first steps.
            consistency: Weight of the mean squared difference between the logits of an excerpt
                at two gains. Above 0, a batch has every excerpt twice.

        Returns:
            Function of (state, data, key, rates), with a learning rate for every step. It
            returns the next state, in the memory of the old one, and the mean loss.
        """

        def loss_of(weights: Any, others: Any, x: Any, labels: Any, mask: Any) -> Any:
            logits, others = self.model.stateless_call(weights, others, x, training=True)
            loss = self._loss(labels, logits, sample_weight=mask)
            if consistency:
                first, second = jnp.split(logits.astype(jnp.float32), 2)
                loss += consistency * jnp.mean(jnp.square(first - second))
            return loss, others

        def step(state: State, rate: Any, data: Any, key: Any) -> tuple[State, Any]:
            key = jax.random.fold_in(key, state["step"])
            x, labels, mask = draw_batch(
                key, data, batch, frames, augmentation, twice=consistency > 0
            )
            (loss, others), gradients = jax.value_and_grad(loss_of, has_aux=True)(
                state["weights"], state["others"], x, labels, mask
            )
            count = state["step"] + 1
            state = {**state, "others": others, "step": count}
            state = adamw(state, gradients, self._decays, rate, weight_decay)
            kept = jnp.minimum(averaging, (1.0 + count) / (10.0 + count))
            for name in ("weights", "others"):
                pairs = zip(state[f"mean_{name}"], state[name], strict=True)
                state[f"mean_{name}"] = [moving_mean(old, new, kept) for old, new in pairs]
            return state, loss

        def chunk(state: State, data: Any, key: Any, rates: Any) -> tuple[State, Any]:
            state, losses = jax.lax.scan(
                lambda state, rate: step(state, rate, data, key), state, rates, length=steps
            )
            return state, jnp.mean(losses)

        return jax.jit(chunk, donate_argnums=0)

    def logits_function(self) -> Callable[..., Any]:
        """Return a compiled function of (weights, others, data, steps) to clip logits.

        `steps` are whole clips (clips, frames, bands) uint8.
        """

        def logits(weights: Any, others: Any, data: dict[str, Any], steps: Any) -> Any:
            x = standardised(steps.astype(jnp.float32) * data["step_db"], data)
            return self.model.stateless_call(weights, others, x[..., None], training=False)[0]

        return jax.jit(logits)

    def averaged_arrays(self, state: State) -> dict[str, NDArray[np.float32]]:
        """Return the moving averages of the weights and of the statistics by variable path."""
        arrays = {}
        for name, variables in (
            ("mean_weights", self.model.trainable_variables),
            ("mean_others", self.model.non_trainable_variables),
        ):
            for variable, value in zip(variables, state[name], strict=True):
                if is_float(value):  # not the states of the random layers
                    arrays[variable.path] = np.asarray(value, np.float32)
        return arrays


def is_float(value: Any) -> bool:
    """Return whether an array has real numbers."""
    return bool(jnp.issubdtype(value.dtype, jnp.floating))


def moving_mean(old: Any, new: Any, kept: Any) -> Any:
    """Return the next moving average; integers, such as random states, are copied."""
    return kept * old + (1.0 - kept) * new if is_float(new) else new


def adamw(
    state: State, gradients: Any, decays: list[bool], rate: Any, weight_decay: float
) -> State:
    """Apply a step of AdamW to the weights of a state.

    Args:
        state: The state, with the number of this step, counted from 1.
        gradients: Of the weights.
        decays: Whether each weight decays.
        rate: Learning rate.
        weight_decay: Decay, scaled by the learning rate.
    """
    count = state["step"].astype(jnp.float32)
    size = rate * jnp.sqrt(1.0 - BETA_2**count) / (1.0 - BETA_1**count)
    first, second, weights = [], [], []
    for w, g, m, v, decay in zip(
        state["weights"], gradients, state["first"], state["second"], decays, strict=True
    ):
        m = BETA_1 * m + (1.0 - BETA_1) * g
        v = BETA_2 * v + (1.0 - BETA_2) * jnp.square(g)
        w = w * (1.0 - rate * weight_decay) if decay else w
        weights.append(w - size * m / (jnp.sqrt(v) + EPSILON))
        first.append(m)
        second.append(v)
    return {**state, "weights": weights, "first": first, "second": second}


def mean_average_precision(scores: Any, labels: Any, mask: Any) -> float:
    """Return the mAP over the tags with positives, as in `rfkeras.evaluation`; NaN without.

    A copy without scikit-learn, which a machine for training may lack.

    Args:
        scores: (clips, tags).
        labels: (clips, tags) from 0 to 1; at least 0.5 is positive.
        mask: (clips, tags), true where the label is known.
    """
    values = []
    for tag in range(scores.shape[1]):
        known = np.asarray(mask[:, tag], bool)
        tag_scores, positive = scores[known, tag], labels[known, tag] >= 0.5
        if not positive.any():
            continue
        order = np.argsort(-tag_scores, kind="stable")
        hits = np.cumsum(positive[order])
        # Clips with equal scores are found together.
        ends = np.flatnonzero(np.diff(tag_scores[order], append=np.nan))
        precision, recall = hits[ends] / (ends + 1), hits[ends] / hits[-1]
        values.append(float(np.sum(np.diff(recall, prepend=0.0) * precision)))
    return float(np.mean(values)) if values else float("nan")
