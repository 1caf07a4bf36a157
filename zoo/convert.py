"""Convert published PyTorch networks to .keras files with a card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import rfkeras
from rfkeras.errors import CheckpointError, ConfigError, unknown_name
from rfkeras.interop.torch import (
    CHECKPOINT_SUFFIXES,
    apply_masks,
    compare,
    has_learned_gates,
    infer_options,
    load_torch_checkpoint,
    read_state,
)
from rfkeras.rf.rho import BLOCKS_PER_STAGE, POOLED_BLOCKS, STAGES
from rfkeras.utils.files import atomic_write, write_text

CONFIG, STATE = "model_config.json", "model_state_dict"

# Modules of the published code, and the weight at the edges of their kernels.
ARCHITECTURES: dict[str, float | None] = {
    "cp_resnet": None,
    "cp_faresnet": None,
    "cp_resnet_decomp": None,
    "cp_resnet_prune": None,
    "cp_resnet_freq_damp": 0.01,
    "cp_resnet_freqdamp_old_challenge": 0.1,
    "cp_resnet_df_prune": 0.1,
    "cp_resnet_dampfr_gate_prune": 0.1,
    "cp_resnet_decomp_freq_damp": 0.01,
}
WITHOUT_DAMPED_STEM = ("cp_resnet_dampfr_gate_prune", "cp_resnet_decomp_freq_damp")

# Keys that must be missing or have one of these values: no option supports others.
FIXED: dict[str, tuple[Any, ...]] = {
    "block_type": ("basic",),
    "pooling_padding": (0, None),
    "use_raw_spectograms": (False, None),
    "attention_avg": (False, None),
    "stop_before_global_avg_pooling": (False, None),
    "grow_a_lot": (False, None),
    "use_bn": (True, None),
}

# Keys that do not affect the logits.
WITHOUT_EFFECT = (
    "apply_softmax",
    "depth",  # used for the number of blocks if n_blocks_per_stage is missing
    "prediction_threshold",
    "return_embed",
    "use_check_point",
    "weight_init",
)
_STAGES = tuple(f"stage{stage}" for stage in range(1, STAGES + 1))
_DEPTH_PER_BLOCK = 6  # depth added by one more block in each stage
WEIGHTS = "the weights"
FLAG, DEFAULT = "a flag", "default"

# Options that the weights do not determine.
_NOT_IN_WEIGHTS = {"frontend", "damping", "damp_time", "damp_stem", "task", "label_names"}


@dataclass(frozen=True)
class Conversion:
    """The result of a conversion.

    Attributes:
        model: Name of the zoo model.
        source: File of the weights.
        sha256: Hash of that file.
        options: Options of the model, with num_classes and task.
        told_by: Source of each option: the weights, model_config.json, a flag or the default.
            The name is also the key in the JSON file.
        labels: Names of the tags; empty if none were given.
        largest_difference: Largest difference between a logit and the reference; None without
            reference.
        largest_logit: Largest logit of the reference.
        notes: Remarks for the user.
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


