"""Run a SavedModel in a process that has TensorFlow and nothing of this library.

A script, started by its path: `python -I clean_process.py MODEL INPUTS.npz OUTPUTS.npz`.
It refuses to import what a serving machine does not have, loads MODEL, applies
`serving_default` to each array of INPUTS and writes the scores under the same names.
"""

import sys

REFUSED = {"kapre", "librosa", "rfkeras", "tensorflow_io", "zoo"}


class _Refuse:
    """An importer that finds none of the refused packages, installed or not."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in REFUSED:
            raise ImportError(f"{name} is not available on a serving machine")


def main(model_path: str, inputs_path: str, outputs_path: str) -> None:
    """Load, apply, write."""
    sys.meta_path.insert(0, _Refuse)
    import numpy as np
    import tensorflow as tf

    serve = tf.saved_model.load(model_path).signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    with np.load(inputs_path, allow_pickle=False) as inputs:
        outputs = {
            key: serve(**{name: tf.constant(inputs[key])})["scores"].numpy()
            for key in inputs.files
        }
    np.savez(outputs_path, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
