"""A message of a library's that nobody asked for: it is left out, and no other one is."""

from __future__ import annotations

import logging

_LOGGER = "bitsandbytes.backends.cpu.ops"
_MESSAGE = "Failed to load CPU gemm_4bit_forward"


def leave_out_unasked() -> None:
    """Leave out what bitsandbytes says on its import, that a kernel for 4 bits on processors is missing.

    transformers' Trainer and PEFT import it wherever it is installed, whether anything is quantised or not.
    """
    logger = logging.getLogger(_LOGGER)
    logger.removeFilter(_is_asked)
    logger.addFilter(_is_asked)


def _is_asked(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_MESSAGE)
