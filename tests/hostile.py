# ruff: noqa: E501  (hostile texts are quoted as they are)
"""Hostile inputs without end: folders of models, adapters and stages, data, settings and test sets, all damaged.

    python -m tests.hostile --count 1000 --first 0 --commands 100 [--of runs]

`--of runs` damages finished run folders in their place, whose reports, comparisons and questions are read. Every number makes one case, the same whenever it is asked for. A case is run as a user's command would run it,
and has to be answered or refused in a sentence: what else happens is a traceback, a hang (more than `SECONDS` of
the processor), a flood (more than `BYTES` of memory beyond what there was before) or the end of the process. One
case in so many is given to the command itself as well. Cases run in children of this process, some hundreds in
each: to start Python and its libraries takes as long as a hundred cases.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from medcare.__main__ import main as medcare
from medcare.data.check import check
from medcare.evaluation.comparison import compare
from medcare.evaluation.results import write_results
from medcare.evaluation.test_set import adopt
from medcare.export.card import write_card
from medcare.foundation.errors import MedCareError
from medcare.generation.engine import BatchingEngine
from medcare.generation.requests import Failed
from medcare.generation.sampling import Sampling
from medcare.page.examples import candidates
from medcare.page.folders import RunFolders
from medcare.page.questions import FinishedRuns
from medcare.page.watched import MARKS, WatchedFolder
from medcare.pipeline import run_pipeline
from medcare.reports import write_report
from medcare.serving.served_model import ServedModel, load_one
from medcare.settings.files import load_config
from medcare.text.records import Message
from tests.small_run import small_run

SECONDS = 60.0
BYTES = 2 << 30
A_CHILD = 250

_DEEP = "[" * 100_000
_LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"
_PLAIN = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"


def _nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# What a field may hold in the place of what belongs there.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2.5, 8.7, 1e-45, 1e-320, 1e308, float("nan"), float("inf"), 10**6, 10**9, 2**63,
    10**30, "", "7", "auto", "x" * 100_000, "\ud800", "../../../../etc/passwd", "/dev/zero", "\x00", [], {}, [None],
    ["a", 1], {"a": None}, {"a": {"b": {"c": []}}}, _nested(500), [10**9] * 3,
)  # fmt: skip

# By what a chat template can be: each with a plain rest, so that only the hostile part is refused.
TEMPLATES = (
    _LOOP,
    "{% for a in range(99999) if a < 0 %}{% endfor %}" * 200 + _LOOP,
    "{{ 'a' * 10**10 }}",
    "{{ [1] * 10**10 }}",
    "{{ 10**10**10 }}",
    "{{ 'a'.ljust(10**10) }}",
    "{{ 'a'|center(10**10) }}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10**10, 1) }}",
    "{{ '{:10000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**10) }}",
    "{{ '%10000000000d'|format(1) }}",
    "{{ '\t'.expandtabs(10**10) }}",
    "{{ 'a\nb'|indent(10**10) }}",
    "{{ {'a': 1}|tojson(indent=10**10) }}",
    "{{ lipsum(n=10**6) }}",
    "{{ range(9)|slice(10**10)|list }}",
    "{{ range(9)|batch(10**10, 'x')|list }}",
    "{% set n = namespace(s='a' * 1000) %}{% for a in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='a' * 1000) %}{% for a in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='aa') %}{% for a in range(60) %}{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='aa') %}{% for a in range(60) %}{% set n.s = n.s|replace('a', n.s) %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s='aa') %}{% for a in range(60) %}{% set n.s = n.s.join([n.s, n.s, n.s]) %}{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for a in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
    "{% set n = namespace(s={}) %}{% for a in range(60) %}{% set n.s = {'a': n.s, 'b': n.s} %}{% endfor %}{{ n.s|tojson }}",
    "{% set n = namespace(s=3) %}{% for a in range(60) %}{% set n.s = n.s * n.s %}{% endfor %}{{ n.s }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}" + "xyz" * 9999 + "{% endfor %}{% endfor %}",
    "{% set x %}{% for a in range(99999) %}{% for b in range(99999) %}xyz{% endfor %}{% endfor %}{% endset %}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% for a in range(9) recursive %}{% if loop.depth < 60 %}{{ loop(range(9)) }}{% endif %}{% endfor %}",
    "{% for a in range(99999) %}{{ range(99999)|sum }}{% endfor %}",
    "{% for a in range(99999) %}{{ range(99999)|map('string')|join }}{% endfor %}",
    "{% for a in range(99999) %}{% set _ = 5 in range(99999)|list %}{% endfor %}",
    "{{ messages[0].content.__class__.__mro__ }}",
    "{{ ''.join.__self__ }}{% include 'x' %}",
    "{% import 'os' as os %}{{ os }}",
    "{{ messages|attr('__class__') }}",
    "{{ (" * 2000 + "1" + ") }}" * 2000,
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{% if %}",
    "",
    "{{ undefined.x }}",
    "{{ raise_exception(messages) }}",
    "{{ 1 // 0 }}",
    "{% macro messages() %}{{ caller() }}{% endmacro %}{{ messages() }}",
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    "x" * 3_000_000,
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        what: what is wrong with it, for people.
        run: uses it.
        command: arguments of the command that uses it, if there is one.
    """

    what: str
    run: Callable[[], None]
    command: tuple[str, ...] = ()


