"""Messages of errors."""

import pytest

from rfkeras.errors import (
    AudioError,
    ConfigError,
    did_you_mean,
    install_extra,
    located,
    one_file,
    reason_of,
    unknown_name,
)


def test_an_unknown_name_lists_the_allowed_ones_and_the_nearest():
    assert unknown_name("task", "multi-label", ["single_label", "multi_label"]) == (
        "Unknown task 'multi-label'. Did you mean 'multi_label'? "
        "Allowed: multi_label, single_label."
    )
    assert unknown_name("task", "x", ["ab"]) == "Unknown task 'x'. Allowed: ab."


@pytest.mark.parametrize("word", ["TAG", "Tag", "TGA"])
def test_case_does_not_matter_for_the_nearest_name(word):
    assert did_you_mean(word, ["train", "tag"]) == " Did you mean 'tag'?"
    assert did_you_mean("tag", ["TAGS", "Tag"]) == " Did you mean 'Tag'?"
    assert did_you_mean("ESC50", ["escape", "a:esc50"]) == " Did you mean 'a:esc50'?"
    assert (
        did_you_mean("--lr", ["--rho", "--learning-rate"]) == " Did you mean '--learning-rate'?"
    )


def test_a_name_unlike_all_others_gets_no_suggestion():
    assert did_you_mean("banjo", ["flute", "guitar"]) == ""


@pytest.mark.parametrize("name", ["rfkeras", "rfkeras-tag"])
def test_extras_are_those_of_the_installed_distribution(name, tmp_path, monkeypatch):
    folder = tmp_path / f"{name.replace('-', '_')}-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    assert install_extra("tags") == f"pip install '{name}[tags]'"
    folder.rename(tmp_path / "other")
    assert install_extra("tags") == "pip install 'rfkeras[tags]'"


def test_a_place_is_added_to_messages_that_lack_it():
    with pytest.raises(ConfigError, match=r"^runs/a: bad$"), located("runs/a"):
        raise ConfigError("bad")
    with pytest.raises(ConfigError, match=r"^bad runs/a$"), located("runs/a"):
        raise ConfigError("bad runs/a")


def test_an_audio_error_has_path_and_reason():
    error = AudioError("a.wav", "empty file")
    assert (str(error), error.path, error.reason) == (
        "a.wav: empty file",
        "a.wav",
        "empty file",
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AudioError("a.wav", "empty file"), "empty file"),
        (OSError(36, "File name too long", "a/b"), "unreadable: File name too long: 'a/b'"),
        (OSError("odd"), "unreadable: odd"),
        (MemoryError(), "not enough memory."),
        (ConfigError("two\nlines"), "two lines"),
        (TypeError("bad\nmore"), "TypeError: bad"),
        (KeyError(), "KeyError: "),
        (ValueError("x" * 999), "ValueError: " + "x" * 288 + "..."),
    ],
)
def test_any_exception_becomes_a_reason_of_one_line(error, reason):
    assert reason_of(error) == reason
    with pytest.raises(AudioError) as caught, one_file("a.wav"):
        raise error
    assert (caught.value.path, caught.value.reason) == ("a.wav", reason)
