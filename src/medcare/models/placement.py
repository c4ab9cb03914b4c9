"""Where a model goes that is too large for one device: both ways are transformers' own.

    spread   one process: whole layers on the GPUs one after another, then in main memory, then on the disk
    split    as many processes as devices: every weight matrix cut among them (tensor parallel)

Both are for answers; training has launchers instead (docs/scaling.md).
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch

from medcare.foundation import processes
from medcare.foundation.errors import ConfigError
from medcare.foundation.progress import say

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Placement = Literal["spread", "split"]


def placement_of(device: str) -> Placement | None:
    """The placement that a device's name stands for; None if it is a single device."""
    return next((placement for placement in get_args(Placement) if placement == device), None)


class Placed:
    """How one model is loaded with a placement.

    Args:
        placement: the placement; None for a single device.

    Raises:
        ConfigError: the placement needs a launcher, or can't have one.
    """

    def __init__(self, placement: Placement | None) -> None:
        self._placement = placement
        self._folder = ""
        count = processes.count()
        if placement == "spread" and count > 1:
            raise ConfigError(
                f"model.device=spread is for one process, which takes all GPUs; here are {count}. Start the "
                "command without a launcher, or set model.device=split."
            )
        if placement == "split" and count == 1:
            raise ConfigError(
                "model.device=split cuts a model among the processes of a launcher; this is the only one. "
                "Start it as: torchrun --nproc-per-node GPUS -m medcare ..., or set model.device=spread."
            )

    @property
    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` is called with."""
        if self._placement == "spread":
            # For weights that lie otherwise in the model than in its files, such as stacked experts.
            self._folder = tempfile.mkdtemp(prefix="medcare-offloaded-")
            self._removal = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            return {"device_map": "auto", "offload_folder": self._folder}
        if self._placement == "split":
            from transformers.distributed.configuration_utils import DistributedConfig

            processes.state()
            return {"distributed_config": DistributedConfig(tp_size=processes.count())}
        return {}

    def settle(self, name: str, model: PreTrainedModel) -> None:
        """Say where the model lies, and let what it keeps on the disk go when the model does."""
        if self._placement != "spread":
            return
        self._removal.detach()
        weakref.finalize(model, shutil.rmtree, self._folder, ignore_errors=True)
        places = {str(place) for place in getattr(model, "hf_device_map", {}).values()}
        slow = (
            {"disk": "on the disk"}
            if places <= {"cpu", "disk"}
            else {"cpu": "in main memory", "disk": "on the disk"}
        )
        if kept := [where for place, where in slow.items() if place in places]:
            say(
                f"{name} is too large for what computes here. What is left of it stays {' and '.join(kept)} "
                "and is fetched for every token, which is slow."
            )


def is_offloaded(model: PreTrainedModel) -> bool:
    """Whether some weights come to a device only while they are needed there."""
    return any(parameter.is_meta for parameter in model.parameters())


def input_device(model: Any) -> torch.device:
    """Where the inputs of a model belong: where its embedding is, or comes to."""
    device: torch.device = model.get_input_embeddings().weight.device
    if device.type != "meta" or not hasattr(model, "hf_device_map"):
        return device
    computing = [place for place in model.hf_device_map.values() if place not in ("cpu", "disk")]
    return torch.device(computing[0] if computing else "cpu")


def is_split(model: Any) -> bool:
    """Whether this process has only a part of each weight, so that each answer takes all processes."""
    return (getattr(model, "_tp_size", None) or 1) > 1
