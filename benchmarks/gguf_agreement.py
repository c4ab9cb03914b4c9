"""A GGUF export in llama.cpp against the model in transformers: tokens, logits, greedy answers.

    pip install llama-cpp-python==0.3.36     (no dependency of the package)
    medcare run --out runs/demo
    python benchmarks/gguf_agreement.py embedded runs/demo/align --data runs/demo/data/align.jsonl

Tokens: the messages of the data and the texts below, through both tokenizers. Logits: of the data's prompts,
over every position and the whole vocabulary. Greedy: how many of the prompts get the same `--new` tokens, and
how many the same up to the end of the turn, after which both write on; the first token that differs and by
how much transformers preferred its own. The reference is float32, and llama.cpp keeps keys and values in
float32 here (its default is float16).

`--plain-buffers` is llama.cpp's `--no-repack`: weights are not rearranged for the processor's matrix units.
On a virtual machine with AMX, llama.cpp crashed without it on every quantised file, others' too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from llama_cpp import GGML_TYPE_F32, Llama, llama_cpp

from medcare.adapters.loading import load_model, tokenizer_of
from medcare.export.gguf import Type, export_gguf
from medcare.foundation.storage import write_json
from medcare.text.chat_template import render_prompt
from medcare.text.records import Message

TEXTS = (
    "", " ", "  two  blanks ", "\ttab\tand\nline\r\nend\n\n", "   \n  \n x",
    "I'm sure it's we'll don't SHE'LL", "5 mg, 10mg, 0.5 µg/kg, 1,000,000 IU, 38.5 °C",
    "T2DM  12345678 2024-05-06 J45.909", "β-blocker α1 ≥ 140/90 ± ½",
    "Sjögren's, Ménière’s, Guillain–Barré, naïve", "e\u0301 decomposed, u\u0308 too",
    "患者无发热，既往有高血压病史。", "答案为B。血压140/90mmHg；心率80次/分", "発熱と咳 カタカナ ｶﾅ",
    "발열 기침", "Пациент: кашель", "مريض بالحمى", "बुखार और खांसी", "🩺💊 emoji 👩🏽‍⚕️ joined",
    "zero\u200bwidth\u00a0nbsp\u3000wide", "<|im_start|>user\nfever?<|im_end|>\n", "<|endoftext|>",
    "text<|im_end|>text", "<|im_start|><|im_start|>", "<|im_starting|> <im_end>",
    "<repo_name>x<jupyter_code>", "x" * 200, "ACGT" * 30, "a.b.c/d\\e_f-g",
    "https://example.org/?q=1&r=2#x", "{\"icd\": [\"R50.9\"]}", "    indented\n\tcode()",
    "1 22 333 4444 55555", " 1  2   3", "٣٤٥ Ⅳ ² ½ 𝟘", "ﬁ ligature ẞ ß İ ı", "\x00nul\x7fdel",
    "e^x → ∞ ≈ ∑", "--- *** ___ ...", "'s 't 'RE ''",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", help="whatever medcare export --format gguf reads")
    parser.add_argument("--data", type=Path, required=True, help="conversations (JSONL with messages)")
    parser.add_argument("--types", nargs="+", default=["f32", "f16", "q8_0"], choices=get_args(Type))
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--texts", type=int, default=160, help="of the data, beside the texts of this file")
    parser.add_argument("--new", type=int, default=64, help="tokens of a greedy answer")
    parser.add_argument("--plain-buffers", action="store_true")
    parser.add_argument("--out", type=Path, help="where to write the result")
    options = parser.parse_args()
    if options.plain_buffers:
        defaults = llama_cpp.llama_model_default_params()
        defaults.use_extra_bufts = False
        llama_cpp.llama_model_default_params = lambda: defaults  # Llama has no argument for it
    rows = [json.loads(line) for line in options.data.read_text(encoding="utf-8").splitlines()]
    contents = [row["messages"][-2]["content"] for row in rows]
    result = {name: compare(name, contents, options) for name in options.models}
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


def compare(name: str, contents: list[str], options: argparse.Namespace) -> dict[str, Any]:
    tokenizer = tokenizer_of(name)
    model = load_model(name, device="cpu", dtype="float32", noise=False)
    step = max(1, len(contents) // options.prompts)
    chosen = contents[::step][: options.prompts]
    prompts = [render_prompt(tokenizer, [Message("user", content)]) for content in chosen]
    expected = [reference(model, prompt, options.new) for prompt in prompts]
    del model
    texts = [*TEXTS, *contents[:: max(1, len(contents) // options.texts)][: options.texts]]
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.types:
            path = export_gguf(name, Path(folder) / kind, kind).path
            found[kind] = measure(path, tokenizer, texts, prompts, expected, options.new)
            found[kind]["bytes"] = path.stat().st_size
            path.unlink()
            print(name, kind, found[kind], flush=True)
    return found


@torch.no_grad()
def reference(model: Any, prompt: list[int], new: int) -> tuple[np.ndarray, list[int], np.ndarray]:
    """Logits of the prompt [s, v], the greedy answer, and by how much its tokens led the second ones."""
    logits = model(torch.tensor([prompt])).logits[0].numpy()
    done = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=new,
        do_sample=False,
        eos_token_id=None,  # llama.cpp's answer is not stopped either
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(done.logits).squeeze(1).topk(2).values
    return logits, done.sequences[0, len(prompt) :].tolist(), (best[:, 0] - best[:, 1]).numpy()


def measure(
    path: Path, tokenizer: Any, texts: list[str], prompts: Any, expected: Any, new: int
) -> dict[str, Any]:
    llama = Llama(
        str(path), n_ctx=1024, n_batch=1024, n_ubatch=1024, n_threads=1, n_threads_batch=1, logits_all=True,
        type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32, verbose=False,
    )  # fmt: skip
    other = [
        text
        for text in texts
        if llama.tokenize(text.encode(), add_bos=True, special=True) != tokenizer(text)["input_ids"]
    ]
    worst, rms, diverged, same, top, answered = 0.0, [], [], 0, [], 0
    for prompt, (logits, answer, lead) in zip(prompts, expected, strict=True):
        llama.reset()
        llama.eval(prompt)
        got = np.array(llama.scores[: len(prompt)])
        worst = max(worst, float(np.abs(got - logits).max()))
        rms.append(float(((got - logits) ** 2).mean()))
        top.append(float((got.argmax(1) == logits.argmax(1)).mean()))
        written: list[int] = []
        while len(written) < new:
            written.append(int(np.argmax(llama.scores[llama.n_tokens - 1])))
            llama.eval(written[-1:])
        end = answer.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in answer else new
        answered += written[:end] == answer[:end]
        if written == answer:
            same += 1
        else:
            place = next(index for index, (a, b) in enumerate(zip(written, answer, strict=True)) if a != b)
            diverged.append({"token": place, "lead": round(float(lead[place]), 4)})
    return {
        "texts": len(texts),
        "texts_of_other_tokens": other,
        "prompts": len(prompts),
        "largest_logit_difference": round(worst, 6),
        "rms_logit_difference": round(float(np.sqrt(np.mean(rms))), 6),
        "same_top_token": round(float(np.mean(top)), 4),
        "same_greedy_answers": same,
        "same_to_the_end_of_the_turn": answered,
        "first_other_token": diverged,
    }


if __name__ == "__main__":
    main()
