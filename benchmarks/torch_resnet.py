"""The paper's network in PyTorch, for comparison, with the names of the published weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from rfkeras.rf.rho import BlockPlan, plan_backbone


class Block(nn.Module):
    """Residual block: conv, BN, ReLU, conv, BN; added to the shortcut; ReLU."""

    def __init__(self, in_channels: int, channels: int, plan: BlockPlan, depth: int):
        super().__init__()
        # Kernels in the plan are (time, frequency); PyTorch's maps are (frequency, time).
        (time1, frequency1), (time2, frequency2) = plan.kernels
        self.conv1 = _conv(in_channels, channels, (frequency1, time1))
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv(channels, channels, (frequency2, time2))
        self.bn2 = nn.BatchNorm2d(channels)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out")
        with torch.no_grad():
            self.conv1.weight.mul_(depth**-0.5)
        nn.init.zeros_(self.conv2.weight)
        self.shortcut = nn.Sequential()
        if in_channels != channels:
            self.shortcut.add_module("conv", _conv(in_channels, channels, (1, 1)))
            self.shortcut.add_module("bn", nn.BatchNorm2d(channels))
            nn.init.kaiming_normal_(self.shortcut.conv.weight, mode="fan_out")

    def forward(self, x: Any) -> Any:
        """Map (batch, channels, frequency, time) to the same axes."""
        residual = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        return functional.relu_(self.bn2(self.conv2(residual)) + self.shortcut(x))


class TorchResNet(nn.Module):
    """CP-ResNet: (batch, 1, frequency, time) to logits (batch, classes)."""

    def __init__(self, rho: int, width: int, num_classes: int):
        super().__init__()
        stem = nn.Conv2d(1, width, 5, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_in")
        self.in_c = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.plan = plan_backbone(rho)
        channels = width
        for plan in self.plan.blocks:
            stage = f"stage{plan.stage}"
            if not hasattr(self, stage):
                self.add_module(stage, nn.Sequential())
            wider = width * 2 ** (plan.stage - 1)
            block = Block(channels, wider, plan, len(self.plan.blocks))
            getattr(self, stage).add_module(f"block{plan.block}", block)
            channels = wider
            if plan.pooled:
                getattr(self, stage).add_module(f"pool{plan.block}", nn.MaxPool2d(2, 2))
        classifier = nn.Conv2d(channels, num_classes, 1, bias=False)
        nn.init.zeros_(classifier.weight)
        self.feed_forward = nn.Sequential(classifier, nn.BatchNorm2d(num_classes))

    def forward(self, x: Any) -> Any:
        """Return the logits."""
        x = self.in_c(x)
        for stage in ("stage1", "stage2", "stage3"):
            x = getattr(self, stage)(x)
        return self.feed_forward(x).mean(dim=(2, 3))


def _conv(in_channels: int, channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(in_channels, channels, kernel, padding=padding, bias=False)


def _network(
    rho: int, width: int, shape: list[int], channels_last: bool, threads: int
) -> tuple[TorchResNet, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    batch, time, frequency = shape
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = TorchResNet(rho, width, 20).to(memory_format=layout)
    return network, torch.randn(batch, 1, frequency, time).to(memory_format=layout)


def training(
    rho: int, width: int, shape: list[int], channels_last: bool, threads: int
) -> Callable[[], float]:
    """Prepare a training step: forward, backward, Adam."""
    network, x = _network(rho, width, shape, channels_last, threads)
    labels = torch.rand(shape[0], 20).round()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    network.train()

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(network(x), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def inference(
    rho: int, width: int, shape: list[int], channels_last: bool, threads: int
) -> Callable[[], Any]:
    """Prepare inference: the logits of a batch."""
    network, x = _network(rho, width, shape, channels_last, threads)
    network.eval()

    def infer() -> Any:
        with torch.inference_mode():
            return network(x).numpy()

    return infer


def single_clip(
    folder: str,
    rho: int,
    width: int,
    channels_last: bool,
    threads: int,
    compiled: bool = False,
) -> Callable[[], Any]:
    """Prepare inference with the network and the clip of `benchmarks.single_clip_sides`."""
    from benchmarks.single_clip_sides import STATE, checked, read, sigmoid

    torch.set_num_threads(threads)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network: Any = TorchResNet(rho, width, 20)
    with np.load(Path(folder, STATE)) as state:
        tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    # The counters of batches are the only part that the file lacks.
    network.load_state_dict({**network.state_dict(), **tensors})
    network = network.eval().to(memory_format=layout)
    x = torch.from_numpy(read(folder).transpose(0, 3, 2, 1)).contiguous(memory_format=layout)
    if compiled:
        if shutil.which("g++") is None:
            raise ModuleNotFoundError("torch.compile needs the C++ compiler g++")
        from torch._inductor import config

        config.freezing = True  # weights are constants, in the layout of the kernels
        network = torch.compile(network)

    def infer() -> Any:
        with torch.inference_mode():
            return network(x).numpy()

    return checked(infer, folder, sigmoid)


def gemm(size: int, threads: int) -> Callable[[], Any]:
    """Prepare a product of two square matrices."""
    torch.set_num_threads(threads)
    a, b = torch.randn(size, size), torch.randn(size, size)
    return lambda: a @ b
