"""A made-up run folder of the size of a real one: 28 tasks, three models, both stages' metrics.

Nothing in it was measured: skills, losses and loads are drawn from a fixed seed.
To look at its report: `python -m tests.evaluation.made_up_run FOLDER`.
"""

from __future__ import annotations

import math
import random
import sys
from dataclasses import asdict
from pathlib import Path

import yaml

from medcare.data.task import Task
from medcare.foundation.storage import write_json, write_jsonl, write_text
from medcare.settings.config import RunConfig
from medcare.text.records import Item

TERMS = (
    "Arachnodactyly", "Bradycardia", "Cataract", "Dysarthria", "Exostoses", "Focal seizure", "Glaucoma",
    "Hepatomegaly", "Ichthyosis", "Joint hypermobility", "Keratoconus", "Leukopenia", "Microcephaly",
    "Nystagmus", "Optic atrophy", "Ptosis", "Retinal detachment", "Scoliosis", "Tinnitus", "Uveitis",
    "Ventricular septal defect", "Webbed neck", "Xerostomia", "Hyperkalemia", "Spastic paraplegia",
)  # fmt: skip
LABELS = ("cause", "diagnosis", "prevention", "treatment", "prognosis")
KNOWLEDGE = (
    "definition_to_finding", "disease_to_finding", "disease_to_gene", "gene_to_disease", "finding_to_parent",
    "odd_one_out", "synonym", "code_to_description", "description_to_code", "code_to_chapter",
    "inclusion_term_to_code", "excluded_here", "code_block", "finding_to_system", "lay_term", "true_or_false",
)  # fmt: skip
ALIGNMENT = {
    "entity_extraction": "list", "typed_entities": "typed_list", "relation_triples": "tuples",
    "normalisation": "list", "event_attributes": "tuples", "intent": "label", "sentence_category": "label",
    "sentence_pair": "label", "query_relevance": "label", "symptom_status": "typed_list",
    "section": "label", "dialogue_report": "text",
}  # fmt: skip
SKILL = {
    "base": (0.27, 0.26, 0.04),
    "aggregate": (0.74, 0.33, 0.22),
    "align": (0.72, 0.34, 0.66),
    "aggregate_with_noise": (0.70, 0.30, 0.24),
}
MODELS = ("base", "aggregate", "align")
LAYERS, EXPERTS, PROJECTIONS = 30, 8, ("gate_proj", "up_proj", "down_proj")
HOSTILE = 'a <b>bold</b> <script>alert(1)</script> & "quotes" \x00\x1b[31m \u202e reversed'


def cards() -> list[Task]:
    found = [
        Task(
            name,
            "knowledge",
            "label" if name == "true_or_false" else "options",
            "accuracy",
            "Recalls a fact that was taught in another wording, among near misses.",
            "HPO 2025-05-06",
            labels=("true", "false") if name == "true_or_false" else (),
            chance=0.5 if name == "true_or_false" else 0.25,
        )
        for name in KNOWLEDGE
    ]
    metrics = {"label": "macro_f1", "text": "rouge_l"}
    labels = {"label": LABELS, "typed_list": ("symptom", "disease")}
    return found + [
        Task(
            name,
            "alignment",
            form,
            metrics.get(form, "micro_f1"),
            "Answers in a strict form.",
            "Sentences over HPO terms",
            labels=labels.get(form, ()),
        )
        for name, form in ALIGNMENT.items()
    ]


def target(form: str, draw: random.Random, labels: tuple[str, ...]) -> str:
    a, b, c, d = draw.sample(TERMS, 4)
    return {
        "label": lambda: draw.choice(labels),
        "list": lambda: f"{a}; {b}; {c}",
        "typed_list": lambda: f"symptom: {a}, {b}; disease: {c}",
        "tuples": lambda: f"({a} | sign of | {b}); ({c} | excludes | {d})",
        "text": lambda: (
            f"The patient reports {a.lower()} and {b.lower()} for two weeks, without {c.lower()}."
        ),
    }[form]()


def items(per_split: int, seed: int = 1) -> list[Item]:
    draw = random.Random(seed)
    found = []
    for card in cards():
        for number in range(2 * per_split):
            options = tuple(draw.sample(TERMS, 4)) if card.form == "options" else ()
            right = draw.randrange(4)
            found.append(
                Item(
                    id=f"{card.name}-{number}",
                    task=card.name,
                    family=card.family,
                    split="taught" if number < per_split else "held_out",
                    fact=f"HP:{number:07}/{card.name}",
                    prompt=f"Which finding is meant? One of the {draw.choice(TERMS).lower()} kind, "
                    f"seen in {draw.choice(TERMS).lower()}.\nAnswer with its name. ({number})",
                    options=options,
                    answers=(right,) if options else (),
                    target=options[right] if options else target(card.form, draw, card.labels),
                )
            )
    return found


