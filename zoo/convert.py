"""Published PyTorch networks as .keras files, each with a card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import rfkeras
from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.interop.torch import (
    CHECKPOINT_SUFFIXES,
    load_torch_checkpoint,
    read_state,
    told_options,
)
from rfkeras.rf.rho import BLOCKS_PER_STAGE, POOLED_BLOCKS, STAGES
from rfkeras.utils.files import open_npz, replacing, write_text


@dataclass(frozen=True)
class Conversion:
    """What was converted, and how it is known.

    Attributes:
        model: Name in the zoo.
        source: File of the weights.
        sha256: Of that file.
        options: Options of the model, with num_classes and task.
        told_by: Who said each option: the weights, model_config.json, a flag, the default.
        labels: Names of the tags; empty where nobody said them.
        largest_difference: Of a logit from those of the reference vectors; None where
            there were none to compare with.
        largest_logit: Of the reference vectors.
        notes: What the user should know.
    """

    model: str
    source: str
    sha256: str
    options: dict[str, Any]
    told_by: dict[str, str]
    labels: tuple[str, ...] = ()
    largest_difference: float | None = None
    largest_logit: float | None = None
    notes: list[str] = field(default_factory=list)


def card(made: Conversion) -> str:
    """The card, in Markdown."""
    rows = [
        f"| {key} | {made.options[key]} | {made.told_by[key]} |" for key in sorted(made.options)
    ]
    compared = (
        "The outputs were compared with nothing: no reference vectors were given."
        if made.largest_difference is None
        else "Logits differ from the reference vectors by at most "
        f"{made.largest_difference:.2g}; the largest is {made.largest_logit:.3g}."
    )
    labels = ", ".join(made.labels) or "without names"
    return "\n".join(
        [
            f"# {made.model}, converted from PyTorch",
            "",
            f"Weights: `{Path(made.source).name}`, SHA-256 `{made.sha256}`.",
            "",
            "| option | value | told by |",
            "|---|---|---|",
            *rows,
            "",
            f"Tags: {labels}.",
            "",
            compared,
            "",
            *(f"- {note}" for note in made.notes),
            "",
        ]
    )


CONFIG, STATE = "model_config.json", "model_state_dict"

# Module of the published code: what is left of its kernels at their ends.
ARCHITECTURES: dict[str, float | None] = {
    "cp_resnet": None,
    "cp_faresnet": None,
    "cp_resnet_decomp": None,
    "cp_resnet_prune": None,
    "cp_resnet_freq_damp": 0.01,
    "cp_resnet_df_prune": 0.1,
}
# Keys whose value must be this one, or missing: no option expresses another.
FIXED: dict[str, tuple[Any, ...]] = {
    "block_type": ("basic",),
    "pooling_padding": (0, None),
    "use_raw_spectograms": (False, None),
    "attention_avg": (False, None),
    "stop_before_global_avg_pooling": (False, None),
    "grow_a_lot": (False, None),
    "use_bn": (True, None),
}
# Keys that change nothing that is computed up to the logits.
WITHOUT_EFFECT = (
    "apply_softmax",
    "depth",  # with n_blocks_per_stage; without, it counts the blocks
    "prediction_threshold",
    "return_embed",
    "use_check_point",
    "weight_init",
)
_STAGES = tuple(f"stage{stage}" for stage in range(1, STAGES + 1))
_LAYERS_PER_BLOCK_EACH = 6  # that one block in each stage adds to the depth


@dataclass(frozen=True)
class PublishedFolder:
    """A published network.

    Attributes:
        state: File of its weights.
        options: What its configuration says, as options of `resnet_rf` and the task.
        unknown: Keys of the configuration whose meaning is not known.
    """

    state: Path
    options: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def open_folder(folder: str | Path) -> PublishedFolder:
    """Read the configuration of a published network.

    Raises:
        CheckpointError: A file is missing or cannot be read, or a key has a value that no
            option of `resnet_rf` expresses; the message names the key.
    """
    folder = Path(folder)
    states = [folder / f"{STATE}{suffix}" for suffix in CHECKPOINT_SUFFIXES]
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        names = ", ".join(path.name for path in states)
        raise CheckpointError(
            f"{folder} holds no weights: one of {names} is needed. Give the file itself if "
            "it has another name."
        )
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} holds no {CONFIG}. Give the file {state.name} instead of its folder: "
            "then flags say what the weights do not."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{path} holds a {type(config).__name__}, not a table of keys.")
    return read_config(config, state)


def read_config(config: Mapping[str, Any], state: Path) -> PublishedFolder:
    """The options that a `model_config.json` says; see `open_folder`."""
    _check_expressible(config)
    options: dict[str, Any] = {}
    used = {"arch", "n_channels", *FIXED, *WITHOUT_EFFECT, *_STAGES}
    if "arch" in config:
        arch = config["arch"]
        options["damping"] = ARCHITECTURES[arch]
        if arch == "cp_faresnet":
            options["frequency_aware"] = True
        if arch == "cp_resnet_decomp":
            options["decomposition"] = config.get("decomp_factor") or 4
    used.add("decomp_factor")
    for key, option in (("base_channels", "width"), ("n_classes", "num_classes")):
        if key in config:
            options[option] = config[key]
            used.add(key)
    if "input_shape" in config:  # (batch, channels, frequency, time)
        options["input_channels"] = config["input_shape"][1]
        used.add("input_shape")
    blocks = _blocks(config)
    if blocks is not None:
        options["blocks"] = blocks
    used.add("n_blocks_per_stage")
    if "multi_label" in config:
        options["task"] = "multi_label" if config["multi_label"] else "single_label"
        used.add("multi_label")
    return PublishedFolder(state, options, tuple(sorted(set(config) - used)))


def _blocks(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    if config.get("n_blocks_per_stage") is not None:
        return tuple(config["n_blocks_per_stage"])
    if "depth" in config:
        return ((config["depth"] - 2) // _LAYERS_PER_BLOCK_EACH,) * STAGES
    return None


def _check_expressible(config: Mapping[str, Any]) -> None:
    arch = config.get("arch", "cp_resnet")
    if arch not in ARCHITECTURES:
        raise CheckpointError(
            f"{CONFIG}, key 'arch': {unknown_name('architecture', str(arch), ARCHITECTURES)} "
            "Others compute something else (cp_resnet_decomp_freq_damp damps the blocks and "
            "not the stem)."
        )
    for key, allowed in FIXED.items():
        if key in config and config[key] not in allowed:
            raise _inexpressible(key, config[key], f"must be {allowed[0]!r}")
    blocks = _blocks(config) or (BLOCKS_PER_STAGE,) * STAGES
    for stage, count in zip(_STAGES, blocks, strict=True):
        pooled = list(POOLED_BLOCKS) if stage == _STAGES[0] else []
        pools = config.get(stage, {}).get("maxpool", pooled)
        taken, wanted = ([p for p in places if p <= count] for places in (pools, pooled))
        if count and taken != wanted:
            raise _inexpressible(f"{stage}.maxpool", pools, f"must be {pooled}")
    channels, width = config.get("n_channels"), config.get("base_channels")
    if channels is not None and width is not None:
        wanted = [width * 2**place for place in range(STAGES)]
        kept = [place for place, count in enumerate(blocks) if count]
        if any(channels[place] != wanted[place] for place in kept):
            raise _inexpressible("n_channels", channels, f"must be {wanted}")


def _inexpressible(key: str, value: Any, rule: str) -> CheckpointError:
    return CheckpointError(
        f"{CONFIG}, key {key!r}: a network with this value cannot be expressed; it {rule}. "
        f"Received: {value!r}."
    )


WEIGHTS = "the weights"
FLAG, DEFAULT = "a flag", "default"
_MASK = ".prune_mask"
_AGREEMENT = 1e-4  # of the largest logit: what float32 leaves between two frameworks
_SIGNS = {"frontend", "damping", "damp_time", "task", "label_names"}  # leave none in weights


def convert(
    source: str | Path,
    output: str | Path,
    *,
    model: str = "resnet_rf",
    labels: Sequence[str] | None = None,
    reference: str | Path | None = None,
    **given: Any,
) -> Conversion:
    """Write a published PyTorch network as a .keras file, with `.json` and `.md` beside it.

    Args:
        source: `.pth`, `.pt` or `.npz` with a state dict, or a folder with
            `model_config.json` and `model_state_dict.pth`.
        output: The .keras file.
        model: A residual model of one branch in the zoo.
        labels: Names of the tags, in the order of the logits.
        reference: An .npz of `input_nchw` (batch, channels, frequency, time) and the
            original's `logits` for it (batch, classes), to compare with.
        **given: Options of the model. What the weights tell may be left out; "damping",
            "frontend" and "task" leave no trace in them.

    Raises:
        ConfigError: An option contradicts the checkpoint, or does not exist.
        CheckpointError: The checkpoint cannot be read or expressed, or the logits differ
            from the reference's.
    """
    import zoo
    from zoo.pretrained import sha256_of

    source, output = Path(source), Path(output)
    if output.suffix != ".keras":
        raise ConfigError(f"The output must end in .keras. Received: {output}.")
    folder = open_folder(source) if source.is_dir() else PublishedFolder(source)
    state, notes = _unpruned(read_state(folder.state))
    said = {
        CONFIG: folder.options,
        WEIGHTS: told_options(state),
        FLAG: {key: value for key, value in given.items() if value is not None},
        f"{DEFAULT} of {model}": _defaults(model),
    }
    options, told_by = merge(said)
    if labels is not None:
        options["label_names"], told_by["label_names"] = tuple(labels), FLAG
    network = zoo.create_model(model, **options)
    load_torch_checkpoint(network, state)
    if folder.unknown:
        notes.append(f"Keys of {CONFIG} that are not known: {', '.join(folder.unknown)}.")
    difference, largest = (None, None) if reference is None else compare(network, reference)
    made = Conversion(
        model=model,
        source=str(folder.state),
        sha256=sha256_of(folder.state),
        options={key: value for key, value in options.items() if key != "label_names"},
        told_by=told_by,
        labels=tuple(labels or ()),
        largest_difference=difference,
        largest_logit=largest,
        notes=notes + _open_questions(options, told_by),
    )
    with replacing(output, suffix=".keras") as aside:  # the only ending that Keras writes
        network.save(aside)
    facts = asdict(made) | {"written_by": f"rfkeras {rfkeras.__version__}"}
    write_text(output.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    write_text(output.with_suffix(".md"), card(made))
    return made


def merge(said: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """One value for each option, the first that is said, and who said it.

    Raises:
        ConfigError: Two say different things (the last, the defaults, may differ).
    """
    values: dict[str, Any] = {}
    told_by: dict[str, str] = {}
    *_, defaults = said
    for who, options in said.items():
        for key, value in options.items():
            plain = _plain(key, value)
            if key not in values:
                values[key], told_by[key] = plain, who
            elif who != defaults and plain != _plain(key, values[key]):
                flag = "--" + key.replace("_", "-")
                way_out = (
                    f"Leave {flag} out, or give it that value."
                    if who == FLAG
                    else "These files do not belong together."
                )
                raise ConfigError(
                    f"{key} is {values[key]!r} by {told_by[key]}, and {plain!r} by {who}. "
                    f"{way_out}"
                )
    return values, told_by


def _plain(key: str, value: Any) -> Any:
    """Values that mean the same, written alike."""
    if key == "rho" and isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, list) else value


def _defaults(model: str) -> dict[str, Any]:
    import zoo

    options = zoo.model_info(model).options
    defaults = {key: options[key] for key in _SIGNS & set(options)}
    # Its standardisation was fitted on data that is not here: spectrograms go in.
    return defaults | {"frontend": None, "task": "multi_label"}


def _unpruned(state: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Weights with their masks applied, without the masks."""
    masks = {name: mask for name, mask in state.items() if name.endswith(_MASK)}
    if not masks:
        return state, []
    weights = {name: value for name, value in state.items() if name not in masks}
    zeros = 0
    for name, mask in masks.items():
        key = name.removesuffix(_MASK) + ".weight"
        if key not in weights:
            raise CheckpointError(f"The checkpoint has {name} but no {key}.")
        weights[key] = weights[key] * (mask != 0)
        zeros += int((mask == 0).sum())
    return weights, [f"The masks of pruning were applied: {zeros:,} weights are zero."]


