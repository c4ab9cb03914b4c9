"""From a thousand rows to a million: memory, the second start, and how fast rows are tokenised.

    python benchmarks/corpus.py                          all of it, realistic rows; hours on few cores
    python benchmarks/corpus.py --rows 1000 --rows 10000 --tokens 60

For each size a file is trained on for a few steps, twice, each time in a process of its own with a tiny
model: the first start tokenises, the second finds the corpus. Told are the seconds from the process's start
to its first step, and the largest resident memory beyond what it had with the model loaded. Then the same
rows are tokenised by this package and by `datasets.map` with the bare tokenizer, in turn, in as many
processes; theirs have been rendered before the clock runs. TRL's SFTTrainer, where it is installed, starts on
the same files up to `--trl` rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from data_throughput import WORDS

STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, action="append", help="sizes; by default 1,000 to 1,000,000")
    parser.add_argument("--tokens", type=int, default=600, help="of a row, about")
    parser.add_argument("--trl", type=int, default=10_000, help="most rows for TRL")
    parser.add_argument("--rate-rows", type=int, default=10_000, help="rows that are tokenised in turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=Path, help="write a picture of memory and starts")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASURES[options.measure](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HF_DATASETS_CACHE": f"{folder}/datasets"}
        starts = []
        for rows in options.rows or [1_000, 10_000, 100_000, 1_000_000]:
            file = write_rows(Path(folder) / f"{rows}.jsonl", rows, options.tokens)
            for side in ("medcare", "trl") if rows <= options.trl else ("medcare",):
                for start in (1, 2):
                    found = child(side, file, options, {**environment, "CORPUS_CACHE": f"{folder}/corpora"})
                    starts.append({"rows": rows, "side": side, "start": start, **found})
                    print(json.dumps(starts[-1]), flush=True)
        file = write_rows(Path(folder) / "rate.jsonl", options.rate_rows, options.tokens)
        rates = child("rate", file, options, {**environment, "CORPUS_CACHE": f"{folder}/rate"})
        print(json.dumps(rates))
    print(table(starts))
    if options.plot:
        draw(starts, options.plot)


def write_rows(path: Path, rows: int, tokens: int) -> Path:
    draw = random.Random(0)
    with path.open("w") as stream:
        for number in range(rows):
            words = draw.choices(WORDS, k=max(4, int(tokens * draw.uniform(0.3, 1.1))))
            asked = max(1, len(words) // 3)
            turns = [
                {"role": "user", "content": f"Case {number}: {' '.join(words[:asked])}?"},
                {"role": "assistant", "content": f"{' '.join(words[asked:])}."},
            ]
            stream.write(json.dumps({"messages": turns}) + "\n")
    return path


def child(
    measure: str, file: Path, options: argparse.Namespace, environment: dict[str, str]
) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", measure, "--file", str(file)]
    command += ["--rounds", str(options.rounds), "--processes", str(options.processes)]
    began = time.time()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        return {"failed": done.returncode}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "first_step" in found:
        found["first_step"] = round(found["first_step"] - began, 1)
    return found


class Resident:
    """The largest resident memory of this process since this was made, in MB, beyond what it had then."""

    def __init__(self) -> None:
        self.base = self.peak = self.now()
        threading.Thread(target=self.watch, daemon=True).start()

    @staticmethod
    def now() -> float:
        """MB that are resident."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def watch(self) -> None:
        """Note the peak, for ever."""
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.02)

    def beyond(self) -> int:
        """The peak beyond the base, MB."""
        return round(max(self.peak, self.now()) - self.base)


def tiny_model() -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM

    from medcare.models.base_model import load_tokenizer

    tokenizer = load_tokenizer("embedded")
    config = AutoConfig.for_model(
        "llama", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(tokenizer), max_position_embeddings=4096,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config), tokenizer


def start_medcare(options: argparse.Namespace) -> dict[str, Any]:
    from medcare.adapters.tuner import add_branches, trainable
    from medcare.data import tokenised as tokenising
    from medcare.settings.config import AdapterConfig, StageConfig
    from medcare.training.loop import Loop
    from medcare.training.meter import Meter

    model, tokenizer = tiny_model()
    add_branches(model, "aggregate", AdapterConfig(rank=2, experts=2))
    parameters = trainable(model, ("knowledge", "noise", "attention"))
    os.environ["MEDCARE_CACHE"] = os.environ["CORPUS_CACHE"]
    tokenising.free_cores = lambda: options.processes
    resident, began = Resident(), time.perf_counter()
    corpus = tokenising.tokenised(tokenizer, tokenising.TrainingData.named(options.file))
    made = time.perf_counter() - began
    stage = StageConfig(tokens_per_batch=2048, orthogonality="none")
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(model, parameters, corpus.within(3072), stage, seed=0, folder=Path(folder), pad_id=0)
        meter, first = Meter(), 0.0
        for step in range(STEPS):
            loop._step(step, meter)
            first = first or time.time()
    return {
        "first_step": first,
        "data_seconds": round(made, 1),
        "beyond_mb": resident.beyond(),
        "tokens_a_row": round(float(corpus.lengths.mean())),
    }


