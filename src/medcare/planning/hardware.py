"""GPUs by name, and what a step costs in time on them.

Peak rates are dense bfloat16 with float32 accumulation, links are one direction of NVLink or PCI Express,
both from the vendors' data sheets. How much of the peak a real step reaches, what the driver takes and how
much of the memory fragments is assumed: see `Assumptions`.
"""

from __future__ import annotations

from dataclasses import dataclass

from medcare.planning.fake_devices import Sharing

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        memory: GiB.
        tflops: dense bfloat16, 10^12 operations a second.
        link: GB a second to the other GPUs of its machine, one direction.
    """

    memory: float
    tflops: float
    link: float


GPUS = {
    "a10": Gpu(24, 125, 32),
    "l4": Gpu(24, 121, 32),
    "rtx3090": Gpu(24, 71, 32),
    "rtx4090": Gpu(24, 165, 32),
    "a6000": Gpu(48, 155, 56),
    "l40s": Gpu(48, 362, 32),
    "a100-40g": Gpu(40, 312, 300),
    "a100": Gpu(80, 312, 300),
    "h100-pcie": Gpu(80, 756, 64),
    "h100": Gpu(80, 989, 450),
    "h200": Gpu(141, 989, 450),
    "b200": Gpu(180, 2250, 900),
    "mi300x": Gpu(192, 1307, 448),
}


@dataclass(frozen=True)
class Assumptions:
    """What can't be computed from a model's shape.

    Attributes:
        utilisation: share of the peak rate that the step's operations reach.
        context: GiB that driver, kernels and libraries take on each GPU.
        communication: GiB of message buffers, with several GPUs.
        fragmentation: share of the bytes of a step that the allocator loses between its blocks.
        margin: share of a GPU's memory that a plan leaves free.
        network: GB a second between machines, one direction.
    """

    utilisation: float = 0.4
    context: float = 0.8
    communication: float = 0.6
    fragmentation: float = 0.04
    margin: float = 0.05
    network: float = 12.5

    def overhead(self, peak: int, static: int, devices: int) -> int:
        """Bytes on top of the tensors; what stays in place all the time does not fragment."""
        fixed = self.context + (self.communication if devices > 1 else 0.0)
        return round(fixed * GIB + self.fragmentation * (peak - static))


def message_bytes(
    sharing: Sharing, devices: int, weights: int, adapters: int, micro_batches: int
) -> tuple[int, int]:
    """Bytes that each device receives in a step, for gathering weights and for averaging gradients.

    Args:
        sharing: DDP averages the gradients once a step; FSDP2 gathers every weight twice a micro-batch,
            for the forward and for the backward pass, and averages once a step.
        devices: how many.
        weights: bytes of the frozen weights.
        adapters: bytes of the adapters, and of their gradients.
        micro_batches: of a step, on each device.
    """
    others = (devices - 1) / devices
    if sharing == "single":
        return 0, 0
    if sharing == "ddp":
        return 0, round(2 * others * adapters)
    return round(2 * micro_batches * others * (weights + adapters)), round(others * adapters)


def step_seconds(
    flops: float, gathered: int, averaged: int, gpu: Gpu, assumptions: Assumptions, machines: int
) -> float:
    """Seconds of a step: computing hides the gathering, or the reverse; averaging comes after."""
    computing = flops / (gpu.tflops * 1e12 * assumptions.utilisation)
    rate = 1e9 * (min(gpu.link, assumptions.network) if machines > 1 else gpu.link)
    return max(computing, gathered / rate) + averaged / rate