def prediction(item: Item, card: Task, model: str, draw: random.Random) -> dict[str, object]:
    taught, held_out, form = SKILL.get(model, SKILL["align"])
    skill = taught if item.split == "taught" else held_out
    if item.options:
        wanted = item.answers[0] if draw.random() < (skill - 0.25) / 0.75 else draw.randrange(4)
        size = [len(option.encode()) for option in item.options]
        per_byte = [-draw.uniform(0.5, 1.3) + (1.5 * skill if n == wanted else 0) for n in range(4)]
        return {
            "id": item.id,
            "log_likelihoods": [round(a * b, 5) for a, b in zip(per_byte, size, strict=True)],
            "bytes": size,
        }
    skill = max(skill, 0.5) if card.family == "knowledge" else form
    chance = draw.random()
    if chance < skill:
        text = item.target
    elif chance < skill + (1 - skill) * (0.9 if model == "align" else 0.35):
        text = target(card.form, draw, card.labels)
    else:
        text = "The answer is probably: " + ", ".join(draw.sample(TERMS, 3)) + "\n\n1. This is because"
    return {"id": item.id, "text": text}


def metrics(stage: str, steps: int, layers: int, seed: int = 3) -> list[dict[str, object]]:
    draw = random.Random(seed)
    bias = {
        f"model.layers.{layer}.mlp.{name}": [draw.lognormvariate(0, 0.5) for _ in range(EXPERTS)]
        for layer in range(layers)
        for name in PROJECTIONS
    }
    rows = []
    for number in range(1, steps + 1):
        done = number / steps
        row: dict[str, object] = {
            "step": 10 * number,
            "loss": (2.6 if stage == "aggregate" else 1.7) * math.exp(-3 * done) + 0.2 + draw.gauss(0, 0.04),
            "grad_norm": 1.1 + draw.random(),
            "tokens_per_second": 230 + draw.gauss(0, 6),
            "supervised_tokens": 900,
            "elapsed": 8.0 * number,
            "memory_gib": 2.2 + 0.3 * min(1.0, 2 * done),
            "learning_rate": 5e-4 * 0.5 * (1 + math.cos(math.pi * done)),
        }
        if stage == "align":
            row |= {
                "orthogonality": 40 * math.exp(-5 * done) + 0.3,
                "cosine": 0.04 * math.exp(-4 * done) + 0.001,
            }
        else:
            row["router_load"] = {
                name: [round(v / sum(values), 4) for v in values] for name, values in bias.items()
            }
        rows.append(row)
    return rows


def write_run(
    folder: Path,
    *,
    per_split: int = 16,
    models: tuple[str, ...] = MODELS,
    steps: int = 60,
    layers: int = LAYERS,
    hostile: bool = False,
) -> Path:
    """Write everything that the pipeline leaves before it scores."""
    tests = items(per_split)
    by_name = {card.name: card for card in cards()}
    write_jsonl(folder / "data/items.jsonl", [asdict(item) for item in tests])
    hits = {"exact": 0, "normalised": 0, "ngram": 0, "near": 0}
    overlap = {"n": 13, "train_rows": 5120, "test_rows": len(tests), "short_tests": 41}
    overlap |= {"train_hits": hits, "test_hits": hits, "leaked_tests": []}
    counts = {"aggregate": 3072, "align": 2048, "items": len(tests)}
    write_json(
        folder / "data/benchmark.json",
        {"cards": [card.to_dict() for card in by_name.values()], "overlap": overlap, "counts": counts},
    )
    for model in models:
        draw = random.Random(f"{model} 5")
        rows = [prediction(item, by_name[item.task], model, draw) for item in tests]
        if hostile:
            rows[-1]["text"] = HOSTILE
        write_jsonl(folder / "evaluation" / model / "predictions.jsonl", rows)
    write_text(folder / "config.yaml", yaml.safe_dump({**RunConfig().to_dict(), "stage": "run"}))
    if set(MODELS) <= set(models):
        _write_training(folder, steps, layers)
    return folder


def _write_training(folder: Path, steps: int, layers: int) -> None:
    facts = {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": layers,
    }
    for stage, seconds in (("aggregate", 510.0), ("align", 290.0)):
        write_jsonl(folder / stage / "metrics.jsonl", metrics(stage, steps, layers))
        result = {"steps": 10 * steps, "loss": 0.21, "seconds": seconds, "tokens": 121_000}
        write_json(folder / stage / "manifest.json", {"stage": stage, "base_facts": facts, "result": result})
    phases = {"data": 9.5, "evaluate base": 95.2, "aggregate": 512.0, "evaluate aggregate": 97.1}
    phases |= {"align": 293.4, "merge": 4.1, "evaluate align": 74.0}
    write_json(folder / "phases.json", phases)
    manifest = {"stage": "run", "base": "embedded", "phases": phases, "data": {"items.jsonl": "ab" * 32}}
    manifest |= {"seed": 17, "versions": {"python": "3.11.9", "medcare": "0.1.0", "torch": "2.13.0+cpu"}}
    write_json(
        folder / "manifest.json", {**manifest, "git_commit": "0123456789abcdef0123456789abcdef01234567"}
    )


if __name__ == "__main__":
    from medcare.evaluation.results import write_results
    from medcare.reports import write_report

    write_results(write_run(Path(sys.argv[1])))
    print(write_report(Path(sys.argv[1])))