Kinds = tuple[Callable[["Material", random.Random], Case], ...]


@dataclass
class Tally:
    """What became of cases: how many were answered or refused, and which ended otherwise."""

    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")
    largest: tuple[int, str] = (0, "")


class _TooLongError(BaseException):
    """No library can catch it by accident."""


class Material:
    """Whole folders and files, made once, of which each case damages a copy."""

    def __init__(self, folder: Path, base: Path, stage: Path) -> None:
        """Take a base and a stage 1 that was trained on it; everything is written below `folder`."""
        self.folder, self.base, self.stage = folder, base, stage
        self.shards = folder / "shards"
        if not self.shards.is_dir():
            shutil.copytree(base, self.shards)
            _shard(self.shards)

    def finished(self) -> Path:
        """A finished run of seconds."""
        run = self.folder / "run"
        if not (run / "report.html").is_file():
            run_pipeline(small_run(self.folder, self.base), run)
        return run

    def copy(self, source: Path) -> Path:
        """A fresh copy of a folder, in the place of the former one."""
        target = self.folder / "case"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(source, target)
        return target


def _shard(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def use(folder: Path, base: Path | None = None) -> None:
    """Load a model and have it write two tokens, as `medcare ask` does."""
    served = load_one(
        "it", str(folder), device="cpu", dtype="float32", base=None if base is None else str(base)
    )
    answer(served)


def answer(served: ServedModel) -> None:
    """Two tokens with the model's own way of sampling."""
    prompt = served.chat_prompt([Message("user", "What is fever?")])
    engine, failed = BatchingEngine(served.model), []
    sampling = Sampling(2, served.temperature, served.top_k, served.top_p, 1, served.stop_ids)
    engine.add(prompt, sampling, lambda event: failed.append(event) if isinstance(event, Failed) else None)
    while engine.busy:
        engine.step()


# --- What is done to files.


def damaged(path: Path, rng: random.Random) -> str:
    """Put something else into the place of a file; returns what."""
    data = path.read_bytes()
    path.unlink()
    kinds: dict[str, Callable[[], object]] = {
        "nothing there": lambda: None,
        "empty": lambda: path.write_bytes(b""),
        "cut off": lambda: path.write_bytes(data[: rng.randrange(len(data))]),
        "other bytes": lambda: path.write_bytes(_flipped(data, rng)),
        "null": lambda: path.write_text("null"),
        "a list": lambda: path.write_text("[1, 2]"),
        "a text": lambda: path.write_text('"x"'),
        "a number": lambda: path.write_text("1e999"),
        "nested 100,000 deep": lambda: path.write_text(_DEEP),
        "objects nested 100,000 deep": lambda: path.write_text('{"a":' * 100_000),
        "UTF-16": lambda: path.write_text("{}", encoding="utf-16"),
        "half a character": lambda: path.write_bytes(b'{"model_type": "\xff"}'),
        "a link to /dev/zero": lambda: path.symlink_to("/dev/zero"),
        "a link to itself": lambda: path.symlink_to(path),
        "a link to nothing": lambda: path.symlink_to(path.parent / "nothing"),
        "a pipe": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "a link to the folder": lambda: path.symlink_to(path.parent),
        "many zeros": lambda: path.write_bytes(bytes(1 << 22)),
    }  # fmt: skip
    kind = rng.choice(list(kinds))
    kinds[kind]()
    return f"{path.name}: {kind}"


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _places(tree: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Containers and keys in a JSON tree, few of a large one."""
    entries = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree))
    for key, value in entries[:40]:
        yield tree, key
        if isinstance(value, dict | list) and depth < 5:
            yield from _places(value, depth + 1)


def changed(path: Path, rng: random.Random) -> str:
    """Put another value into some places of a JSON file; returns where and what."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    told = []
    for _ in range(rng.choice((1, 1, 1, 2))):
        container, key = rng.choice(list(_places(tree)) or [(tree, "added")])
        value = json.loads(json.dumps(rng.choice(VALUES)))  # a copy: the next change may be inside of it
        how = rng.choice(("put", "put", "put", "put", "taken out", "renamed"))
        if how == "put":
            container[key] = value
        elif isinstance(container, dict) and key in container:
            former = container.pop(key)
            if how == "renamed":
                container[f"{key}s"] = former
        told.append(f"{key} {how} {json.dumps(value)[:40] if how == 'put' else ''}")
    path.write_text(json.dumps(tree), encoding="utf-8")
    return f"{path.name}: {', '.join(told)}"


def weights(path: Path, rng: random.Random) -> str:
    """Change the tensors of a safetensors file; returns how."""
    tensors = load_file(path)
    name = rng.choice(sorted(tensors))
    value = tensors[name]
    kinds: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
        "missing": dict,
        "int8": lambda: {name: value.to(torch.int8)},
        "bool": lambda: {name: value.bool()},
        "complex": lambda: {name: value.to(torch.complex64)},
        "float8": lambda: {name: value.to(torch.float8_e4m3fn)},
        "nan": lambda: {name: value * float("nan")},
        "infinite": lambda: {name: value / 0.0},
        "huge": lambda: {name: torch.full_like(value, 3e38)},
        "a number": lambda: {name: torch.tensor(1.0)},
        "empty": lambda: {name: torch.zeros(0)},
        "a row too many": lambda: {name: torch.cat([value, value[:1]])},
        "another shape": lambda: {name: value.reshape(1, -1).clone()},
        "another name": lambda: {f"{name}.x": value},
        "one besides": lambda: {name: value, f"{name.rpartition('.')[0]}.bias": torch.zeros(3)},
        "one beyond": lambda: {name: value, "model.layers.99.mlp.up_proj.weight": torch.zeros(3, 3)},
    }
    kind = rng.choice(list(kinds))
    rest = {key: entry for key, entry in tensors.items() if key != name}
    save_file({**rest, **kinds[kind]()}, path, metadata={"format": "pt"})
    return f"{path.name}: {name} {kind}"


def header(path: Path, rng: random.Random) -> str:
    """Write another header before the data of a safetensors file; returns which."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    tree, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = rng.choice(("length", "entry", "deep"))
    head = json.dumps(tree).encode()
    length = len(head)
    if kind == "length":
        length = rng.choice((0, 1, 2**40, 2**63, len(data) * 2))
    elif kind == "deep":
        head = _DEEP.encode()
        length = len(head)
    else:
        entry = tree[rng.choice([name for name in tree if name != "__metadata__"])]
        entry[rng.choice(list(entry))] = rng.choice(
            (None, [2**40, 2**40], [10**9], "F64", [0, 2**62], [-1, 4])
        )
        head = json.dumps(tree).encode()
        length = len(head)
    path.write_bytes(struct.pack("<Q", length) + head + rest)
    return f"{path.name}: header, {kind}"


# --- Kinds of cases: each makes one out of a number's randomness.


def model_folder(material: Material, rng: random.Random) -> Case:
    """A base with a damaged file, changed fields, changed weights, or a hostile template."""
    folder = material.copy(rng.choice((material.base, material.base, material.shards)))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    tables = [path for path in files if path.suffix == ".json"]
    stores = [path for path in files if path.suffix == ".safetensors"]
    kind = rng.choice(
        ("fields", "fields", "fields", "fields", "file", "weights", "header", "template", "index")
    )
    if kind == "fields":
        what = changed(rng.choice(tables), rng)
    elif kind == "file":
        what = damaged(rng.choice(files), rng)
    elif kind == "weights":
        what = weights(rng.choice(stores), rng)
    elif kind == "header":
        what = header(rng.choice(stores), rng)
    elif kind == "index":
        folder = material.copy(material.shards)
        what = _index(folder, rng)
    else:
        what = _template(folder, rng)
    return Case(f"model, {what}", lambda: use(folder), ("ask", str(folder), "What?"))


def _index(folder: Path, rng: random.Random) -> str:
    path = folder / "model.safetensors.index.json"
    tree = json.loads(path.read_text())
    other = rng.choice(
        ("/etc/passwd", "../case/config.json", "/dev/zero", "config.json", "", ".", None, 3, [], "a" * 5000, "\ud800",
         "../../" + material_name(folder), "model-00001-of-00002.safetensors")
    )  # fmt: skip
    name = rng.choice(sorted(tree["weight_map"]))
    tree["weight_map"][name] = other
    path.write_text(json.dumps(tree))
    return f"index: {name} in {str(other)[:40]!r}"


def material_name(folder: Path) -> str:
    """A path that leads out of a folder and back in."""
    return f"{folder.parent.name}/{folder.name}/model-00001-of-00002.safetensors"


def _template(folder: Path, rng: random.Random) -> str:
    template = rng.choice(TEMPLATES) + rng.choice(("", _PLAIN))
    if rng.random() < 0.5:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))
    return f"template: {template[:60]!r}"


# An adapter's name patterns that take for ever, or are none.
PATTERNS = ("(a+)+b", "(.*)*x", "(([a-z_.0-9])+.)+[A-Z]([a-z])+$", "(?:[a-z]|[.]|\\w)+[A-Z]", "((((.*)*)*)*)*!", "(", "[", "", ".*", "(?P<a>.)(?P<a>.)",
            "a{99999}{99999}", "\\", "(?:a|a)*" * 30 + "!", "q_proj", "mlp.up_proj")  # fmt: skip


def adapter(material: Material, rng: random.Random) -> Case:
    """A PEFT folder with a damaged file, changed fields, patterns or factors."""
    folder = material.copy(material.stage / "knowledge")
    config, store = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    tree = json.loads(config.read_text())
    kind = rng.choice(("fields", "fields", "file", "weights", "header", "pattern", "number"))
    if kind == "fields":
        what = changed(config, rng)
    elif kind == "file":
        what = damaged(rng.choice((config, store)), rng)
    elif kind == "weights":
        what = weights(store, rng)
    elif kind == "header":
        what = header(store, rng)
    else:
        if kind == "pattern":
            patterns = {
                rng.choice(PATTERNS): rng.choice((2, 4, 8.7, "4", None)) for _ in range(rng.choice((1, 3, 9)))
            }
            entry = {rng.choice(("rank_pattern", "alpha_pattern")): patterns}
        else:
            entry = {rng.choice(("r", "lora_alpha")): rng.choice(VALUES)}
        config.write_text(json.dumps({**tree, **entry}))
        what = str(entry)[:80]
    command = ("ask", str(folder), "What?", "--base", str(material.base))
    return Case(f"adapter, {what}", lambda: use(folder, material.base), command)


def stage(material: Material, rng: random.Random) -> Case:
    """A stage folder that says nothing of its files, with a changed or damaged one."""
    folder = material.copy(material.stage)
    manifest = folder / "manifest.json"
    tree = json.loads(manifest.read_text())
    if rng.random() < 0.7:
        del tree["files"], tree["manifest_sha256"]
        manifest.write_text(json.dumps(tree))
    kind = rng.choice(("manifest", "settings", "file", "noise"))
    if kind == "manifest":
        what = changed(manifest, rng)
    elif kind == "settings":
        what = yaml_file(folder / "config.yaml", rng)
    elif kind == "noise":
        what = rng.choice((weights, header))(folder / "noise.safetensors", rng)
    else:
        what = damaged(rng.choice((manifest, folder / "config.yaml", folder / "noise.safetensors")), rng)
    return Case(f"stage, {what}", lambda: use(folder), ("ask", str(folder), "What?"))


YAMLS = (
    "a: " + _DEEP, "- " * 100_000, "a: &a [*a]", "a: &a {b: *a}", "? [a]\n: b", "a: !!python/object:os.system x", "a: 1\na: 2",
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]" for n in range(20)),
    "seed: 1" + "0" * 10_000, "seed: 1e999", "seed: .nan", "seed: 2001-99-99", "seed: !!binary x", "\t", "\x00", "%", "a: 'x", "---\n---\n",
    "seed: 1:" + "9:" * 5000, "align: {epochs: 100000000000}", "align: {<<: 5}", "model: {base: \"\\uD800\"}", "x" * 2_000_000,
    "adapters: {alpha: .nan}", "adapters: {alpha: .inf}", "adapters: {alpha: 0}", "adapters: {rank: 8.7}", "model: null", "align: []",
)  # fmt: skip


def yaml_file(path: Path, rng: random.Random) -> str:
    """Write a hostile YAML file; returns what it holds."""
    text = rng.choice(YAMLS)
    if rng.random() < 0.4:
        keys = ("seed", "model", "adapters", "aggregate", "align", "evaluation", "adapters.rank", "align.map", "align.data",
                "evaluation.items", "tracking.trackers", "model.base")  # fmt: skip
        outer, _, inner = rng.choice(keys).partition(".")
        value = json.dumps(rng.choice(VALUES))
        text = f"{outer}: {{{inner}: {value}}}" if inner else f"{outer}: {value}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return f"YAML: {text[:60]!r}"


def settings(material: Material, rng: random.Random) -> Case:
    """A file of settings."""
    path = material.folder / "settings.yaml"
    path.unlink(missing_ok=True)
    what = yaml_file(path, rng)
    return Case(f"settings, {what}", lambda: load_config(path) and None)


ROWS = (
    {"messages": [{"role": "user", "content": "What is fever?"}, {"role": "assistant", "content": "Heat."}], "id": "a"},
    {"messages": [{"role": "user", "content": "Look."}, {"role": "assistant", "content": "", "tool_calls": [
        {"type": "function", "id": "c", "function": {"name": "look", "arguments": {"a": 1}}}]},
        {"role": "tool", "content": "x", "tool_call_id": "c"}, {"role": "assistant", "content": "Done."}]},
    {"instruction": "Say it.", "input": "", "output": "It."},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 1, "id": "1"},
    {"question": "Which?", "options": {"A": "a", "B": "b"}, "answer_idx": "A", "answer": "a"},
    {"input": "找出", "target": "x", "answer_choices": ["a"], "task_type": "ner", "task_dataset": "CMeEE-V2", "sample_id": "1"},
)  # fmt: skip


def rows_file(material: Material, rng: random.Random) -> tuple[Path, str]:
    """A data file with damaged rows."""
    row = json.loads(json.dumps(rng.choice(ROWS)))
    path = (
        material.folder / f"rows{rng.choice(('.jsonl', '.json', '.jsonl', '.csv', '.jsonl.gz', '.parquet'))}"
    )
    _remove(path)
    good = json.dumps(row)
    container, key = rng.choice(list(_places(row)))
    container[key] = rng.choice(VALUES)
    bad = json.dumps(row)
    text = "\n".join([good, bad, good]) + "\n"
    if rng.random() < 0.3:
        text = rng.choice(
            (
                _DEEP,
                '{"a":' * 100_000,
                "[" + bad + ",",
                "[[[]]]",
                "a,b\n" + '"' * 99_999,
                bad[: len(bad) // 2],
                "\x00" * 99,
            )
        )
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    if rng.random() < 0.1:
        return path, damaged(path, rng)
    return path, f"{path.name}: {key} {bad[:60]}" if text.startswith(good) else f"{path.name}: {text[:40]!r}"


def data(material: Material, rng: random.Random) -> Case:
    """A data file, checked without a tokenizer."""
    path, what = rows_file(material, rng)
    good = material.folder / "good.jsonl"
    return Case(
        f"data, {what}", lambda: check(str(path), write_good=good) and None, ("data", "check", str(path))
    )


def exam(material: Material, rng: random.Random) -> Case:
    """A test set."""
    path, what = rows_file(material, rng)
    out = material.folder / "items"
    shutil.rmtree(out, ignore_errors=True)
    return Case(f"test set, {what}", lambda: adopt(str(path), out))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def run_folder(material: Material, rng: random.Random) -> Case:
    """A finished run that says nothing of its files, one of which is changed or damaged."""
    folder = material.copy(material.finished())
    for manifest in folder.rglob("manifest.json"):
        tree = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({key: tree[key] for key in tree if key not in _SEALED}))
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".yaml"))
    path = rng.choice([path for path in files if path.parent != folder / "model"])
    change = {".json": changed, ".jsonl": changed_row, ".yaml": yaml_file}[path.suffix]
    what = damaged(path, rng) if rng.random() < 0.25 else change(path, rng)
    name = rng.choice(list(READERS))
    command = {"report": ("report", str(folder)), "compare": ("compare", f"{folder}:base", str(folder))}
    return Case(
        f"{name} of {path.parent.relative_to(folder)}/{what}",
        lambda: READERS[name](folder),
        command.get(name, ()),
    )


_SEALED = ("files", "manifest_sha256")


def changed_row(path: Path, rng: random.Random) -> str:
    """Put other values into a row of a JSONL file; returns where and what."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number, row = rng.randrange(len(lines)), path.with_name("row.json")
    row.write_text(lines[number], encoding="utf-8")
    what = changed(row, rng)
    lines[number] = row.read_text(encoding="utf-8")
    row.unlink()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"{path.name}, line {number + 1}: {what}"


def _on_the_page(folder: Path) -> None:
    folders = RunFolders(folder)
    for name, path in folders.holding(*MARKS).items():
        WatchedFolder(name, path).look(time.time())
    runs = FinishedRuns(folders)
    for name in runs.folders():
        runs.questions(name)
    list(candidates(runs))


# Who reads a finished run: the report, a comparison, the scores and the card made anew, and the server's page.
READERS: dict[str, Callable[[Path], object]] = {
    "report": write_report,
    "compare": lambda folder: compare(f"{folder}:base", str(folder), resamples=20),
    "scores": lambda folder: write_results(folder, resamples=20),
    "card": lambda folder: write_card(folder / "model"),
    "page": _on_the_page,
}
INPUTS: Kinds = (model_folder, model_folder, model_folder, adapter, stage, settings, data, exam)
RUNS: Kinds = (run_folder,)


def case(material: Material, number: int, kinds: Kinds = INPUTS) -> Case:
    """The case of a number."""
    rng = random.Random(number)
    made = kinds[number % len(kinds)](material, rng)
    return replace(made, what=f"{number}: {made.what}")


# --- Running them.


def run(made: Case, tally: Tally, *, seconds: float = SECONDS, room: int = BYTES) -> None:
    """Run a case under guard, and count what became of it."""
    before = _reset_peak()
    start = time.process_time()
    try:
        with _bounded(seconds, room):
            made.run()
        outcome = "answered"
    except MedCareError as error:
        outcome = "refused"
        if "\n" in str(error) or len(str(error)) > 3000:
            outcome = "no sentence"
            tally.faults.append(f"no sentence: {made.what}: {str(error)[:300]!r}")
    except _TooLongError:
        outcome = "hang"
        tally.faults.append(f"hang: {made.what}")
    except MemoryError:
        outcome = "flood"
        tally.faults.append(f"flood: {made.what}: {traceback.format_exc(limit=-3)}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome = "traceback"
        tally.faults.append(f"traceback: {made.what}: {traceback.format_exc(limit=-4)[-1500:]}")
    took, grown = time.process_time() - start, _peak() - before
    if grown > room and outcome != "flood":
        outcome = "flood"
        tally.faults.append(f"flood: {made.what}: {grown >> 20} MiB")
    tally.outcomes[outcome] += 1
    tally.slowest = max(tally.slowest, (took, made.what))
    tally.largest = max(tally.largest, (grown, made.what))


def run_command(made: Case, tally: Tally) -> None:
    """Give a case to the command, in a child of this process, and count what became of it."""
    with tempfile.TemporaryFile("w+") as said:

        def command() -> None:
            os.dup2(said.fileno(), sys.__stdout__.fileno() if sys.__stdout__ else 1)
            os.dup2(said.fileno(), 2)
            sys.stdout = sys.stderr = said
            sys.argv = ["medcare", *made.command]
            resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS) + 5))
            signal.alarm(10 * int(SECONDS))  # for one that waits
            medcare()

        code = in_a_child(command)
        said.seek(0)
        text = said.read().strip()
    outcome = f"command, exit {code}"
    if "Traceback" in text:
        outcome = "traceback"
    elif code < 0:
        outcome = "hang" if -code in (signal.SIGXCPU, signal.SIGALRM) else "end of the process"
    if not outcome.startswith("command"):
        tally.faults.append(f"{outcome}: command: {made.what}: exit {code}: {text[-1000:]}")
    tally.outcomes[outcome] += 1


