"""Faults that no test noticed once, each with the tests that must fail now."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Listed:
    """A fault.

    Attributes:
        title: The fault in a few words.
        path: The file, relative to the root of the repository.
        old: Text that is exactly once in the file.
        new: The text in its place.
        tests: Tests of which at least one must fail.
    """

    title: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


RUN = "rfkeras/training/run.py"

LISTED: tuple[Listed, ...] = (
    Listed(
        "mean and deviation adapted on the test split",
        "rfkeras/training/data.py",
        'return training_batches(\n            self.dataset.split("train"),',
        'return training_batches(\n            self.dataset.split("test"),',
        ("tests/training/test_run.py",),
    ),
    Listed(
        "mean and deviation adapted on the windows of the test split",
        RUN,
        "(batch[0] for batch in inputs.training_batches(0, inputs.steps_per_epoch))",
        'inputs.evaluation_batches("test")[0]',
        ("tests/training/test_run.py",),
    ),
    Listed(
        "prior_bias never assigned",
        RUN,
        "classifier[0].beta.assign(bias)",
        "pass",
        ("tests/training/test_run.py",),
    ),
    Listed(
        "zoo built with depth=1",
        "zoo/resnet_rf.py",
        "depth=len(plan.blocks)",
        "depth=1",
        ("tests/zoo/test_resnet_rf.py",),
    ),
    Listed(
        "stem initialised by fan-out",
        "zoo/common.py",
        'initializer=he_normal("fan_in"),\n        name="stem_conv"',
        'initializer=he_normal("fan_out"),\n        name="stem_conv"',
        ("tests/zoo/test_resnet_rf.py",),
    ),
    Listed(
        "damp_time ignored in the stem",
        "zoo/common.py",
        "damp_time=damp_time,\n        strides=STEM_STRIDE",
        "strides=STEM_STRIDE",
        ("tests/zoo/test_resnet_rf.py",),
    ),
    Listed(
        "the mixup partner is a fixed reversal",
        "rfkeras/layers/augmentation.py",
        "partner = ops.argsort(self.uniform((batch,)))",
        "partner = ops.argsort(0.0 * self.uniform((batch,)))[::-1]",
        ("tests/layers/test_augmentation.py",),
    ),
    Listed(
        "seed of the shuffle buffer constant over epochs",
        "rfkeras/datasets/packed_pipeline.py",
        "seed=plan.buffer_seed(epoch)",
        "seed=plan.buffer_seed(0 * epoch)",
        ("tests/datasets/test_packed.py",),
    ),
    Listed(
        "hold_out depends on the order of the files",
        "rfkeras/datasets/base.py",
        'by_key = np.argsort(np.array(split.keys), kind="stable")',
        "by_key = np.arange(len(split))",
        ("tests/datasets/test_base.py",),
    ),
    Listed(
        "rho_for takes the larger of two nearest",
        "rfkeras/rf/rho.py",
        "return min(rhos, key=",
        "return min(reversed(rhos), key=",
        ("tests/rf/test_rho.py",),
    ),
    Listed(
        "tags ranked by score before time",
        "rfkeras/inference/output.py",
        "np.lexsort((-result.scores, -seconds,",
        "np.lexsort((-seconds, -result.scores,",
        ("tests/inference/test_output.py",),
    ),
    Listed(
        "window_seconds ignored",
        "rfkeras/training/data.py",
        "window_seconds=self.config.window_seconds",
        "window_seconds=self.config.excerpt_seconds",
        ("tests/training/test_data.py",),
    ),
    Listed(
        "shortest input of the front-end one sample short",
        "rfkeras/frontend/layer.py",
        "self.window_samples // 2 + 1)",
        "self.window_samples // 2)",
        ("tests/frontend/test_layer.py",),
    ),
    Listed(
        "audio padded to one sample less than needed",
        "rfkeras/frontend/kapre_layers.py",
        "short_by = tf.maximum(0, frontend.min_samples - tf.shape(x)[-1])",
        "short_by = tf.maximum(0, frontend.min_samples - 1 - tf.shape(x)[-1])",
        ("tests/frontend/test_layer.py",),
    ),
    Listed(
        "pruning one epoch late",
        RUN,
        "pruner.prune_for(epoch)",
        "pruner.prune_for(epoch - 1)",
        ("tests/training/test_run.py",),
    ),
)