def convert(
    source: str | Path,
    output: str | Path,
    *,
    model: str = "resnet_rf",
    labels: Sequence[str] | None = None,
    reference: str | Path | None = None,
    **given: Any,
) -> Conversion:
    """Convert a published PyTorch network to a .keras file with .json and .md cards.

    Args:
        source: `.pth`, `.pt` or `.npz` with a state dict, or a folder with `model_config.json`
            and `model_state_dict.pth`.
        output: The .keras file.
        model: A residual zoo model with one branch.
        labels: Names of the tags, in the order of the logits.
        reference: An .npz with `input_nchw` (batch, channels, frequency, time) and the original
            network's `logits` for it (batch, classes), for a comparison.
        **given: Options of the model. Options that the weights determine can be omitted;
            "damping", "frontend" and "task" are not stored in them.

    Raises:
        ConfigError: An option contradicts the checkpoint, or does not exist.
        CheckpointError: The checkpoint cannot be read or is not supported, or the logits differ
            from the reference.
    """
    import zoo
    from zoo.pretrained import sha256_of

    source, output = Path(source), Path(output)
    if output.suffix != ".keras":
        raise ConfigError(f"The output must end in .keras. Received: {output}.")
    folder = open_folder(source) if source.is_dir() else PublishedFolder(source)
    state = read_state(folder.state)
    gates = {"damp_stem": False} if has_learned_gates(state) else {}
    state, zeros = apply_masks(state)
    notes = [f"Pruning masks were applied: {zeros:,} weights are zero."] if zeros else []
    sources = {
        CONFIG: folder.options,
        WEIGHTS: infer_options(state) | gates,
        FLAG: {key: value for key, value in given.items() if value is not None},
        f"{DEFAULT} of {model}": _defaults(model),
    }
    options, told_by = merge(sources)
    if labels is not None:
        options["label_names"], told_by["label_names"] = tuple(labels), FLAG
    network = zoo.create_model(model, **options)
    load_torch_checkpoint(network, folder.state)
    if folder.unknown:
        notes.append(f"Unknown keys of {CONFIG}: {', '.join(folder.unknown)}.")
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
    with atomic_write(output, suffix=".keras") as aside:  # the only suffix that Keras writes
        network.save(aside)
    facts = asdict(made) | {"written_by": f"rfkeras {rfkeras.__version__}"}
    write_text(output.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    write_text(output.with_suffix(".md"), card(made))
    return made


def merge(sources: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Merge options from several sources, in order of priority.

    Args:
        sources: Options by source; the last source contains the defaults.

    Returns:
        (value of each option; source of each option).

    Raises:
        ConfigError: Two sources other than the defaults disagree.
    """
    values: dict[str, Any] = {}
    told_by: dict[str, str] = {}
    *_, defaults = sources
    for source, options in sources.items():
        for key, value in options.items():
            plain = _plain(key, value)
            if key not in values:
                values[key], told_by[key] = plain, source
            elif source != defaults and plain != _plain(key, values[key]):
                flag = "--" + key.replace("_", "-")
                way_out = (
                    f"Omit {flag}, or give it that value."
                    if source == FLAG
                    else "These files do not belong together."
                )
                raise ConfigError(
                    f"{key} is {values[key]!r} in {told_by[key]}, but {plain!r} in {source}. "
                    f"{way_out}"
                )
    return values, told_by


def _plain(key: str, value: Any) -> Any:
    """Normalise a value, so that equal values compare as equal."""
    if key == "rho" and isinstance(value, int):
        return value, value
    return tuple(value) if isinstance(value, list) else value


def _defaults(model: str) -> dict[str, Any]:
    """Return the defaults of options that the weights do not determine."""
    import zoo

    options = zoo.model_info(model).options
    defaults = {key: options[key] for key in _NOT_IN_WEIGHTS & set(options)}
    # Take spectrograms, because the statistics for a front-end are not in the checkpoint.
    return defaults | {"frontend": None, "task": "multi_label"}


def _open_questions(options: Mapping[str, Any], told_by: Mapping[str, str]) -> list[str]:
    """Return notes about options that no source determined, and the values used."""
    notes = []
    if told_by["damping"].startswith(DEFAULT):
        notes.append(
            f"Damping cannot be read from the weights; {options['damping']} is assumed. Set "
            "--damping if the network was trained with it."
        )
    if options["frontend"] is None:
        notes.append(
            "The model takes spectrograms (batch, time, frequency, channel), standardised as "
            "in training. Use --frontend to add a front-end."
        )
    else:
        notes.append(
            "The front-end's mean and standard deviation are not in the checkpoint. Fit them "
            "with model.get_layer('frontend').adapt(batches of waveforms); without that the "
            "scores are meaningless."
        )
    if told_by["task"].startswith(DEFAULT):
        notes.append(
            "The task is assumed to be multi_label. Otherwise set --task single_label."
        )
    if "label_names" not in options:
        notes.append("The tags have no names. Set them with --labels.")
    return notes


def card(made: Conversion) -> str:
    """Return the model card in Markdown."""
    rows = [
        f"| {key} | {made.options[key]} | {made.told_by[key]} |" for key in sorted(made.options)
    ]
    compared = (
        "The outputs were not compared, because no reference vectors were given."
        if made.largest_difference is None
        else "Logits differ from the reference vectors by at most "
        f"{made.largest_difference:.2g}; the largest logit is {made.largest_logit:.3g}."
    )
    labels = ", ".join(made.labels) or "without names"
    return "\n".join(
        [
            f"# {made.model}, converted from PyTorch",
            "",
            f"Weights: `{Path(made.source).name}`, SHA-256 `{made.sha256}`.",
            "",
            "| option | value | source |",
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


@dataclass(frozen=True)
class PublishedFolder:
    """A published network.

    Attributes:
        state: File of its weights.
        options: The options of `resnet_rf` and the task, from its configuration.
        unknown: Unknown keys of the configuration.
    """

    state: Path
    options: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def open_folder(folder: str | Path) -> PublishedFolder:
    """Read the configuration of a published network.

    Raises:
        CheckpointError: A file is missing or cannot be read, or a key has a value that no
            option of `resnet_rf` supports; the message contains the key.
    """
    folder = Path(folder)
    states = [folder / f"{STATE}{suffix}" for suffix in CHECKPOINT_SUFFIXES]
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        names = ", ".join(path.name for path in states)
        raise CheckpointError(
            f"{folder} contains no weights. Expected one of {names}. If the file has another "
            "name, give its path."
        )
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{folder} contains no {CONFIG}. Give the file {state.name} instead of its folder, "
            "and set with flags what the weights do not determine."
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{path} contains a {type(config).__name__}, not a JSON object.")
    return read_config(config, state)


def read_config(config: Mapping[str, Any], state: Path) -> PublishedFolder:
    """Return the options in a `model_config.json`; see `open_folder`."""
    _check_supported(config)
    options: dict[str, Any] = {}
    used = {"arch", "n_channels", *FIXED, *WITHOUT_EFFECT, *_STAGES}
    if "arch" in config:
        arch = config["arch"]
        options["damping"] = ARCHITECTURES[arch]
        if arch == "cp_faresnet":
            options["frequency_aware"] = True
        if options["damping"] is not None:
            options["damp_stem"] = arch not in WITHOUT_DAMPED_STEM
        if arch.startswith("cp_resnet_decomp"):
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
    """Return the number of blocks per stage, or None if the configuration does not set it."""
    if config.get("n_blocks_per_stage") is not None:
        return tuple(config["n_blocks_per_stage"])
    if "depth" in config:
        return ((config["depth"] - 2) // _DEPTH_PER_BLOCK,) * STAGES
    return None


def _check_supported(config: Mapping[str, Any]) -> None:
    """Check that options of `resnet_rf` support the configuration."""
    arch = config.get("arch", "cp_resnet")
    if arch not in ARCHITECTURES:
        raise CheckpointError(
            f"{CONFIG}, key 'arch': {unknown_name('architecture', str(arch), ARCHITECTURES)} "
            "Others compute something different."
        )
    for key, allowed in FIXED.items():
        if key in config and config[key] not in allowed:
            raise _unsupported(key, config[key], f"must be {allowed[0]!r}")
    blocks = _blocks(config) or (BLOCKS_PER_STAGE,) * STAGES
    for stage, count in zip(_STAGES, blocks, strict=True):
        pooled = list(POOLED_BLOCKS) if stage == _STAGES[0] else []
        pools = config.get(stage, {}).get("maxpool", pooled)
        taken, wanted = ([p for p in places if p <= count] for places in (pools, pooled))
        if count and taken != wanted:
            raise _unsupported(f"{stage}.maxpool", pools, f"must be {pooled}")
    channels, width = config.get("n_channels"), config.get("base_channels")
    if channels is not None and width is not None:
        wanted = [width * 2**place for place in range(STAGES)]
        kept = [place for place, count in enumerate(blocks) if count]
        if any(channels[place] != wanted[place] for place in kept):
            raise _unsupported("n_channels", channels, f"must be {wanted}")


def _unsupported(key: str, value: Any, rule: str) -> CheckpointError:
    """Return the error for an unsupported value."""
    return CheckpointError(
        f"{CONFIG}, key {key!r}: a network with this value is not supported; it {rule}. "
        f"Received: {value!r}."
    )
