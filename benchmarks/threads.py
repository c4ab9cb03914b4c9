"""What OpenMP's waiting and threads cost and gain, on an idle machine and on a shared one.

    python benchmarks/threads.py                      # as the machine is
    python benchmarks/threads.py --busy 4             # with four programs beside it that never wait
    taskset -c 0 python benchmarks/threads.py         # on one core

Threads that find nothing to do spin for a while by default (active waiting); with OMP_WAIT_POLICY=PASSIVE
they sleep. Each side is a process of its own, and the sides take turns, so that a machine that others use
disturbs all alike. What is timed is the work alone, once warm: an answer written token by token, and training
steps of stage 1. Printed are the medians over the rounds, and their ratio to the first side's: above 1 is
slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIDES = {
    "active, all cores": ("ACTIVE", 0),
    "passive, all cores": ("PASSIVE", 0),
    "passive, one thread": ("PASSIVE", 1),
}


@contextmanager
def load(programs: int) -> Iterator[None]:
    """Programs that compute without end while the block runs."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measured(waiting: str, threads: int, arguments: list[str]) -> dict[str, dict[str, float]]:
    """What a process with such threads needs."""
    environment = {**os.environ, "OMP_WAIT_POLICY": waiting}
    environment.pop("OMP_NUM_THREADS", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds by the clock, and of all threads on the processor."""
    work()
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}


def child(tokens: int, steps: int, layers: int, hidden: int) -> None:
    """Time both kinds of work in this process."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import medcare
    from medcare.generation.greedy import generate
    from medcare.settings.config import StageConfig
    from medcare.text.chat_template import Rendered
    from medcare.training.loop import Loop

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=8192, hidden_size=hidden, intermediate_size=8 * hidden // 3, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=4,
    )  # fmt: skip
    model = LlamaForCausalLM(shape).eval()
    prompt = torch.randint(8192, (24,)).tolist()
    found = {"ask": timed(lambda: generate(model, None, [prompt], max_new_tokens=tokens, stop_ids=()))}
    trained = medcare.attach(model, "aggregate")
    rows = [Rendered(torch.randint(8192, (128,)).tolist(), [True] * 128) for _ in range(4 * steps)]

    def train() -> None:
        with tempfile.TemporaryDirectory() as folder:
            stage = StageConfig(tokens_per_batch=512, orthogonality="none")
            Loop(model, trained, rows, stage, seed=0, folder=Path(folder), pad_id=0).run("threads")

    found["train"] = timed(train)
    print(json.dumps(found))


def main() -> None:
    """Let the sides take turns and print what each needs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--busy", type=int, default=0, help="programs beside it that never wait")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48, help="of the answer")
    parser.add_argument("--steps", type=int, default=2, help="of training, with 512 tokens each")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.tokens, given.steps, given.layers, given.hidden)
        return
    names = ("tokens", "steps", "layers", "hidden")
    arguments = [word for name in names for word in (f"--{name}", str(getattr(given, name)))]
    rounds: list[dict[str, dict[str, dict[str, float]]]] = []
    with load(given.busy):
        for number in range(given.rounds):
            rounds.append({name: measured(*side, arguments) for name, side in SIDES.items()})
            print(f"round {number + 1} of {given.rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    first = next(iter(SIDES))
    print("| work | threads | seconds | ratio | processor seconds | ratio |\n|---|---|---|---|---|---|")
    for work in ("ask", "train"):
        for name in SIDES:
            cells = []
            for kind in ("clock", "processor"):
                median = statistics.median(entry[name][work][kind] for entry in rounds)
                ratio = statistics.median(
                    entry[name][work][kind] / entry[first][work][kind] for entry in rounds
                )
                cells += [f"{median:.2f}", f"{ratio:.2f}"]
            print(f"| {work} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
