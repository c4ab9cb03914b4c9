"""The command line's entry: every error that a user can cause ends as one sentence and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import warnings

from medcare.foundation.errors import MedCareError, TrainingError, first_line
from medcare.foundation.processes import has_lost_another, number

_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    # Set before any library reads them: this program prints its own progress.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # What libraries will rename one day is nothing that a user could act on.
    warnings.simplefilter("ignore", FutureWarning)
    from medcare.cli import app
    from medcare.foundation.progress import insist_on_interrupts

    insist_on_interrupts()
    try:
        app()
    except SystemExit as stop:
        if stop.code == _INTERRUPTED:  # typer's answer to Ctrl-C
            _fail("Stopped. The same command continues where this one stopped.", _INTERRUPTED)
        raise
    except MedCareError as error:
        _fail(f"error: {error}", error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        advice = "Free some space." if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Change the path."
        _fail(f"error: {error.strerror or error}: {error.filename or 'reading or writing'}. {advice}", 7)
    except (MemoryError, RuntimeError) as error:
        if has_lost_another(error):
            print(
                f"error: process {number()} lost the connection to another process of this job, which has "
                f"ended ({first_line(error)}). Look at what that one said; the same command continues from "
                "the last checkpoint.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(TrainingError.exit_code)  # a clean-up would wait for the one that is gone
        if not _is_out_of_memory(error):
            raise
        _fail("error: out of memory. Lower tokens_per_batch, or set gradient_checkpointing=true.", 9)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Python's own, torch's on a GPU, and torch's on a CPU, which is a plain RuntimeError."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error)


def _fail(text: str, code: int) -> None:
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
