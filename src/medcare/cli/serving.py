"""Commands that use a model: one question, a chat, a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from medcare.cli.next_step import Next, options
from medcare.foundation.commands import argument
from medcare.foundation.errors import ConfigError
from medcare.settings.keys import read_key

commands = typer.Typer()

Model = Annotated[str, typer.Argument(help="A run, stage, merged or PEFT folder, or a base name.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, or spread over all GPUs.")]
Base = Annotated[
    str | None, typer.Option(help="Where the base of a stage or adapter folder is now, if it has moved.")
]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Template = Annotated[
    str,
    typer.Option(
        "--chat-template", metavar="FILE", help="A chat template to use instead of the model's own."
    ),
]
Temperature = Annotated[
    float, typer.Option(min=0, max=2, help="0 takes the most likely token; more varies more.")
]


@commands.command(epilog='Example: medcare ask runs/demo "What is fever?"')
def ask(
    model: Model,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 128,
    base: Base = None,
    chat_template: Template = "",
) -> Next:
    """Put one question to a model. For research only, never for clinical decisions."""
    if not question.strip():
        raise ConfigError('The question is empty. Ask something, as in: medcare ask MODEL "What is fever?"')
    from medcare.generation.sampling import Sampling
    from medcare.serving.chat import Chat, PipedTerminal
    from medcare.serving.served_model import load_one

    served = load_one(model, model, device="auto", dtype="auto", base=base, chat_template=chat_template)
    Chat(served, Sampling(max_new_tokens), PipedTerminal()).answer(question)
    return ["chat", argument(model), *options("--base", base), *options("--chat-template", chat_template)]


@commands.command(epilog="Example: medcare chat runs/demo --temperature 0.7")
def chat(
    model: Model,
    system: Annotated[str, typer.Option(help="What the model is told before the conversation.")] = "",
    temperature: Temperature = 0.0,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1, help="Draw from the likeliest tokens with this probability.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Draw from this many likeliest tokens; 0: all.")] = 0,
    seed: Annotated[int | None, typer.Option(help="Of the draws; the same gives the same answers.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    base: Base = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    chat_template: Template = "",
) -> Next:
    """Talk to a model in the terminal, or answer the lines that are piped in. For research only."""
    from medcare.generation.sampling import Sampling
    from medcare.serving.chat import Chat, PipedTerminal, RichTerminal
    from medcare.serving.served_model import load_served

    served = load_served(
        [model], device=device, dtype=_checked(dtype), base=base, chat_template=chat_template
    )[0]
    sampling = Sampling(max_new_tokens, temperature, top_k, top_p, seed)
    terminal = RichTerminal() if sys.stdin.isatty() and sys.stdout.isatty() else PipedTerminal()
    Chat(served, sampling, terminal, system).run()
    return ["serve", argument(model), *options("--base", base), *options("--chat-template", chat_template)]


@commands.command(epilog="Example: medcare serve runs/demo --reports runs")
def serve(
    models: Annotated[list[str], typer.Argument(help="FOLDER or NAME=FOLDER; each as for `chat`.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    api_key_env: Annotated[
        str, typer.Option(metavar="NAME", help="The environment variable that holds the API key.")
    ] = "",
    reports: Annotated[
        Path | None,
        typer.Option(help="A folder of runs, which the page shows: live, their reports, their questions."),
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Most answers written at once, by model.")] = 16,
    max_waiting: Annotated[int, typer.Option(min=0, help="Most answers waiting, by model.")] = 64,
    cache_tokens: Annotated[
        int, typer.Option(min=16, help="Most tokens in a model's cache, and so in a prompt and its answer.")
    ] = 32768,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer, where a request does not say.")
    ] = 512,
    allow_origin: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A page elsewhere that may ask; may be repeated.")
    ] = None,
    drain_seconds: Annotated[int, typer.Option(min=0, help="How long answers may take at the end.")] = 60,
    base: Base = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    chat_template: Template = "",
) -> Next:
    """Serve models with OpenAI's API and a web page. For research only, never for clinical decisions."""
    try:
        from medcare.page.routes import page_routes
        from medcare.serving.server import serve as serve_models
        from medcare.serving.service import Limits, Service
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The server needs the package {error.name}. Install it with: pip install 'medcare[serve]'"
        ) from error
    from medcare.serving.served_model import load_served

    key = read_key(api_key_env, "--api-key-env") or None
    loaded = load_served(
        models,
        device=device,
        dtype=_checked(dtype),
        base=base,
        chat_template=chat_template,
        max_rows=max_rows,
        cache_tokens=cache_tokens,
    )
    service = Service(loaded, Limits(waiting=max_waiting, new_tokens=max_new_tokens))
    serve_models(
        service,
        host=host,
        port=port,
        api_key=key,
        routes=page_routes(service, reports),
        drain_seconds=drain_seconds,
        origins=_origins(allow_origin or []),
    )
    return ["chat", argument(models[0].partition("=")[2] or models[0]), *options("--base", base)]


def _origins(given: list[str]) -> list[str]:
    for url in given:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme not in ("http", "https") or not parts.netloc or url != origin:
            raise ConfigError(
                "--allow-origin takes what a browser calls an origin, such as https://example.org, "
                f"got '{url}'."
            )
    return given


def _checked(dtype: str) -> str:
    if dtype not in ("auto", "float32", "bfloat16"):
        raise typer.BadParameter(
            f"'{dtype}' is no dtype. Choose auto, float32 or bfloat16.", param_hint="--dtype"
        )
    return dtype
