"""Commands that hand a model to other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medcare.cli.next_step import Next, options
from medcare.foundation.errors import ConfigError
from medcare.settings.config import one_of

commands = typer.Typer()

Out = Annotated[Path, typer.Option("--out", help="Folder to write.")]


@commands.command(
    epilog="Example: medcare convert checkpoint --base Qwen/Qwen1.5-1.8B-Chat --out runs/converted"
)
def convert(
    folder: Annotated[
        Path, typer.Argument(help="A checkpoint of the reference code (stage 1 or 2), or a PEFT LoRA folder.")
    ],
    base: Annotated[str, typer.Option(help="The base model that it was trained on.")],
    out: Out,
    attention: Annotated[
        Path | None,
        typer.Option(
            help="Of stage 2: the stage-1 checkpoint whose attention had been merged into the base."
        ),
    ] = None,
) -> Next:
    """Turn a checkpoint of the method's reference code, or a foreign LoRA, into a stage folder."""
    from medcare.export.conversion import convert as convert_folder

    stage = convert_folder(folder, base, out, attention=attention)
    typer.echo(f"Wrote {out}, a folder of stage {stage}.")
    if stage == "align":
        return ["merge", out, "--out", f"{out}-model"]
    return ["train", "--stage", "align", "--from", out, "--data", "DATA.jsonl", "--out", f"{out}-align"]


@commands.command(epilog="Example: medcare export runs/demo --format gguf --out gguf")
def export(
    folder: Annotated[
        Path, typer.Argument(help="A stage or run folder; for gguf also a merged folder or a base model.")
    ],
    out: Out,
    format_: Annotated[str, typer.Option("--format", help="merged, lora or gguf.")] = "merged",
    parts: Annotated[
        str | None, typer.Option(help="Of a LoRA: knowledge, alignment, or both (default) in one adapter.")
    ] = None,
    uniform: Annotated[
        bool, typer.Option("--uniform", help="Of a LoRA: one rank for all modules, as vLLM wants it.")
    ] = False,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="Of gguf: f32, f16 (default), bf16, q8_0; by llama.cpp q6_k to q2_k."),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of merged: float32, bfloat16 or float16; default: the base's.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Where the base is now, if it has moved.")] = None,
) -> Next:
    """Write a model for other programs: a plain model folder, a PEFT LoRA or a GGUF file, with a card."""
    given: dict[str, object] = {
        "--parts": parts,
        "--uniform": uniform or None,
        "--type": type_,
        "--dtype": dtype,
    }
    _check_options(format_, given)
    if format_ == "merged":
        from medcare.export.merged import merge

        merge(folder, out, base=base, dtype=dtype)
        typer.echo(f"Wrote {out}. Load it with AutoModelForCausalLM.from_pretrained.")
    elif format_ == "lora":
        from medcare.export.lora import PARTS, export_lora

        chosen = one_of(parts or "both", PARTS, "--parts")
        rank = export_lora(folder, out, parts=chosen, uniform=uniform, base=base)
        typer.echo(f"Wrote {out}, rank {rank}. Load it with peft.PeftModel.from_pretrained.")
    else:
        from medcare.export.gguf import TYPES, export_gguf

        written = export_gguf(folder, out, one_of(type_ or "f16", TYPES, "--type"), base=base)
        for note in written.notes:
            typer.echo(note)
        typer.echo(f"Wrote {written.path}. Load it with llama-server --model, or with Ollama.")
    return ["push", out, "OWNER/NAME", "--dry-run"]


def _check_options(format_: str, options: dict[str, object]) -> None:
    """Refuse a format that there is not, and options of another one, which would do nothing."""
    own = {"merged": ("--dtype",), "lora": ("--parts", "--uniform"), "gguf": ("--type",)}
    if format_ not in own:
        raise ConfigError(f"--format must be merged, lora or gguf, got '{format_}'.")
    for name, value in options.items():
        if value is not None and name not in own[format_]:
            of = next(other for other, names in own.items() if name in names)
            raise ConfigError(f"{name} goes with --format {of} only, got --format {format_}. Leave one out.")


@commands.command(epilog="Example: medcare push model owner/name --dry-run")
def push(
    folder: Annotated[Path, typer.Argument(help="What export or merge wrote.")],
    repo: Annotated[str, typer.Argument(help="Repository on the hub, owner/name.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is public; default: private.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> Next:
    """Send an exported model with its card to the Hugging Face hub."""
    from medcare.export.push import prepare
    from medcare.export.push import push as send

    upload = prepare(folder, repo)
    for name, size in upload.files.items():
        typer.echo(f"{size:>15,}  {name}")
    kind = "public" if public else "private"
    typer.echo(f"{sum(upload.files.values()):>15,}  bytes to {repo} ({kind}, if it is new)")
    typer.echo(f"Not sent: {', '.join(upload.kept)}.")
    typer.echo(f"Card: base {upload.base}, licence {upload.licence}, research notice there.")
    again: Next = ["push", folder, repo, *options("--public", public)]
    if dry_run:
        typer.echo("Nothing was sent.")
        return again
    if not yes and not sys.stdin.isatty():
        raise ConfigError("Sending asks first, and nobody is there to answer: add --yes, or --dry-run.")
    if not yes and not typer.confirm("Send it?"):
        typer.echo("Nothing was sent.")
        return again
    typer.echo(f"Sent: {send(upload, private=not public)}")
    return ["chat", repo if (folder / "config.json").is_file() else folder]
