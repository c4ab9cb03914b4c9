"""Uploading an exported folder to the Hugging Face hub: only what is meant for others, looked at beforehand.

A folder also holds what is not: config.yaml and manifest.json name local paths and data, logs and predictions
may quote patients. So files go by a list of what may, and anything else stops the upload.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from medcare.adapters.peft_files import AdapterFile
from medcare.export.card import CARD, EMBEDDED_HUB_ID
from medcare.foundation.commands import command
from medcare.foundation.contents import MANIFEST, manifest_of
from medcare.foundation.errors import AdapterError, FolderError, MedCareError, first_line
from medcare.foundation.hub import HubName
from medcare.foundation.locks import LOCK
from medcare.foundation.outside import held_to, read_object
from medcare.foundation.paths import missing
from medcare.settings.config import EMBEDDED
from medcare.settings.files import parsed
from medcare.settings.run_folder import CONFIG, PEFT_CONFIG

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

_NOTICE = "not a medical device"
_PRIVATE = {CONFIG, MANIFEST, LOCK}  # every export has them: left behind
_SENT = re.compile(
    r"README\.md|LICENSE|[\w.-]*\.gguf|[\w-]*\.safetensors(\.index\.json)?|(generation_|adapter_)?config\.json|"
    r"tokenizer[\w-]*\.json|(special_tokens_map|added_tokens|vocab|((video_)?pre)?processor_config)\.json|"
    r"(vocab|merges)\.txt|[\w.-]*\.model|chat_template\.jinja"
)
_LOCAL = re.compile(
    r"""(?:file:/|~/|(?<![\w.:/<-])/[\w.-]+/)[^"'\s`)]+|"""  # no URL's path, which follows a host's name
    r"""\b[A-Za-z]:[\\/]+Users[^"'\s`)]+|"[A-Za-z]:(?:\\\\|/)[^"]+"""
)


class PushError(MedCareError):
    """The hub did not take the folder."""

    exit_code = 9


@dataclass(frozen=True)
class Upload:
    """What would be sent.

    Attributes:
        folder: where it lies.
        repo: `owner/name`.
        files: names in the folder, and their sizes in bytes.
        kept: names in the folder that are not sent.
        licence: as the card says.
        base: the base model, as the card says.
    """

    folder: Path
    repo: str
    files: dict[str, int]
    kept: list[str]
    licence: str
    base: str


def prepare(folder: Path, repo: str) -> Upload:
    """Look at everything that would be sent; nothing is sent.

    Raises:
        FolderError: the folder is no finished export, has no card with the research notice, holds files that
            are not for others, or names local paths.
        PushError: `repo` is no `owner/name`.
    """
    _check_name(repo)
    if not folder.is_dir():
        raise FolderError(f"{missing(folder, 'folder')}. Give one that medcare export or merge wrote.")
    kinds = ("config.json", PEFT_CONFIG, "*.gguf")
    if not any(path.is_file() for kind in kinds for path in folder.glob(kind)):
        raise FolderError(
            f"{folder} is no exported model. Write one first, or merge: "
            + command("export", folder, "--out", "DIR")
        )
    if not (folder / MANIFEST).is_file():
        raise FolderError(f"{folder} is not finished ({MANIFEST} is missing). Export it again.")
    names = sorted(path.name for path in folder.iterdir() if path.name not in _PRIVATE)
    foreign = [name for name in names if not _SENT.fullmatch(name) or not _is_own_file(folder / name)]
    if foreign:
        raise FolderError(
            f"{folder} holds what is not sent to a hub: {', '.join(foreign[:5])}. Move it elsewhere."
        )
    front = _front_matter(folder)
    for name in names:
        if Path(name).suffix in (".json", ".md", ".jinja") or name == "LICENSE":
            text = json.dumps(_adapter(folder)) if name == PEFT_CONFIG else _read(folder / name)
            _check_local(folder / name, text)
    adapter = _public_adapter(folder)
    files = {name: (folder / name).stat().st_size for name in names}
    if adapter is not None:
        files[PEFT_CONFIG] = len(adapter)
    kept = sorted(_PRIVATE & {path.name for path in folder.iterdir()})
    return Upload(folder, repo, files, kept, str(front["license"]), str(front["base_model"]))


