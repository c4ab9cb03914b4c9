from __future__ import annotations

import logging
import subprocess
import sys

from medcare.foundation import library_messages


def test_one_message_is_left_out_and_no_other(caplog, monkeypatch):
    logger = logging.getLogger(library_messages._LOGGER)
    # Whatever a library has done to it in this process before.
    monkeypatch.setattr(logger, "disabled", False)
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "propagate", False)
    caplog.set_level(logging.WARNING, logger=logger.name)
    library_messages.leave_out_unasked()
    library_messages.leave_out_unasked()
    assert logger.filters.count(library_messages._is_asked) == 1
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module 'kernels'")
    logger.warning("Another thing failed.")
    assert caplog.messages == ["Another thing failed."]


def test_what_imports_bitsandbytes_says_nothing():
    """transformers' Trainer does, by way of PEFT; on a processor with bfloat16 it would speak of a kernel."""
    program = "import medcare; medcare.KeepOrthogonal; from medcare.adapters.peft_files import peft; peft()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "gemm_4bit_forward" not in done.stdout + done.stderr
