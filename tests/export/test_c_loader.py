"""SavedModels in TensorFlow's C API: the loader and the session of TensorFlow Serving."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from rfkeras.export import saved_model
from tests.helpers import c_session
from tests.helpers.small_models import small

LIBRARIES = Path(tf.__file__).parent
REQUESTS = 1000
LARGEST_GROWTH_MB = 8

pytestmark = pytest.mark.skipif(
    not (LIBRARIES / "libtensorflow_cc.so.2").is_file(),
    reason="TensorFlow's C library has another name on this system",
)


def wav(waveform, rate_hz):
    file = io.BytesIO()
    soundfile.write(file, waveform, rate_hz, format="WAV", subtype="PCM_16")
    return np.frombuffer(file.getvalue(), np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return saved_model(small(), tmp_path_factory.mktemp("model") / "1", warmup=False)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(3)
    clips = rng.normal(0, 0.1, (3, 22050)).astype("float32")
    bad = clips.copy()
    bad[1, 7] = np.nan
    per_signature = [clips, clips[:1, :50], clips[:0], bad]
    return {
        **{
            f"{name}/{number}": batch
            for name in ("serving_default", "frames", "embed")
            for number, batch in enumerate(per_signature)
        },
        "audio_bytes/0": wav(clips[0], 44100),
        "audio_bytes/1": wav(clips[0], 8000),
        "audio_bytes/2": np.frombuffer(b"not a sound file", np.uint8),
    }


@pytest.fixture(scope="module")
def through_c(exported, inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("c")
    np.savez(folder / "inputs.npz", **inputs)
    files = (exported, folder / "inputs.npz", folder / "outputs.npz")
    script = (sys.executable, "-I", c_session.__file__, LIBRARIES)
    command = [str(part) for part in (*script, *files, REQUESTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(folder / "outputs.npz") as outputs:
        return {name: outputs[name] for name in outputs.files}


def test_all_signatures_give_the_same_values(exported, inputs, through_c):
    assert str(through_c["version"]) == tf.__version__
    loaded = tf.saved_model.load(str(exported)).signatures
    assert through_c["signatures"].tolist() == sorted(loaded)
    compared = 0
    for key, batch in inputs.items():
        if f"{key}/error" in through_c:
            continue
        serve = loaded[key.partition("/")[0]]
        ((name, _),) = serve.structured_input_signature[1].items()
        value = [batch.tobytes()] if batch.dtype == np.uint8 else batch
        for output, expected in serve(**{name: tf.constant(value)}).items():
            found = through_c[f"{key}/{output}"]
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6, err_msg=key)
            compared += 1
    assert compared == 2 * (1 + 2 + 2) + 2


def test_wrong_inputs_are_rejected_with_their_reason(inputs, through_c):
    errors = {
        key.removesuffix("/error"): str(text)
        for key, text in through_c.items()
        if key.endswith("/error")
    }
    wrong = [f"{name}/{n}" for name in ("serving_default", "frames", "embed") for n in (2, 3)]
    assert sorted(errors) == sorted([*wrong, "audio_bytes/2"])
    for name in ("serving_default", "frames", "embed"):
        assert "empty" in errors[f"{name}/2"].lower()
        assert "[1]" in errors[f"{name}/3"]
    assert "WAV" in errors["audio_bytes/2"]


def test_many_requests_at_once_agree_and_keep_memory(through_c):
    assert through_c["repeated"]
    memory_mb = through_c["memory_mb"]
    assert len(memory_mb) == 10
    # The first requests fill the allocator's pools.
    assert memory_mb[-1] - memory_mb[3] < LARGEST_GROWTH_MB, memory_mb
