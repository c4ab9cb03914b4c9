"""Uploading an exported folder to the Hugging Face hub: only what is meant for others, looked at beforehand.

A folder also holds what is not: config.yaml and manifest.json name local paths and data, logs and predictions
may quote patients. So files go by a list of what may, and anything else stops the upload.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from medcare.errors import FolderError, MedCareError
from medcare.export.card import CARD
from medcare.folders import CONFIG, MANIFEST

_NOTICE = "not a medical device"
_PRIVATE = {CONFIG, MANIFEST, ".lock"}  # left behind without a word of complaint
_SENT = re.compile(
    r"README\.md|LICENSE|config\.json|generation_config\.json|adapter_config\.json|[\w-]*\.safetensors|"
    r"[\w-]*\.safetensors\.index\.json|tokenizer[\w-]*\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|"
    r"vocab\.txt|merges\.txt|tokenizer\.model|chat_template\.jinja|[\w.-]*\.gguf"
)
_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LOCAL = re.compile(
    r'(?:(?<=["\'\s`(])(?:/(?:home|root|Users|work|tmp|mnt|data)/|~/)|[A-Za-z]:\\\\)[^"\'\s`)]*'
)


class PushError(MedCareError):
    """The hub did not take the folder."""

    exit_code = 11


@dataclass(frozen=True)
class Upload:
    """What would be sent.

    Attributes:
        folder: where it lies.
        repo: `owner/name`.
        files: names in the folder, and their sizes in bytes.
        licence: as the card says.
        base: the base model, as the card says.
    """

    folder: Path
    repo: str
    files: dict[str, int]
    licence: str
    base: str


def prepare(folder: Path, repo: str) -> Upload:
    """Look at everything that would be sent; nothing is sent.

    Raises:
        FolderError: the folder is no finished export, has no card with the research notice, holds files that
            are not for others, or names local paths.
        PushError: `repo` is no `owner/name`.
    """
    if not _REPO.fullmatch(repo):
        raise PushError(f"'{repo}' is no name of a repository on the hub. Give owner/name.")
    if not folder.is_dir():
        raise FolderError(f"There is no folder {folder}. Give one that medcare export or merge wrote.")
    if not ((folder / "config.json").is_file() or (folder / "adapter_config.json").is_file()):
        raise FolderError(
            f"{folder} is no exported model. Write one first: medcare export {folder} --out DIR, or merge."
        )
    if not (folder / MANIFEST).is_file():
        raise FolderError(f"{folder} is not finished ({MANIFEST} is missing). Export it again.")
    names = sorted(path.name for path in folder.iterdir() if path.name not in _PRIVATE)
    foreign = [name for name in names if not _SENT.fullmatch(name) or not (folder / name).is_file()]
    if foreign:
        raise FolderError(
            f"{folder} holds what is not sent to a hub: {', '.join(foreign[:5])}. Move it elsewhere."
        )
    front = _front_matter(folder)
    for name in names:
        if Path(name).suffix in (".json", ".md"):
            _check_local(folder / name)
    files = {name: (folder / name).stat().st_size for name in names}
    return Upload(folder, repo, files, str(front["license"]), str(front["base_model"]))


def push(upload: Upload, *, private: bool = True) -> str:
    """Create the repository, if there is none, and send the files in one commit.

    Args:
        upload: of `prepare`.
        private: of a repository that is created now.

    Returns:
        The address of the commit.

    Raises:
        PushError: there is no login, no permission or no connection.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(upload.repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=upload.repo,
            folder_path=upload.folder,
            allow_patterns=list(upload.files),
            commit_message="Upload of a MedCare model",
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
    except OSError as error:  # httpx's and requests' errors of connection, too
        raise PushError(f"The hub could not be reached: {_first_line(error)}. Try again later.") from error
    return str(commit.commit_url)


def _front_matter(folder: Path) -> dict[str, object]:
    path = folder / CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if _NOTICE not in text.lower():
        raise FolderError(
            f"{path} is missing or does not say that the model is not a medical device. Export it again."
        )
    parts = text.split("---\n", 2)
    try:
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        front = None
    missing = [key for key in ("license", "base_model") if not (isinstance(front, dict) and front.get(key))]
    if missing:
        raise FolderError(f"{path} lacks {' and '.join(missing)} in its front matter. Add it.")
    assert isinstance(front, dict)
    return front


def _check_local(path: Path) -> None:
    """A path of this machine tells who made a model, and nobody else can follow it."""
    if path.name in ("tokenizer.json", "vocab.json", "added_tokens.json"):
        return  # words, among which anything may be
    text = path.read_text(encoding="utf-8")
    found = _LOCAL.search(text)
    if found:
        raise FolderError(f"{path} names a path of this machine, {found[0]}. Put a hub id in its place.")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
