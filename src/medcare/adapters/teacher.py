"""The teacher of distillation: the model as it was when stage 2 began, inside of the one that trains.

No second copy of the model is held. What stage 2 added is switched off, and of what trains on, the few
parameters of the knowledge branch, the values of then are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from medcare.adapters.branches import SPECS
from medcare.adapters.tuner import adapted_layers


class Teacher:
    """Keeps what a model with branches computes now, before any step of stage 2.

    Args:
        model: stage 2's, with its new branches.
        parameters: what trains, by name.
    """

    def __init__(self, model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
        self.model = model
        self.layers = adapted_layers(model)
        there = {name for layer in self.layers.values() for name in layer.branches}
        self.added = frozenset(name for name in there if SPECS[name].added_in == "align")
        new = {
            id(parameter)
            for layer in self.layers.values()
            for name in self.added & layer.branches.keys()
            for parameter in layer.branch(name).parameters()
        }
        kept = [parameter for parameter in parameters.values() if id(parameter) not in new]
        self.kept: list[tuple[nn.Parameter, Tensor]] = [
            (parameter, parameter.detach().clone()) for parameter in kept
        ]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within the block, the model computes what it did then, without dropout."""
        training = self.model.training
        now = [(parameter, parameter.data) for parameter, _ in self.kept]
        disabled = {name: layer.disabled for name, layer in self.layers.items()}
        self.model.eval()
        for parameter, value in self.kept:
            parameter.data = value
        for layer in self.layers.values():
            layer.disabled |= self.added
        try:
            yield
        finally:
            for parameter, value in now:
                parameter.data = value
            for name, layer in self.layers.items():
                layer.disabled = disabled[name]
            self.model.train(training)
