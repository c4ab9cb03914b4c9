"""Training on two processes, to the second of which something happens once: killed, stopped, or hung."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import medcare.cli
from medcare.__main__ import main
from medcare.training import watchdog
from medcare.training.loop import Loop
from tests.training import two_processes

STEP = 3
ROOT = Path(__file__).parents[2]


def job(folder: Path, kind: str, *, restarts: int = 0, stall: float = 60) -> subprocess.CompletedProcess[str]:
    """A stage on two processes under torchrun.

    Args:
        folder: where checkpoint, metrics and `result.safetensors` go.
        kind: `killed`, `stopped`, `hung`, or `none`.
        restarts: how often torchrun begins again.
        stall: the setting `stall_seconds`.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += [f"--max-restarts={restarts}", __file__, str(folder), kind, str(stall)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    made = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        command, cwd=ROOT, env=made, capture_output=True, text=True, timeout=200, check=False
    )


def elastic_job(folder: Path, kind: str) -> None:
    """The job under torchrun's agent, which is this process, begins again once, and forks its processes."""
    where = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": "job"}
    elastic_launch(LaunchConfig(1, 1, 2, **where, max_restarts=1, start_method="fork"), call)(
        folder, kind, 60.0
    )


def harm(kind: str) -> None:
    """Let it happen to process 1 before a step, in the first life of the job."""
    step = Loop._step

    def harmed(self: Loop, number: int, *rest: object) -> float:
        first = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        if number == STEP and os.environ["RANK"] == "1" and first:
            if kind == "hung":
                time.sleep(600)
            elif kind != "none":
                os.kill(os.getpid(), signal.SIGSTOP if kind == "stopped" else signal.SIGKILL)
        return step(self, number, *rest)

    Loop._step = harmed


def call(folder: Path, kind: str, stall: float) -> None:
    """As a command of the command line that trains."""
    torch.set_num_threads(1)
    watchdog.BEAT, watchdog.LOST = 0.3, 15.0  # no busy machine holds a process up for so long
    medcare.cli.app = lambda: train(folder, kind, stall)
    main()


def train(folder: Path, kind: str, stall: float) -> None:
    """A stage of a few steps, to one of which it happens."""
    harm(kind)
    two_processes.STAGE = replace(two_processes.STAGE, checkpoint_seconds=0.0, stall_seconds=stall)
    two_processes.finish(two_processes.make("aggregate", folder, processes=2))


if __name__ == "__main__":
    call(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
