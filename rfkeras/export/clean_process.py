"""Run a SavedModel in a process that has TensorFlow but not this library.

This is a script, started by its path: `python -I clean_process.py MODEL INPUTS.npz
OUTPUTS.npz`. It blocks imports of packages that a serving machine does not have, loads MODEL
and applies its signatures to INPUTS. An array "SIGNATURE/N" is an input batch of that
signature; for `audio_bytes` it is the bytes of one file. Outputs are saved as
"SIGNATURE/N/OUTPUT". Arrays for signatures that MODEL does not have are ignored.
"""

import sys

BLOCKED = {"kapre", "librosa", "rfkeras", "tensorflow_io", "zoo"}


class _Blocker:
    """An importer that rejects blocked packages, installed or not."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is not available on a serving machine")


def main(model_path: str, inputs_path: str, outputs_path: str) -> None:
    """Load the model, apply its signatures and save the outputs."""
    sys.meta_path.insert(0, _Blocker)
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
