"""Compare training and inference with PyTorch and with the speed of matrix products."""

from __future__ import annotations

from benchmarks.suite import Bar, Row, Section, Settings
from benchmarks.turns import Side, Times, take_turns
from rfkeras.rf.rho import POOL_SIZE, STEM_KERNEL, STEM_PADDING, STEM_STRIDE, plan_backbone

FRAMES, N_MELS = 431, 256  # 10 s by the default front-end
TRAINING_BATCH = 10  # as in the published recipe
INFERENCE_BATCHES = (1, 10)
FRONTEND = "perceptual_mel_22k"
GEMM = {"GEMM TensorFlow": "keras_sides", "GEMM PyTorch": "torch_resnet"}
OURS, EAGER, LAST = "rfkeras", "PyTorch", "PyTorch channels_last"
# Targets: speed relative to PyTorch by width, and shares of the GEMM rate at width 128.
TRAINING_BARS, INFERENCE_BARS = {32: 1.5, 128: 1.3}, {32: 2.0, 128: 1.4}
TRAINING_SHARE, INFERENCE_SHARE = 0.70, 0.85

TEXT = f"""
`resnet_rf` on clips of 10 s ({FRAMES} frames by {N_MELS} mel bands), 20 tags, float32 except
for one row. Training is a step as `fit` runs it: forward, backward and Adam, with batches of
{TRAINING_BATCH}. Inference is the exported SavedModel, loaded with plain TensorFlow. PyTorch
runs the same network (`benchmarks/torch_resnet.py`; a test checks that its logits match ours)
in eager mode, in its default memory layout, like the published code, and in channels_last.
"Share of GEMM" is the number of floating-point operations per second in the convolutions
(counted from the architecture), divided by the rate of the fastest product of two square
matrices of size 2,048 (TensorFlow's or PyTorch's) in the same turns. Targets refer to
PyTorch's default layout.
"""


def measure(settings: Settings) -> Section:
    """Measure widths 32 and 128 at rho 5 and 7."""
    widths, rhos = ((4,), (1,)) if settings.short else ((32, 128), (5, 7))
    rows: list[Row] = []
    bars: list[Bar] = []
    for width in widths:
        for rho in rhos:
            training = _training(settings, rho, width)
            inference = [_inference(settings, rho, width, n) for n in _batches(settings)]
            for what, batch, times in (
                ("training", _train_batch(settings), training),
                *inference,
            ):
                rows += _rows(settings, what, rho, width, batch, times)
            bars += _bars(settings, rho, width, training, inference)
    return Section("Network", TEXT.strip(), rows, bars)


def _frames(settings: Settings) -> int:
    return 43 if settings.short else FRAMES


def _train_batch(settings: Settings) -> int:
    return 2 if settings.short else TRAINING_BATCH


def _batches(settings: Settings) -> tuple[int, ...]:
    return (2,) if settings.short else INFERENCE_BATCHES


def _gemms(settings: Settings) -> dict[str, Side]:
    size = 64 if settings.short else 2048
    return {
        name: Side(f"benchmarks.{module}:gemm", {"size": size}) for name, module in GEMM.items()
    }


def _torch(what: str, arguments: dict[str, object]) -> dict[str, Side]:
    target = f"benchmarks.torch_resnet:{what}"
    return {
        name: Side(target, {**arguments, "channels_last": name == LAST})
        for name in (EAGER, LAST)
    }


def _training(settings: Settings, rho: int, width: int) -> dict[str, Times]:
    shape = [_train_batch(settings), _frames(settings), N_MELS]
    arguments: dict[str, object] = {"rho": rho, "width": width, "shape": shape}
    ours = "benchmarks.keras_sides:training"
    sides = {OURS: Side(ours, arguments)}
    if not settings.short:
        sides |= {
            f"{OURS} from waveforms": Side(ours, {**arguments, "frontend": FRONTEND}),
            f"{OURS} bfloat16": Side(ours, {**arguments, "precision": "mixed_bfloat16"}),
        }
    sides |= {**_torch("training", arguments), **_gemms(settings)}
    return take_turns(sides, threads=settings.threads, rounds=settings.rounds, calls=1)


def _inference(
    settings: Settings, rho: int, width: int, batch: int
) -> tuple[str, int, dict[str, Times]]:
    shape = [batch, _frames(settings), N_MELS]
    arguments: dict[str, object] = {"rho": rho, "width": width, "shape": shape}
    ours = "benchmarks.keras_sides:inference"
    sides = {OURS: Side(ours, arguments)}
    if not settings.short:
        sides[f"{OURS} from waveforms"] = Side(ours, {**arguments, "frontend": FRONTEND})
    sides |= {**_torch("inference", arguments), **_gemms(settings)}
    times = take_turns(sides, threads=settings.threads, rounds=settings.rounds, calls=3)
    return "inference", batch, times


