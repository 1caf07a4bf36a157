"""Run a SavedModel in a process that has TensorFlow and nothing of this library.

A script, started by its path: `python -I clean_process.py MODEL INPUTS.npz OUTPUTS.npz`.
It refuses to import what a serving machine does not have, loads MODEL and applies its
signatures to INPUTS. An array "SIGNATURE/N" is a batch of that signature's input; of
`audio_bytes` it is the bytes of one file. Outputs are written as "SIGNATURE/N/OUTPUT".
Signatures that MODEL does not have are left out.
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

    loaded = tf.saved_model.load(model_path)
    outputs = {}
    with np.load(inputs_path, allow_pickle=False) as inputs:
        for key in inputs.files:
            signature = key.partition("/")[0]
            if signature not in loaded.signatures:
                continue
            serve = loaded.signatures[signature]
            ((name, spec),) = serve.structured_input_signature[1].items()
            value = [inputs[key].tobytes()] if spec.dtype == tf.string else inputs[key]
            for output, tensor in serve(**{name: tf.constant(value)}).items():
                outputs[f"{key}/{output}"] = tensor.numpy()
    np.savez(outputs_path, **outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
