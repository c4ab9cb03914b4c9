"""Run by another environment's Python, with transformers 4.57: what it makes of every folder in a folder.

python transformers_4.py PACKAGES    for each line FOLDER that comes in, writes FOLDER/read.json, and
                                     FOLDER-4/NAME as 4.57 saves it, if asked; then says FOLDER

One process for all of them: it takes seconds to start.

What is not pinned there (torch, numpy, ...) comes from PACKAGES, the site-packages of whoever asks.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

sys.path.append(sys.argv[1])  # after its own packages, which are looked in first

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import logging

warnings.simplefilter("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
torch.set_num_threads(1)


def read(folder: Path, resaved: Path) -> dict:
    asked = json.loads((folder / "asked.json").read_text())
    if (
        json.loads((folder / "config.json").read_text())["model_type"]
        not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    ):
        return {"unknown": True}
    answer: dict = {}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        answer["missing"] = sorted(info["missing_keys"])[:3]
        with torch.no_grad():
            answer["logits"] = model.eval()(torch.tensor([asked["ids"]]), use_cache=False).logits[0].tolist()
        if "texts" in asked:
            answer["dtype"] = str(AutoModelForCausalLM.from_pretrained(folder, dtype="auto").dtype)
            answer["eos"] = model.generation_config.eos_token_id
        if "saved" in asked:
            model.save_pretrained(resaved)
    except Exception as error:  # whatever it is, it is the answer
        answer["error"] = f"{type(error).__name__}: {error}"[:300]
    if "texts" in asked:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        answer["tokenizer"] = type(tokenizer).__name__
        answer["tokens"] = [tokenizer(text)["input_ids"] for text in asked["texts"]]
        answer["rendered"] = tokenizer.apply_chat_template(asked["messages"], tokenize=False)
        answer["special"] = sorted(tokenizer.all_special_tokens)
    return answer


if __name__ == "__main__":
    for line in sys.stdin:
        root = Path(line.rstrip("\n"))
        folders = sorted(path.parent for path in root.glob("*/asked.json"))
        found = {path.name: read(path, root.with_name(f"{root.name}-4") / path.name) for path in folders}
        (root / "read.json").write_text(json.dumps(found))
        print(root, flush=True)