def _gemm_rate(settings: Settings, times: dict[str, Times]) -> float:
    """Return the floating-point operations per second of the fastest matrix product."""
    size = 64 if settings.short else 2048
    return max(2.0 * size**3 / times[name].median for name in GEMM if name in times) * 1e3


def _share(
    settings: Settings, what: str, rho: int, width: int, batch: int, ms: float, gemm: float
) -> float:
    """Return the share of the GEMM rate for a side that takes `ms` per batch."""
    counted = training_flops if what == "training" else conv_flops
    flops = counted(rho, width, _frames(settings), N_MELS) * batch
    return flops / (ms / 1e3) / gemm


def _rows(
    settings: Settings, what: str, rho: int, width: int, batch: int, times: dict[str, Times]
) -> list[Row]:
    rows = []
    gemm = _gemm_rate(settings, times)
    for name, measured in times.items():
        if name in GEMM:
            continue
        share = _share(settings, what, rho, width, batch, measured.median, gemm)
        calls = measured.milliseconds
        rows.append(
            {
                "what": what,
                "width": width,
                "rho": rho,
                "batch": batch,
                "by": name,
                "ms a clip": measured.median / batch,
                "from": min(calls) / batch,
                "to": max(calls) / batch,
                "times PyTorch": times[EAGER].median / measured.median
                if EAGER in times
                else None,
                "of GEMM": share,
                "peak MB": round(measured.peak_mb),
            }
        )
    return rows


def _bars(
    settings: Settings,
    rho: int,
    width: int,
    training: dict[str, Times],
    inference: list[tuple[str, int, dict[str, Times]]],
) -> list[Bar]:
    if settings.short:
        return []
    cases = [("training", TRAINING_BATCH, training), *inference]
    bars = []
    for what, batch, times in cases:
        case = f"{what}, width {width}, rho {rho}, batch {batch}"
        wanted = TRAINING_BARS if what == "training" else INFERENCE_BARS
        if EAGER in times:
            ratio = times[EAGER].median / times[OURS].median
            bars.append(Bar(f"{case}: times PyTorch", ratio, wanted[width]))
        if width == max(TRAINING_BARS):
            gemm = _gemm_rate(settings, times)
            share = _share(settings, what, rho, width, batch, times[OURS].median, gemm)
            wanted_share = TRAINING_SHARE if what == "training" else INFERENCE_SHARE
            bars.append(Bar(f"{case}: share of GEMM", share, wanted_share))
    return bars


def conv_flops(rho: int, width: int, frames: int, n_mels: int, classes: int = 20) -> float:
    """Count the floating-point operations of all convolutions in a forward pass of one clip.

    A multiplication and an addition count as two operations. Zero padding is not left out.

    Args:
        rho: Option of `resnet_rf`.
        width: Option of `resnet_rf`.
        frames: Length of the spectrogram.
        n_mels: Height of the spectrogram.
        classes: Number of tags.
    """
    height, length = _stem_size(frames, n_mels)
    total = _stem_flops(width, height, length)
    channels = width
    for block in plan_backbone(rho).blocks:
        wider = width * 2 ** (block.stage - 1)
        pixels = height * length
        taps1, taps2 = (time * frequency for time, frequency in block.kernels)
        total += 2.0 * pixels * wider * (taps1 * channels + taps2 * wider)
        if wider != channels:
            total += 2.0 * pixels * channels * wider
        channels = wider
        if block.pooled:
            height, length = height // POOL_SIZE, length // POOL_SIZE
    return total + 2.0 * height * length * channels * classes


def training_flops(rho: int, width: int, frames: int, n_mels: int) -> float:
    """Count the operations of a training step for one clip: forward, and twice that backward.

    The gradient of the stem's input is not needed and not counted.
    """
    stem = _stem_flops(width, *_stem_size(frames, n_mels))
    return 3.0 * conv_flops(rho, width, frames, n_mels) - stem


def _stem_size(frames: int, n_mels: int) -> tuple[int, int]:
    """Return (height, length) of the stem's output."""
    height, length = (
        (size + 2 * STEM_PADDING - STEM_KERNEL) // STEM_STRIDE + 1 for size in (n_mels, frames)
    )
    return height, length


def _stem_flops(width: int, height: int, length: int) -> float:
    return 2.0 * STEM_KERNEL**2 * width * height * length
