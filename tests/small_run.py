"""Runs of seconds, the finished folders that come of them, and what can befall a run: kills, a full disk."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import traceback
from pathlib import Path

from tqdm import tqdm

from medcare import api
from medcare.export.conversion import convert
from medcare.export.lora import export_lora
from medcare.foundation.errors import MedCareError
from medcare.foundation.locks import _UNFINISHED
from medcare.pipeline import predict_file, run_pipeline
from medcare.settings.config import RunConfig
from medcare.settings.files import load_config
from tests.conftest import tiny_model
from tests.full_disk import FullDisk, filled
from tests.text.tokenizers_by_family import tokenizer_of

SETTINGS = (
    "model.device=cpu", "model.dtype=float32", "adapters.rank=2", "adapters.experts=2", "align.epochs=1",
    "evaluation.max_new_tokens=2", "align.log_every=1", "aggregate.log_every=1",
    "aggregate.tokens_per_batch=64", "align.tokens_per_batch=64",
)  # fmt: skip


def small_base(folder: Path) -> Path:
    """A model of two layers with random weights."""
    tokenizer = tokenizer_of("chatml")
    tiny_model("llama", vocab=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small_run(here: Path, base: Path, *more: str) -> RunConfig:
    """The settings of a run of seconds on a few rows, whose files lie in `here`."""
    talk = {"messages": [{"role": "user", "content": "Fever?"}, {"role": "assistant", "content": "R50"}]}
    (here / "talks.jsonl").write_text((json.dumps(talk) + "\n") * 6)
    question = {"question": "Which?", "opa": "A", "opb": "B", "opc": "C", "opd": "D", "cop": 0}
    rows = [json.dumps({**question, "id": f"q{number}"}) for number in range(3)]
    (here / "exam.jsonl").write_text("\n".join(rows) + "\n")
    named = [f"{stage}.data={here / 'talks.jsonl'}" for stage in ("aggregate", "align")]
    named += [f"evaluation.items={here / 'exam.jsonl'}", f"model.base={base}"]
    return load_config(settings=[*SETTINGS, *named, *more])


def finished_folders(here: Path, base: Path) -> dict[str, Path]:
    """A finished folder of every kind, by what it is."""
    config, run = small_run(here, base), here / "run"
    run_pipeline(config, run)
    export_lora(run, here / "lora")
    convert(run / "align" / "knowledge", str(base), here / "converted")
    api.evaluate(base, here / "evaluation", config=config)
    predict_file(str(base), str(here / "exam.jsonl"), config, here / "predictions")
    kinds = {"stage 1": run / "aggregate", "stage 2": run / "align", "merged": run / "model", "run": run}
    return kinds | {name: here / name for name in ("lora", "converted", "evaluation", "predictions")}


def outcome(run: Path) -> dict[str, bytes]:
    """What a run has made, to be the same bytes whatever befell it."""
    names = ("results.json", "model/model.safetensors", "align/alignment/adapter_model.safetensors")
    return {name: (run / name).read_bytes() for name in names} | {
        str(path.relative_to(run)): path.read_bytes() for path in run.glob("evaluation/*/predictions.jsonl")
    }


def run_on_a_full_disk(config: RunConfig, out: Path, *, every: int) -> FullDisk:
    """Call a run until it comes through, on a disk that is full at each so manieth new file.

    Raises:
        AssertionError: it did not end in a sentence about the disk, or left something half.
    """
    disk = FullDisk(out, every=every)
    while True:
        former, told = len(disk.failed), "No space left"
        try:
            with filled(disk):
                run_pipeline(config, out)
        except MedCareError as error:
            told = str(error)
        if "No space left" not in told:
            raise AssertionError(f"{disk.failed[-1]}: {told}")
        if litter := [path for path in out.rglob("*") if _UNFINISHED.fullmatch(path.name)]:
            raise AssertionError(f"{disk.failed[-1]} left {litter}")
        if len(disk.failed) == former:
            return disk


def _forget_locks(bar: type) -> None:
    """Give a progress bar's class, and those made of it, a lock of this process alone.

    Theirs are shared by all forked children: one that is killed while it holds one stops the others. Whoever
    drew the first bar may have one for its own class.
    """
    bar._lock = threading.RLock()
    for kind in bar.__subclasses__():
        _forget_locks(kind)


def run_under_kills(config: RunConfig, out: Path, *, seed: int, longest: float) -> int:
    """Call a run, and kill each call with SIGKILL after a random time, until one comes through.

    Args:
        config: the settings.
        out: the run's folder.
        seed: of the times.
        longest: seconds that the first call gets at most; the others get a tenth more each.

    Returns:
        How many calls were killed.

    Raises:
        AssertionError: a call ended with an error of its own.
    """
    draw, kills = random.Random(seed), 0
    while True:
        child = os.fork()
        if not child:
            code = 1
            _forget_locks(tqdm)
            try:
                run_pipeline(config, out)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        # Ever longer: on a machine that got slower, a phase might else never come to its end.
        ends = time.monotonic() + draw.uniform(0, longest * (1 + kills / 10))
        while not (status := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < ends:
            time.sleep(0.005)
        if status[0]:
            if status[1]:
                raise AssertionError(f"A call ended with status {status[1]} after {kills} kills.")
            return kills
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
