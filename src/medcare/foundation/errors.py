"""Every error a user can meet: one class a cause.

Each message says what was required, what was got, and what to do next. The command line prints the
message alone and exits with the class's `exit_code`; a traceback means a fault of this package.
"""

import re

_LONG = re.compile(r"\S{600,}")  # longer than paths are, or any name that someone gave


class MedCareError(Exception):
    """Base of every error caused by input rather than by this package.

    A name out of a file may have any length: of a word that is none the beginning is told.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(_LONG.sub(lambda word: f"{word[0][:200]}…", message))


class ConfigError(MedCareError):
    """A configuration key or value that is unknown, of the wrong type or out of range."""

    exit_code = 2


class DataError(MedCareError):
    """A data file that is missing, malformed or empty."""

    exit_code = 3


class ModelError(MedCareError):
    """A base model that is missing, is not a causal language model, or lacks a chat template."""

    exit_code = 4


class AdapterError(MedCareError):
    """Branches that do not fit: no module matches, other shapes, another base, not mergeable."""

    exit_code = 5


class FolderError(MedCareError):
    """An output folder that holds something else, or an input folder that is not complete."""

    exit_code = 6


class StorageError(MedCareError):
    """Writing failed, for example because the disk is full; what was there before is untouched."""

    exit_code = 7


class TrainingError(MedCareError):
    """Training that can't go on, because loss or gradient are no finite numbers any more."""

    exit_code = 10


class PlanError(MedCareError):
    """A model whose step can't be simulated, so that nothing is known of its memory and time."""

    exit_code = 11


class EvaluationError(MedCareError):
    """Tasks, predictions or gold answers that cannot be scored together."""

    exit_code = 8


def first_line(error: BaseException) -> str:
    """What another library's error says, as the inside of a sentence; its class if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
