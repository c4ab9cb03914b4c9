"""Every family's folder, written here, computes the same in transformers 4.57, which has other names.

4.57 runs in a virtual environment of its own, made once at $MEDCARE_TRANSFORMERS_4, else in the cache. It
is shown this environment's other packages at each call, so that torch is not installed again.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PretrainedConfig

from medcare.export.model_folder import write_model
from medcare.foundation.storage import cache_dir
from tests.models.families import FAMILIES, tiny_config
from tests.text.tokenizers_by_family import FAMILIES as TOKENIZERS
from tests.text.tokenizers_by_family import end_of_turn, tokenizer_of

pytestmark = pytest.mark.slow
PINNED = ("transformers==4.57.6", "huggingface_hub==0.36.0", "tokenizers==0.22.2")
TABLE = Path(__file__).parents[2] / "docs" / "transformers_4.json"
COMMAND = "python -m tests.export.test_elsewhere"
IDS = torch.randint(3, 300, (1, 24), generator=torch.Generator().manual_seed(0))
TEXTS = ["Fever, 38.5 °C;  it's J45.909.\n\n  next\tline", "高血压 140/90mmHg。", " <|im_end|> </s> x", ""]
DTYPES = ("bfloat16", "float32")
MESSAGES = [{"role": "user", "content": "Which code?"}, {"role": "assistant", "content": "R50.9"}]


@cache
def python_4() -> Path:
    """The other environment's Python; the test is skipped where none can be made.

    It holds nothing of this environment: the cache outlives the clone that made it.
    """
    folder = Path(os.environ.get("MEDCARE_TRANSFORMERS_4") or cache_dir() / "transformers-4.57")
    program = folder / "bin" / "python"
    if not (folder / "ready").is_file():
        venv.create(folder, with_pip=True, clear=True)
        site = next(folder.glob("lib/python*/site-packages"))
        done = subprocess.run(
            [program, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, *PINNED],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"transformers 4.57 can't be installed: {done.stderr[-300:]}")
        (folder / "ready").touch()
    return program


Reads = Callable[[Path], dict[str, dict]]


@contextmanager
def transformers_4() -> Iterator[Reads]:
    """A process of 4.57: what it makes of each folder in a folder."""
    script = Path(__file__).with_name("transformers_4.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [python_4(), script, sysconfig.get_path("purelib")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):

        def read(root: Path) -> dict[str, dict]:
            process.stdin.write(f"{root}\n")
            process.stdin.flush()
            if not any(line == f"{root}\n" for line in process.stdout):
                errors.seek(0)
                raise AssertionError(errors.read()[-2000:])
            return json.loads((root / "read.json").read_text())

        yield read


@pytest.fixture(scope="module")
def read_in_4():
    with transformers_4() as read:
        yield read


def with_other_rotations(config: PretrainedConfig) -> PretrainedConfig:
    """With no base of rotary frequencies that is a default: what is not read is then seen."""
    rope = getattr(config, "rope_parameters", None) or {}
    for entry in [value for value in rope.values() if isinstance(value, dict)] or [rope]:
        if "rope_theta" in entry:
            entry["rope_theta"] *= 0.3
    for name in config.sub_configs:
        if isinstance(getattr(config, name, None), PretrainedConfig):
            with_other_rotations(getattr(config, name))
    return config


def loaded(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def written(model, tokenizer, out: Path, asked: dict) -> torch.Tensor:
    """Write a folder with what 4.57 is asked about it; the logits here."""
    write_model(model, tokenizer, out)
    (out / "asked.json").write_text(json.dumps({"ids": IDS[0].tolist(), **asked}))
    with torch.no_grad():
        return model(IDS, use_cache=False).logits[0]


def verdict(read: dict, logits: torch.Tensor) -> str:
    if read.get("unknown"):
        return "unknown there"
    if "error" in read:
        return "fails there"
    difference = (torch.tensor(read["logits"]) - logits).abs().max() / logits.std()
    return "yes" if difference < 1e-3 and not read["missing"] else "computes otherwise"


def verdicts(root: Path, read_in_4: Reads) -> tuple[dict[str, str], dict[str, str]]:
    """On each family's folder, of a base that 4.57 itself has saved; and of one of transformers 5.

    A base that 4.57 has saved comes from reading what was made of the other one.
    """
    tokenizer = tokenizer_of("chatml")
    logits, of_5 = {}, {}
    for family in FAMILIES:
        torch.manual_seed(0)
        config = with_other_rotations(tiny_config(family))
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        model.save_pretrained(root / "base" / family)
        try:
            model = loaded(root / "base" / family)
        except ValueError:
            of_5[family] = "fails here"
        else:
            logits[family] = written(model, tokenizer, root / "ours" / family, {"saved": True})
    read = read_in_4(root / "ours")
    of_5 |= {family: verdict(read[family], logits[family]) for family in logits}
    of_4, logits = {}, {}
    for family in [family for family in FAMILIES if "logits" in read.get(family, {})]:
        try:
            model = loaded(root / "ours-4" / family)
        except RuntimeError:
            of_4[family] = "fails here"  # transformers 5 does not load what 4.57 saves
        else:
            logits[family] = written(model, tokenizer, root / "again" / family, {})
    read = read_in_4(root / "again")
    of_4 |= {family: verdict(read[family], logits[family]) for family in logits}
    return {family: of_4.get(family, of_5[family]) for family in FAMILIES}, of_5


@pytest.fixture(scope="module")
def table(tmp_path_factory, read_in_4):
    return verdicts(tmp_path_factory.mktemp("families"), read_in_4)


def test_every_family_computes_the_same_or_is_named(table):
    assert table[0] == json.loads(TABLE.read_text()), f"write {TABLE.name} anew: {COMMAND}"


def test_so_does_what_becomes_of_a_base_that_transformers_5_wrote(table):
    otherwise = {family for family, told in table[0].items() if told == "yes" and table[1][family] != "yes"}
    assert otherwise <= {"gemma3"}  # whose vision tower's tensors have other names since


SCALINGS = {
    "llama": {
        "rope_type": "llama3",
        "rope_theta": 5e5,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "qwen2": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "mistral": {"rope_type": "linear", "rope_theta": 2e4, "factor": 4.0},
    "deepseek_v3": {
        "rope_type": "yarn",
        "rope_theta": 3e4,
        "factor": 4.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.5,
        "original_max_position_embeddings": 16,
    },
    "gemma3_text": {
        "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
    },
    "phi3": {
        "rope_type": "longrope",
        "rope_theta": 2e4,
        "short_factor": [1.0, 1.5, 2.0, 3.0],
        "long_factor": [2.0, 3.0, 4.0, 9.0],
        "original_max_position_embeddings": 64,
    },
}


@pytest.fixture(scope="module")
def others(tmp_path_factory, read_in_4):
    """A folder, the logits here of scaled positions, and what 4.57 reads of these and of tokenizers."""
    root = tmp_path_factory.mktemp("others")
    logits = write_scaled(root)
    for dtype, family in itertools.product(DTYPES, TOKENIZERS):
        write_tokenizer(root, dtype, family)
    return root, logits, read_in_4(root / "ours")


def write_scaled(root: Path) -> dict[str, torch.Tensor]:
    logits = {}
    for family, rope in SCALINGS.items():
        settings = tiny_config(family).to_dict() | {"rope_parameters": rope}
        if family == "phi3":
            settings["original_max_position_embeddings"] = 64
        config = type(tiny_config(family)).from_dict(settings)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(root / "base" / family)
        model = loaded(root / "base" / family)
        logits[family] = written(model, tokenizer_of("chatml"), root / "ours" / family, {})
    return logits


def write_tokenizer(root: Path, dtype: str, family: str) -> None:
    base = root / "base" / f"{dtype}-{family}"
    tokenizer_of(family).save_pretrained(base)
    config = tiny_config("llama")
    config.vocab_size = len(tokenizer_of(family))
    AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).save_pretrained(base)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    written(model, tokenizer, root / "ours" / base.name, {"texts": TEXTS, "messages": MESSAGES})


def test_scaled_positions_compute_the_same(others):
    _, logits, read = others
    told = {family: verdict(read[family], logits[family]) for family in SCALINGS}
    assert set(told.values()) == {"yes"}, [read[name].get("error", told[name]) for name in SCALINGS]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokenizers_ends_and_dtype(dtype, others):
    root, _, reads = others
    for family in TOKENIZERS:
        tokenizer = AutoTokenizer.from_pretrained(root / "base" / f"{dtype}-{family}")
        read = reads[f"{dtype}-{family}"]
        assert read["tokens"] == [tokenizer(text)["input_ids"] for text in TEXTS], family
        assert read["rendered"] == tokenizer.apply_chat_template(MESSAGES, tokenize=False)
        assert read["special"] == sorted(tokenizer.all_special_tokens)
        assert read["dtype"] == f"torch.{dtype}"
        ends = read["eos"] if isinstance(read["eos"], list) else [read["eos"]]
        assert tokenizer.convert_tokens_to_ids(end_of_turn(family)) in ends
        assert 2 in ends  # the base's own
        here = AutoTokenizer.from_pretrained(root / "ours" / f"{dtype}-{family}")
        assert [here(text)["input_ids"] for text in TEXTS] == read["tokens"]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made, transformers_4() as read_in_4:
        found, of_transformers_5 = verdicts(Path(made), read_in_4)
    print({family: told for family, told in of_transformers_5.items() if told != found[family]})
    TABLE.write_text(json.dumps(found, indent=1) + "\n")
