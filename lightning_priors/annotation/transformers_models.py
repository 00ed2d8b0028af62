"""Loading models of transformers, with mistakes said in one line."""

from typing import Any

import torch

from lightning_priors.errors import PriorError


def load_model(name: str, auto_class: str, device: torch.device) -> tuple[Any, Any]:
    """Loads a model and its processor.

    Args:
        name: On the Hugging Face Hub, or a folder.
        auto_class: The class of transformers that knows which models are of the wanted kind.
        device: Where to put the model.

    Returns:
        The model in evaluation mode, and the processor.

    Raises:
        PriorError: If transformers is not installed, or the model cannot be had or is of another kind.
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise PriorError("models of transformers need: pip install 'lightning-priors[annotate]'") from error
    try:
        # weights in safetensors only: other files of the Hub can run code when they are read
        model = getattr(transformers, auto_class).from_pretrained(name, use_safetensors=True)
        processor = transformers.AutoProcessor.from_pretrained(name)  # type: ignore[no-untyped-call]
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PriorError(f"no {auto_class.removeprefix('AutoModelFor')} model {name!r}: {reason}") from error
    return model.eval().requires_grad_(False).to(device), processor
