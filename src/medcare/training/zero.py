"""DeepSpeed's ZeRO-3 behind what the loop asks of accelerate.

accelerate steps DeepSpeed's optimizer inside of `backward`; the loop has micro-batches, a penalty with a
backward pass of its own, and a state that is written whole. So the engine is driven here, in turns that give
the same gradients as one process (tests/training/test_distributed.py runs them where deepspeed is installed).
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from medcare.adapters.shards import zero_piece

if TYPE_CHECKING:
    from accelerate import Accelerator


class ZeroDevices:
    """An `Accelerator` whose model is sharded by DeepSpeed; everything else is accelerate's.

    Args:
        accelerator: made under a launcher that asks for DeepSpeed.
        clip: largest gradient norm, which DeepSpeed enforces in its step.
    """

    def __init__(self, accelerator: Accelerator, clip: float) -> None:
        self._accelerator = accelerator
        self._clip = clip

    def __getattr__(self, name: str) -> Any:
        """Processes, devices and messages."""
        return getattr(self._accelerator, name)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, ZeroOptimizer]:
        """Shard the model and its optimizer."""
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        settings = self._accelerator.state.deepspeed_plugin.deepspeed_config
        settings.update(
            train_micro_batch_size_per_gpu=1,  # the loss is scaled by the loop
            gradient_accumulation_steps=1,
            gradient_clipping=self._clip,
            zero_allow_untested_optimizer=True,
            zero_force_ds_cpu_optimizer=False,
        )
        wrapped, _ = self._accelerator.prepare(model, optimizer)
        # Or transformers would load the next model, too, cut into shards.
        unset_hf_deepspeed_config()
        self._engine = self._accelerator.deepspeed_engine_wrapped.engine
        self._optimizer = ZeroOptimizer(self._engine)
        return wrapped, self._optimizer

    def no_sync(self, model: nn.Module) -> AbstractContextManager[None]:
        """Each micro-batch's gradients go to their shards at once: nothing is put off."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the step."""
        self._engine.set_gradient_accumulation_boundary(False)
        # DeepSpeed adds to gradients only after another forward pass, and overwrites them otherwise; the
        # penalty has none. This is how its engine tells a forward pass.
        self._engine.optimizer.clear_backward_seen_flag()
        self._engine.backward(loss)

    def clip_grad_norm_(self, parameters: list[nn.Parameter], largest: float) -> Tensor:
        """The norm, which is known, and cut, only in the step that follows."""
        return self._optimizer.norm


class ZeroOptimizer:
    """DeepSpeed's step as an optimizer.

    Attributes:
        norm: of the gradients before clipping, set by `step`.
        state: AdamW's state of a parameter, whole.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.norm = torch.zeros(())
        self.state = ZeroStates(engine.optimizer)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Where the learning rate stands."""
        groups: list[dict[str, Any]] = self._engine.optimizer.param_groups
        return groups

    def step(self) -> None:
        """Clip, update and clear the gradients."""
        self._engine.set_gradient_accumulation_boundary(True)
        self._engine.step()
        self.norm.fill_(float(self._engine.get_global_grad_norm()))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """`step` has done it."""


class ZeroStates:
    """Reads and writes the moments of a parameter, of which each process holds a shard."""

    def __init__(self, optimizer: Any) -> None:
        self._flat: list[Tensor] = optimizer.fp32_partitioned_groups_flat
        self._states: dict[Tensor, dict[str, Tensor]] = optimizer.optimizer.state

    def __getitem__(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """The state, whole; every process must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state

        moments = {key: safe_get_full_optimizer_state(parameter, key) for key in ("exp_avg", "exp_avg_sq")}
        return {"step": self._states[self._flat[0]]["step"], **moments}

    def __setitem__(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> None:
        """Put a whole state in; every process keeps its shard."""
        from deepspeed.utils import safe_set_local_optimizer_state

        for flat in self._flat:
            if flat not in self._states:
                self._states[flat] = {key: torch.zeros_like(flat) for key in ("exp_avg", "exp_avg_sq")}
            self._states[flat]["step"] = state["step"].clone()
        for key in ("exp_avg", "exp_avg_sq"):
            safe_set_local_optimizer_state(parameter, zero_piece(state[key], parameter), key)
