"""The files of a base: a folder, or a repository on a hub, which becomes a folder of the cache.

Everything but weights is fetched first, so that it can be looked at before a library reads it.
"""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Collection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm.auto import tqdm  # type: ignore[import-untyped]

from medcare.foundation.hub import HubName
from medcare.models.model_files import weight_names

_SETTINGS = ("*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")
_BELOW = tuple(f"*/*{ending}" for ending in (".json", ".model", ".tiktoken", ".txt", ".safetensors"))
"""Below a repository's top folder lie its other formats, with tokenizers of their own; but templates, too."""


def settings_of(source: str) -> tuple[str, Path]:
    """A base's settings, tokenizer and templates.

    Args:
        source: a folder, or a name on a hub.

    Returns:
        The source, a name at the commit that it has now; and the folder of its files.

    Raises:
        Exception: what huggingface_hub raises for a repository that can't be had.
    """
    name = _name(source)
    if name is None:
        return source, Path(source)
    folder = _fetched(name, _SETTINGS, _NoBar)
    return str(name.at(folder.name)), folder  # the cache calls it by its commit


def weights_of(source: str) -> Path:
    """The folder of a base's files, its weights among them; arguments and errors as `settings_of`."""
    source, folder = settings_of(source)
    if (name := _name(source)) is None:
        return folder
    return _fetched(name, weight_names(folder))


def own_folder(source: str | None) -> Path | None:
    """The folder of a base's settings as they came; None for a model made in memory, or out of reach."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if not source or not (Path(source).is_dir() or _name(source)):
        return None
    try:
        return settings_of(source)[1]
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        return None


def refusal_of(error: BaseException) -> str:
    """Why the hub gives nothing, and what helps; empty for other errors.

    What its client says is advice for who writes programs.
    """
    from huggingface_hub import errors

    reasons: dict[type[BaseException], str] = {
        errors.GatedRepoError: "its owners ask for consent first: accept their terms on its page at the hub, "
        "then log in with `hf auth login`",
        errors.RepositoryNotFoundError: "the hub has no such repository, or shows it to its owners alone: "
        "log in with `hf auth login`",
        errors.RevisionNotFoundError: "its repository has no such branch, tag or commit",
        errors.LocalEntryNotFoundError: "the hub can't be reached from here, and the cache holds no copy",
    }
    return next((reason for kind, reason in reasons.items() if isinstance(error, kind)), "")


def _name(source: str) -> HubName | None:
    return None if Path(source).is_dir() else HubName.of(source)


class _NoBar(tqdm):  # type: ignore[misc]  # it has no types
    """Files of settings come in no time, and are asked for again and again."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **{**keywords, "disable": True})


def _fetched(name: HubName, patterns: Collection[str], bar: type[tqdm] | None = None) -> Path:
    """The folder in the cache of a repository's state, which has what the patterns name."""
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            name.repository,
            revision=name.revision,
            allow_patterns=list(patterns),
            ignore_patterns=list(_BELOW),
            local_files_only=_is_out_of_reach(),
            tqdm_class=bar,
        )
    )


def _is_out_of_reach() -> bool:
    """Whether there is no way to the hub, which would be tried for 30 s: only the cache can serve."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if urllib.request.getproxies():
        return False  # it is the proxy that knows the way
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (443 if hub.scheme == "https" else 80)
    try:
        socket.create_connection((hub.hostname, port), timeout=5).close()
    except OSError:
        return True
    return False
