"""Fetching a classifier from the Hugging Face Hub."""

import re
from pathlib import Path

from huggingface_hub import constants, snapshot_download

from lightning_priors.errors import PriorError
from lightning_priors.trained.saved import CONFIG, WEIGHTS


def is_hub_id(name: str) -> bool:
    """Says whether a name has the form of a repository of the Hub: an owner and a name.

    >>> is_hub_id("kakapo/finder"), is_hub_id("runs/kakapo/version_0"), is_hub_id("best.ckpt"), is_hub_id("../run")
    (True, False, False, False)
    """
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name) is not None and not name.endswith((".ckpt", ".safetensors"))


def download(
    name: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Path:
    """Fetches the two files that are a classifier, unless they were fetched before.

    Args:
        name: The repository, such as ``user/name``.
        revision: A branch, a tag or a commit.
        cache_dir: Where files are kept; by default where ``huggingface_hub`` keeps all of them.
        force_download: Whether files that are there are fetched again.
        token: Of the user; by default the one that ``hf auth login`` has kept.
        local_files_only: Whether nothing is fetched.

    Returns:
        The folder.

    Raises:
        PriorError: If the Hub cannot be reached, or has no such classifier.
    """
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=[CONFIG, WEIGHTS],
        )
    except Exception as error:  # the Hub's library and the HTTP library below it raise whatever they raise
        offline = " (HF_HUB_OFFLINE is set)" if constants.HF_HUB_OFFLINE else ""
        raise PriorError(
            f"there is no run or checkpoint {name}, and the Hub has not given it{offline}: {type(error).__name__}"
        ) from error
    if not Path(folder, CONFIG).is_file():
        raise PriorError(f"the repository {name} of the Hub has no {CONFIG}: it is no classifier of this library")
    return Path(folder)
