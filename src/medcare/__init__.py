"""Fine-tune a causal language model for medicine: aggregate knowledge, then align form (arXiv 2406.17484).

For research. Not a medical device, not for clinical decisions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medcare.foundation.library_messages import leave_out_unasked
from medcare.foundation.processors import settle_threads

if TYPE_CHECKING:
    from medcare.adapters.loading import load_model
    from medcare.api import attach, chat, check, evaluate, generate, merge, run, save_stage, train
    from medcare.data.in_memory import load_config
    from medcare.settings.config import AdapterConfig, RunConfig
    from medcare.training.callback import KeepOrthogonal

__all__ = [
    "AdapterConfig",
    "KeepOrthogonal",
    "RunConfig",
    "attach",
    "chat",
    "check",
    "evaluate",
    "generate",
    "load_config",
    "load_model",
    "merge",
    "run",
    "save_stage",
    "train",
]

_HOME = {
    "AdapterConfig": "settings.config",
    "KeepOrthogonal": "training.callback",
    "RunConfig": "settings.config",
    "load_config": "data.in_memory",
    "load_model": "adapters.loading",
}


leave_out_unasked()
settle_threads()  # before torch is loaded, which reads these settings once


def __dir__() -> list[str]:
    """The public names, which are imported on first use."""
    return list(__all__)


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers --help without loading torch."""
    if name in __all__:
        return getattr(import_module(f"medcare.{_HOME.get(name, 'api')}"), name)
    raise AttributeError(f"module 'medcare' has no attribute '{name}'")
