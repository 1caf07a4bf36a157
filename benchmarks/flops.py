"""Multiplications and additions that the network needs, counted from its plan."""

from __future__ import annotations

from rfkeras.rf.rho import POOL_SIZE, STEM_KERNEL, STEM_PADDING, STEM_STRIDE, plan_trunk


def conv_flops(rho: int, width: int, frames: int, n_mels: int, classes: int = 20) -> float:
    """Floating-point operations of all convolutions for one clip, forward.

    A multiplication and an addition are two. Zero padding counts as if multiplied.

    Args:
        rho: Of `resnet_rf`.
        width: Of `resnet_rf`.
        frames: Length of the spectrogram.
        n_mels: Its height.
        classes: Tags.
    """
    height, length = _stem_size(frames, n_mels)
    total = _stem_flops(width, height, length)
    channels = width
    for block in plan_trunk(rho).blocks:
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
    """The same for a training step of one clip: forward, and twice that backward.

    The gradient of the stem's input is not needed and not counted.
    """
    stem = _stem_flops(width, *_stem_size(frames, n_mels))
    return 3.0 * conv_flops(rho, width, frames, n_mels) - stem


def _stem_size(frames: int, n_mels: int) -> tuple[int, int]:
    """(height, length) of the stem's output."""
    height, length = (
        (size + 2 * STEM_PADDING - STEM_KERNEL) // STEM_STRIDE + 1 for size in (n_mels, frames)
    )
    return height, length


def _stem_flops(width: int, height: int, length: int) -> float:
    return 2.0 * STEM_KERNEL**2 * width * height * length