def in_a_child(work: Callable[[], object]) -> int:
    """Do something in a fork of this process; its exit status, or the negative number of the signal that ended it."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run_all(
    material: Material, numbers: range, tally: Tally, *, commands: int = 0, kinds: Kinds = INPUTS
) -> None:
    """Run cases in a child, so that what ends the process is a fault of one case and not the end of all.

    Args:
        material: what they damage.
        numbers: theirs.
        tally: what became of them.
        commands: one case in so many is given to the command, too.
        kinds: of cases.
    """
    under_way, found = material.folder / "under_way", material.folder / "tally.json"

    def work() -> None:
        own = Tally()
        for number in numbers:
            under_way.write_text(str(number))
            run(case(material, number, kinds), own)
            if commands and number % commands == 0 and (made := case(material, number, kinds)).command:
                run_command(made, own)
        found.write_text(json.dumps(vars(own)))

    found.unlink(missing_ok=True)
    code = in_a_child(work)
    if code:
        number = int(under_way.read_text())
        tally.faults.append(f"end of the process: {number}: exit {code}")
        tally.outcomes["end of the process"] += 1
        # Those before it were not counted yet, and those after it not run.
        for rest in (range(numbers.start, number), range(number + 1, numbers.stop)):
            if rest:
                run_all(material, rest, tally, commands=commands, kinds=kinds)
        return
    counted = json.loads(found.read_text())
    tally.outcomes += Counter(counted["outcomes"])
    tally.faults += counted["faults"]
    tally.slowest = max(tally.slowest, tuple(counted["slowest"]))
    tally.largest = max(tally.largest, tuple(counted["largest"]))


@contextlib.contextmanager
def _bounded(seconds: float, room: int) -> Iterator[None]:
    """Within the block, time of the processor and address space are bounded: a fault must not take the machine down."""

    def stop(*_: object) -> None:
        raise _TooLongError

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    former = signal.signal(signal.SIGVTALRM, stop)
    former_alarm = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 2 * room, hard))
    # The last one is for a loop of a library's, which no handler of Python's ends.
    soft_time, hard_time = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + 2 * seconds) + 2, hard_time))
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)  # for one that waits, on a machine that others use
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGVTALRM, former)
        signal.signal(signal.SIGALRM, former_alarm)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        resource.setrlimit(resource.RLIMIT_CPU, (soft_time, hard_time))


def _status(name: str) -> int:
    """A number out of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) << 10
    raise LookupError(name)


