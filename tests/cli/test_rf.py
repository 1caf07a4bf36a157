"""`rfkeras rf`: what it prints, draws and rejects."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import soundfile
from matplotlib import image

import zoo
from rfkeras.audio.io import AudioFormat
from rfkeras.cli import main
from rfkeras.cli.rf import Subject, read_clips, render_clips
from rfkeras.config.resolve import complete
from rfkeras.config.train_config import TrainConfig, to_json
from rfkeras.frontend.presets import scale_of_preset

SCALE = scale_of_preset("perceptual_mel_22k")
PICTURES = ["effective.png", "layers.png", "receptive_field.json"]


@pytest.fixture
def rf(capsys, monkeypatch, tmp_path):
    """Run the command in an empty folder; return status, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments):
        status = main.run(["rf", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return command


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Write an audio file of five seconds."""
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    noise = 0.1 * np.random.default_rng(0).normal(size=5 * 22050)
    soundfile.write(path, noise.astype("float32"), 22050)
    return path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def rows(out, heading):
    """Return the rows of the table with this first heading, by their first cell."""
    lines = out[out.index(f"\n{heading} ") :].lstrip().split("\n\n")[0].splitlines()[2:]
    return {cells[0]: cells[1:] for line in lines if (cells := line.split())}


def test_tables_and_pictures_of_a_zoo_model(rf, clip, tmp_path):
    status, out, err = rf("resnet_rf", "--rho", "2", "--width", "4", "--audio", clip)
    assert (status, err) == (0, "")
    span, mel = SCALE.ms(39), 100 * 39 / 256
    assert "39 frames" in out
    assert f"{span:,.0f} ms of audio" in out
    assert f"{mel:.0f} % of the 256 bands" in out
    low, high = SCALE.hz_span(*SCALE.bands_around(1000, 39))
    assert f"around 1,000 Hz: {low:,.0f} to {high:,.0f} Hz" in out
    layers = rows(out, "layer")
    assert layers["stem_conv"][:2] == ["Conv2D", "5"]
    assert layers["stage1_block2"][:3] == ["ResidualBlock", "27", f"{SCALE.ms(27):,.0f}"]
    assert layers["stage3_block4"][1:3] == ["39", f"{span:,.0f}"]
    assert "'logits' then pools over all positions" in out
    assert "at random weights" in out
    assert str(clip) in out
    folder = tmp_path / "rf-resnet_rf-rho2"
    assert files(folder) == PICTURES
    for name in PICTURES[:2]:
        assert f"Picture: rf-resnet_rf-rho2/{name}" in out
        assert image.imread(folder / name).std() > 0.05
    content = json.loads((folder / "receptive_field.json").read_text())
    assert content["receptive_field"]["time"] == {"size": 39, "jump": 16, "start": -11}
    effective = content["effective"]
    assert effective["exact_frames"] == 39
    assert 1 <= effective["window_95_frames"] <= 39
    assert effective["outside_share"] == 0


def test_only_json_on_standard_output_and_no_files(rf, tmp_path):
    arguments = ("vgg_rf", "--width", "2", "--for-rf-time", "90", "--for-bands", "30")
    status, out, err = rf(*arguments, "--rule", "at_least", "--all-rho", "--json", "--no-plots")
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert content["options"]["rho"] == [6, 1]
    assert content["receptive_field"]["time"]["size"] == 103
    assert content["receptive_field"]["frequency"]["size"] == 31
    assert content["receptive_field"]["time_ms"] == SCALE.ms(103)
    steps = content["rhos"]
    assert [step["time"] for step in steps] == [23, 31, 39, 55, 71, 87, 103, 135]
    assert steps[3]["added_parameters"] == 8 * 4 * 8
    assert files(tmp_path) == []


def test_all_rho_marks_the_model_and_shows_how_its_rho_was_chosen(rf, monkeypatch):
    monkeypatch.setattr(Subject, "parameters", lambda _, rho: 1000 * (rho + 1))
    flags = ("--for-ms", "800", "--all-rho", "--all-layers", "--no-plots")
    _, out, _ = rf("vgg_rf", "--width", "2", *flags)
    assert "rho was chosen by --for-ms (at_most)" in out
    table = out[out.index("layer made wider") :]
    marked = [line for line in table.splitlines() if line.split()[1:2] == ["*"]]
    assert len(marked) == 1
    assert marked[0].split()[:5] == ["1", "*", "31", "789", "12"]
    assert marked[0].split()[-4:] == ["+8", "stage2_layer1", "2,000", "+1,000"]
    assert "stem_relu" in out


def test_receptive_field_requested_in_hz(rf):
    _, out, _ = rf("vgg_rf", "--width", "2", "--for-hz", "2500,4000", "--json", "--no-plots")
    found = json.loads(out)["receptive_field"]["frequency"]["size"]
    wider = {23: 31, 31: 39, 39: 55, 55: 71}[found]
    assert SCALE.bandwidth_hz(found, 4000) <= 2500 < SCALE.bandwidth_hz(wider, 4000)


def test_a_run_folder_gives_the_architecture_and_receives_the_pictures(rf, clip, tmp_path):
    config = complete(replace(TrainConfig(), model="vgg_rf", width=2, rho=3))
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    (run_folder / "config.json").write_text(to_json(config))
    settings = {**config.model_options(), "initialization": "he"}
    model = zoo.create_model("vgg_rf", label_names=("piano", "drums"), **settings)
    model.save(run_folder / "model.keras")
    _, out, err = rf("run", "--audio", clip, "--tags", "piano,drums")
    assert err == ""
    assert "vgg_rf, rho 3 of run" in out
    assert "at random weights" not in out
    assert files(run_folder / "receptive_field") == sorted([*PICTURES, "effective_tags.png"])
    content = json.loads((run_folder / "receptive_field" / PICTURES[2]).read_text())
    assert set(content["effective"]["tags"]) == {"piano", "drums"}


def test_a_file_without_a_front_end_only_gets_the_picture_of_its_layers(rf, tmp_path):
    inputs = keras.Input((None, 40, 1))
    x = keras.layers.Conv2D(2, 5, dilation_rate=(2, 1), name="wide")(inputs)
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x)).save("own.keras")
    status, out, err = rf("own.keras", "--output", "pictures")
    assert (status, err) == (0, "")
    assert "9 pixels" in out
    assert rows(out, "layer")["wide"][:4] == ["Conv2D", "9", "x", "5"]
    assert "has no front-end" in out
    assert files(tmp_path / "pictures") == ["layers.png", "receptive_field.json"]
    for flags in (["--audio", "own.keras"], ["--all-rho", "--no-plots"], ["--rho", "3"]):
        status, out, err = rf("own.keras", *flags)
        assert (status, out) == (1, "")
        assert err.startswith("rfkeras rf: error: ")


def test_layer_in_the_middle(rf):
    arguments = ("vgg_rf", "--width", "2", "--layer", "stage2_pool", "--json", "--no-plots")
    content = json.loads(rf(*arguments)[1])["receptive_field"]
    assert content["layer"] == "stage2_pool"
    assert content["time"]["size"] == 31
    assert content["layers"][-1]["name"] == "stage2_pool"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnt_rf"], "Did you mean 'resnet_rf'"),
        (["no/such/model"], "which does not exist"),
        (["gone.keras"], "There is no model gone.keras"),
        (["text.keras"], "text.keras cannot be loaded"),
        (["notes.txt"], "MODEL must be the name of a zoo model"),
        (["empty"], "is not a run folder"),
        (["notes.keras", "--rho", "3"], "these flags have no effect: --rho"),
        (["vgg_rf", "--shake"], "Unknown option of vgg_rf 'shake'"),
        (["vgg_rf", "--rho", "9"], "from 0 to 7"),
        (["vgg_rf", "--rho", "3", "--for-ms", "900"], "--rho and --for-ms both choose rho"),
        (["vgg_rf", "--for-ms", "900", "--for-rf-time", "9"], "both request a field"),
        (["vgg_rf", "--for-ms", "5"], "the smallest (rho 0) is 604 ms"),
        (["vgg_rf", "--rule", "nearest"], "--rule needs one of --for-rf-time"),
        (["crnn", "--for-ms", "900"], "unlimited along time"),
        (["crnn", "--all-rho", "--no-plots", "--units", "2", "--width", "2"], "has no rho"),
        (
            ["vgg_rf", "--no-plots", "--audio", "a.wav"],
            "--no-plots cannot be combined with --audio",
        ),
        (["vgg_rf", "--width", "2", "--layer", "stage9"], "Unknown layer 'stage9'"),
        (["vgg_rf", "--width", "2", "--audio", "gone.wav"], "gone.wav"),
        (["vgg_rf", "--width", "2", "--tags", "kazoo"], "kazoo"),
    ],
)
def test_rejected_arguments(rf, tmp_path, arguments, message):
    (tmp_path / "text.keras").write_text("no archive")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "notes.keras").write_text("")
    (tmp_path / "empty").mkdir()
    status, out, err = rf(*arguments)
    assert status == 1
    assert out == ""
    assert err.startswith("rfkeras rf: error: ")
    assert message in err


def test_for_hz_needs_two_numbers(rf, capsys):
    with pytest.raises(SystemExit):
        rf("vgg_rf", "--for-hz", "2500")
    assert "must be two numbers, such as 2000,1000" in capsys.readouterr().err


def test_clips_are_as_long_as_the_shortest_and_have_the_models_format(tmp_path):
    for name, seconds in (("long", 3.0), ("short", 1.5)):
        samples = np.full((int(44100 * seconds), 2), 0.25, "float32")
        soundfile.write(tmp_path / f"{name}.flac", samples, 44100)
    paths = [tmp_path / "long.flac", tmp_path / "short.flac"]
    assert read_clips(paths, AudioFormat(22050), 2.0).shape == (2, 33075)
    assert read_clips(paths[:1], AudioFormat(22050, 2), 2.0).shape == (1, 44100, 2)


def test_generated_clips_are_always_the_same():
    clips, name = render_clips(1, AudioFormat(22050))
    assert clips.shape == (1, 220500)
    assert clips.dtype == np.float32
    assert 0.02 < np.sqrt((clips**2).mean()) < 0.08
    assert "900000_0" in name
    again, _ = render_clips(1, AudioFormat(22050))
    np.testing.assert_array_equal(clips, again)