def compare(network: Any, reference: str | Path) -> tuple[float, float]:
    """(largest difference of a logit from the reference vectors, their largest logit).

    Raises:
        CheckpointError: They cannot be read, or differ by more than float32 explains.
    """
    try:
        with open_npz(reference) as arrays:
            inputs, wanted = arrays["input_nchw"], arrays["logits"]
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The reference {reference} must be an .npz with arrays 'input_nchw' and "
            f"'logits': {error}"
        ) from error
    if inputs.ndim != 4 or len(network.inputs[0].shape) != 4:
        raise CheckpointError(
            f"{reference}: 'input_nchw' has shape {inputs.shape}. Reference vectors are "
            "spectrograms (batch, channels, frequency, time): compare without --frontend."
        )
    # (batch, channel, frequency, time) -> (batch, time, frequency, channel)
    logits = np.asarray(network(inputs.transpose(0, 3, 2, 1), training=False))
    if logits.shape != wanted.shape:
        raise CheckpointError(
            f"{reference}: 'logits' has shape {wanted.shape}, the model's are {logits.shape}."
        )
    difference, largest = (float(np.abs(x).max()) for x in (logits - wanted, wanted))
    if not difference <= _AGREEMENT * largest:
        raise CheckpointError(
            f"The converted network's logits differ from those of {reference} by "
            f"{difference:.2g}, where the largest is {largest:.2g}: {_AGREEMENT:g} of it is "
            "allowed. Damping leaves no trace in the weights: was the network trained with "
            "another --damping?"
        )
    return difference, largest


def _open_questions(options: Mapping[str, Any], told_by: Mapping[str, str]) -> list[str]:
    """What nobody said, and what was taken for it."""
    notes = []
    if told_by["damping"].startswith(DEFAULT):
        notes.append(
            f"Damping leaves no trace in the weights: {options['damping']} was taken. Say "
            "--damping if the network was trained with it."
        )
    if options["frontend"] is None:
        notes.append(
            "The model takes spectrograms (batch, time, frequency, channel), standardised as "
            "the network's were in training. --frontend puts a front-end in front."
        )
    else:
        notes.append(
            "The front-end's mean and deviation are not in the checkpoint: fit them by "
            "model.get_layer('frontend').adapt(batches of waveforms), or its scores mean "
            "nothing."
        )
    if told_by["task"].startswith(DEFAULT):
        notes.append("The task was taken as multi_label. Say --task single_label otherwise.")
    if "label_names" not in options:
        notes.append("The tags have no names. Say them by --labels.")
    return notes