def _reset_peak() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def prepared(folder: Path) -> Material:
    """A tiny base, and a stage 1 of two steps on it."""
    from medcare.training import stages
    from tests.conftest import tiny_model
    from tests.text.tokenizers_by_family import tokenizer_of
    from tests.training.test_stages import TALKS, config

    base, stage = folder / "base", folder / "stage"
    if not (stage / "manifest.json").is_file():
        tokenizer = tokenizer_of("chatml")
        tiny_model("llama", hidden=16, vocab=len(tokenizer)).save_pretrained(base)
        tokenizer.save_pretrained(base)
        stages.train("aggregate", config(base), TALKS[:2], stage, data_hash="x")
    return Material(folder, base, stage)


def main() -> None:
    """Run many cases and print their counts as JSON; exit with 1 if one was a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--commands", type=int, default=0, help="one in so many is given to the command, too")
    parser.add_argument("--of", choices=("inputs", "runs"), default="inputs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tally, kinds = Tally(), RUNS if arguments.of == "runs" else INPUTS
    with (
        tempfile.TemporaryDirectory() as name,
        Path(os.devnull).open("w", errors=sys.stderr.errors) as nowhere,
        contextlib.redirect_stderr(nowhere),
    ):
        material = prepared(Path(name))
        if kinds is RUNS:
            material.finished()
        end = arguments.first + arguments.count
        for first in range(arguments.first, end, A_CHILD):
            known = len(tally.faults)
            numbers = range(first, min(first + A_CHILD, end))
            run_all(material, numbers, tally, commands=arguments.commands, kinds=kinds)
            for fault in tally.faults[known:]:
                print(fault, flush=True)
    print(
        json.dumps(
            {
                **tally.outcomes,
                "slowest": tally.slowest,
                "largest": [tally.largest[0] >> 20, tally.largest[1]],
            }
        )
    )
    sys.exit(1 if tally.faults else 0)


if __name__ == "__main__":
    main()