def push(upload: Upload, *, private: bool = True) -> str:
    """Create the repository, if there is none, and send the files in one commit.

    Args:
        upload: of `prepare`.
        private: of a repository that is created now; one that is there and public is then refused.

    Returns:
        The address of the commit.

    Raises:
        PushError: there is no login, no permission or no connection, or the repository is public.
        FolderError: adapter_config.json was changed meanwhile.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(upload.repo, private=private, exist_ok=True)
        if private and not api.model_info(upload.repo).private:
            raise PushError(f"{upload.repo} is there and public. Add --public, or give another name.")
        commit = api.create_commit(
            upload.repo, operations=_additions(upload), commit_message="Upload of a MedCare model"
        )
    except LocalTokenNotFoundError as error:
        raise PushError("No login for the hub. Run: hf auth login, or set HF_TOKEN.") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        advice = {
            401: "Run: hf auth login, or set HF_TOKEN",
            403: "The token may not write there",
            404: "Check the name",
        }.get(status or 0, "Try again later")
        raise PushError(f"The hub refused {upload.repo} (HTTP {status}). {advice}.") from error
    except (HTTPError, OSError) as error:  # no connection, or a file that went away
        raise PushError(f"The hub could not be reached: {first_line(error)}. Try again later.") from error
    return str(commit.commit_url)


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PushError(f"{first_line(error)}. Give owner/name.") from error
    if "/" not in repo:
        raise PushError(f"'{repo}' names no owner. Give owner/name.")


def _is_own_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()  # a link may lead to anything on this machine


def _public_adapter(folder: Path) -> bytes | None:
    """adapter_config.json as others can use it; None for a whole model.

    Raises:
        FolderError: its base is nothing that others can load.
    """
    if not (folder / PEFT_CONFIG).is_file():
        return None
    base = str((tree := _adapter(folder)).get("base_model_name_or_path"))
    if HubName.of(base) is None:
        raise FolderError(
            f"{folder / PEFT_CONFIG} has the base '{base}', which others can't load. "
            "Put the base's hub id, owner/name, at base_model_name_or_path."
        )
    return json.dumps(tree, indent=2).encode()


def _adapter(folder: Path) -> dict[str, object]:
    """adapter_config.json; the embedded base, a folder of this machine's cache, under its hub id."""
    tree = read_object(folder / PEFT_CONFIG, AdapterError)
    named = held_to(tree, AdapterFile, str(folder / PEFT_CONFIG), AdapterError).base_model_name_or_path
    embedded = manifest_of(folder).get("base") == EMBEDDED and HubName.of(str(named)) is None
    if embedded or named == EMBEDDED:
        tree["base_model_name_or_path"] = EMBEDDED_HUB_ID
    return tree


def _additions(upload: Upload) -> list[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    adapter = _public_adapter(upload.folder)
    return [
        CommitOperationAdd(name, adapter if name == PEFT_CONFIG and adapter else upload.folder / name)
        for name in upload.files
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FolderError(f"{path} is no UTF-8 text. Export it again.") from error


def _front_matter(folder: Path) -> dict[str, object]:
    path = folder / CARD
    text = _read(path) if path.is_file() else ""
    if _NOTICE not in text.lower():
        raise FolderError(
            f"{path} is missing or does not say that the model is not a medical device. Export it again."
        )
    parts = text.split("---\n", 2)
    try:
        front = parsed(parts[1]) if len(parts) == 3 and not parts[0] else None
    except (yaml.YAMLError, ValueError, RecursionError):
        front = None
    lacking = [key for key in ("license", "base_model") if not (isinstance(front, dict) and front.get(key))]
    if lacking:
        raise FolderError(f"{path} lacks {' and '.join(lacking)} in its front matter. Add it.")
    assert isinstance(front, dict)
    return front


def _check_local(path: Path, text: str) -> None:
    """A path of this machine tells who made a model, and nobody else can follow it."""
    if path.name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        return  # words, among which anything may be
    found = _LOCAL.search(text)
    if found:
        raise FolderError(f"{path} names a path of this machine, {found[0]}. Put a hub id in its place.")