def start_trl(options: argparse.Namespace) -> dict[str, Any]:
    try:
        from trl import SFTConfig, SFTTrainer
    except ImportError:
        print("TRL is not installed: left out", file=sys.stderr)
        return {"left_out": "TRL is not installed"}
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import TrainerCallback

    model, tokenizer = tiny_model()
    resident, began = Resident(), time.perf_counter()
    rows = load_dataset("json", data_files=options.file, split="train")
    firsts: list[float] = []

    class Told(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            firsts.append(time.time())

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, max_steps=STEPS, per_device_train_batch_size=4, max_length=3072,
            dataset_num_proc=options.processes, report_to=[], use_cpu=True, save_strategy="no",
            gradient_checkpointing=False, bf16=False, disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        trainer = SFTTrainer(
            model,
            settings,
            train_dataset=rows,
            processing_class=tokenizer,
            peft_config=LoraConfig(r=2, task_type="CAUSAL_LM"),
            callbacks=[Told()],
        )
        made = time.perf_counter() - began
        trainer.train()
    return {"first_step": firsts[0], "data_seconds": round(made, 1), "beyond_mb": resident.beyond()}


def rate(options: argparse.Namespace) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from datasets import Dataset, disable_progress_bars

    from medcare.data import tokenised as tokenising
    from medcare.models.base_model import load_tokenizer

    disable_progress_bars()
    tokenizer = load_tokenizer("embedded")
    tokenising.free_cores = lambda: options.processes
    with open(options.file) as stream:  # noqa: PTH123
        talks = [json.loads(line)["messages"] for line in stream]
    texts = [tokenizer.apply_chat_template(talk, tokenize=False) for talk in talks]
    bare = Dataset.from_dict({"text": texts})
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
    for turn in range(options.rounds):
        os.environ["MEDCARE_CACHE"] = f"{os.environ['CORPUS_CACHE']}/{turn}"
        before = clocks()
        tokenising.tokenised(tokenizer, tokenising.TrainingData.named(options.file))
        for worker in multiprocessing.active_children():  # whose time counts once they have ended
            worker.join()
        between = clocks()
        bare.map(
            lambda batch: tokenizer(batch["text"], add_special_tokens=False),
            batched=True,
            remove_columns=["text"],
            load_from_cache_file=False,
            num_proc=options.processes,
        )
        after = clocks()
        seconds["ours"].append((between[0] - before[0], between[1] - before[1]))
        seconds["bare"].append((after[0] - between[0], after[1] - between[1]))
    found: dict[str, Any] = {"rows": len(texts)}
    for place, kind in enumerate(("", "_of_processor_time")):
        rates = {side: [len(texts) / pair[place] for pair in pairs] for side, pairs in seconds.items()}
        ratios = [mine / other for mine, other in zip(rates["ours"], rates["bare"], strict=True)]
        found[f"rows_a_second{kind}"] = {side: [round(value) for value in r] for side, r in rates.items()}
        found[f"ratio{kind}"] = round(statistics.median(ratios), 3)
    return found


def clocks() -> tuple[float, float]:
    """Seconds by the clock, and of processors: this process's and those of its children that have ended."""
    used = os.times()
    return time.perf_counter(), used.user + used.system + used.children_user + used.children_system


def table(starts: list[dict[str, Any]]) -> str:
    lines = [
        "| rows | who | start | seconds to the first step | of these for data | MB beyond the model |",
        "|---|---|---|---|---|---|",
    ]
    for row in starts:
        cells = (row.get(name, "-") for name in ("first_step", "data_seconds", "beyond_mb"))
        lines.append(
            f"| {row['rows']:,} | {row['side']} | {row['start']} | " + " | ".join(map(str, cells)) + " |"
        )
    return "\n".join(lines)


def draw(starts: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    memory, seconds = figure.subplots(1, 2)
    for side in ("medcare", "trl"):
        second = [row for row in starts if row["side"] == side and row["start"] == 2 and "beyond_mb" in row]
        sizes = [row["rows"] for row in second]
        memory.plot(sizes, [row["beyond_mb"] for row in second], marker="o", label=side)
        seconds.plot(sizes, [row["first_step"] for row in second], marker="o", label=side)
    for axes, label in ((memory, "MB beyond the model"), (seconds, "seconds to the first step")):
        axes.set(xscale="log", xlabel="rows", ylabel=label, ylim=(0, None))
        axes.legend()
    figure.savefig(path)


MEASURES = {"medcare": start_medcare, "trl": start_trl, "rate": rate}

if __name__ == "__main__":
    main()
