"""Devices that are not there: what the training loop asks of accelerate, as process 0 of any number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from medcare.planning.ledger import Ledger

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

Sharing = Literal["single", "ddp", "fsdp2"]


@contextmanager
def process_group(devices: int) -> Iterator[DeviceMesh | None]:
    """Be process 0 of that many, on torch's fake process group, whose messages carry nothing."""
    if devices == 1:
        yield None
        return
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group(backend="fake", rank=0, world_size=devices, store=FakeStore())
    try:
        yield init_device_mesh("cpu", (devices,))
    finally:
        dist.destroy_process_group()


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The decoder layers, which checkpointing recomputes and FSDP2 gathers one at a time."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if names & {base.__name__ for base in type(module).__mro__}]


class FakeAccelerator:
    """What `Loop` uses of an `Accelerator`.

    Args:
        mesh: all the devices; None if there is only one.
        sharing: how they share the work.
        ledger: told of the parts of the step.
    """

    process_index = 0
    is_main_process = True
    device = torch.device("cpu")

    def __init__(self, mesh: DeviceMesh | None, sharing: Sharing, ledger: Ledger) -> None:
        self.mesh = mesh
        self.num_processes = 1 if mesh is None else mesh.size()
        self.sharing = sharing
        self.ledger = ledger
        self.synchronised = True

    def prepare(self, model: PreTrainedModel, optimizer: Any) -> tuple[nn.Module, Any]:
        """Wrap the model as accelerate does for this way of sharing."""
        if self.sharing == "ddp":
            self._add_buckets(model)
        elif self.sharing == "fsdp2":
            assert self.mesh is not None
            shard(model, self.mesh)
            optimizer.param_groups[0]["params"] = [p for p in model.parameters() if p.requires_grad]
        self.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return model, optimizer

    @contextmanager
    def no_sync(self, model: Any) -> Iterator[None]:
        """A micro-batch that others follow: its gradients stay on the device."""
        self._synchronise(model, False)
        try:
            yield
        finally:
            self._synchronise(model, True)

    def backward(self, loss: Tensor) -> None:
        """The backward pass."""
        loss.backward()
        self.ledger.kind = "temporary"
        self.ledger.count([p.grad for p in self.trained if p.grad is not None], "gradients")
        self.ledger.part("update")

    def clip_grad_norm_(self, parameters: list[nn.Parameter], largest: float) -> Tensor:
        """As torch's."""
        return nn.utils.clip_grad_norm_(parameters, largest)

    def reduce(self, tensor: Tensor, _how: str) -> Tensor:
        """The sum over the devices; what it is does not matter here."""
        return tensor

    def _synchronise(self, model: Any, on: bool) -> None:
        self.synchronised = on
        if self.sharing == "fsdp2":
            model.set_requires_gradient_sync(on)

    def _add_buckets(self, model: nn.Module) -> None:
        """DDP's buckets hold every gradient from the start; each goes in there as soon as it is whole."""
        for parameter in model.parameters():
            if parameter.requires_grad:
                bucket = torch.empty_like(parameter)
                self.ledger.count([bucket], "gradients")
                parameter.register_post_accumulate_grad_hook(self._into(bucket))

    def _into(self, bucket: Tensor) -> Any:
        def move(parameter: Tensor) -> None:
            if self.synchronised:
                parameter.grad = bucket

        return move


def shard(model: PreTrainedModel, mesh: DeviceMesh) -> None:
    """Cut the model up as accelerate does for FSDP2: each layer, the embedding, the head, and the rest."""
    from torch.distributed.fsdp import fully_shard

    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    last = [head]
    if embedding.weight is head.weight:
        last = [embedding, head]
    else:
        fully_shard(embedding, mesh=mesh)
    fully_shard(last, mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh)
