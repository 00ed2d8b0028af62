"""The command ``lightning-priors export``: loads a run, writes a file, checks it, and writes a model card beside it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lightning_priors.errors import PriorError
from lightning_priors.parser import Parser, add_own

DESCRIPTION = """\
Writes a trained classifier as a file with the outputs logits, cam and probabilities, and a model card beside it.
ONNX and torch.export files take float32 RGB in [0, 1] of shape (batch, 3, height, width); the normalisation is inside.
What only training needs, such as auxiliary heads and label generators, is left out. The file is compared with PyTorch
on pictures, and is not there if they differ."""

FILES = {"onnx": "model.onnx", "safetensors": "model.safetensors", "torch_export": "model.pt2"}
"""For each format the name of the file, if none is given."""


def main(argv: Sequence[str]) -> int:
    """Exports a classifier.

    Args:
        argv: The options of the command.

    Returns:
        The exit code 0.

    Raises:
        PriorError: For a mistake in the options, if the network cannot be exported, or if what was written answers
            otherwise than PyTorch.

    >>> main(["no/such/run", "--format", "onnx"])
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no run or checkpoint no/such/run
    """
    parser = Parser(prog="lightning-priors export", description=DESCRIPTION, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", metavar="RUN", help="a run folder, a checkpoint, or what lightning_priors.load takes")
    parser.add_argument("--format", required=True, choices=list(FILES), help="of the file")
    add_own(parser)
    parser.add_argument("--out", metavar="FILE", help="by default model.onnx, .safetensors or .pt2 in RUN/export")
    try:
        options = parser.parse_args(argv)
    except SystemExit:  # --help
        return 0
    _run(options.run, options.format, options.out, options.own)
    return 0


def _run(run: str, kind: str, out: str | None, own: Sequence[str]) -> None:
    # torch takes seconds to import: not before the options are known to be right
    from lightning_priors.cli.user_modules import import_own, working_folder_importable
    from lightning_priors.export.pictures import pictures_for
    from lightning_priors.export.write import write
    from lightning_priors.trained import load
    from lightning_priors.trained.card import model_card

    with working_folder_importable():
        import_own(own)
        classifier = load(run, device="cpu")
    folder = folder_of(run)
    path = Path(out) if out else folder / "export" / FILES[kind]
    if path.suffix != Path(FILES[kind]).suffix:
        raise PriorError(f"--out {path}: a file of the format {kind} ends with {Path(FILES[kind]).suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures, told = pictures_for(folder)
    print(told, flush=True)
    for line in write(classifier, kind, path, pictures):
        print(line, flush=True)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    card = path.parent / "README.md"
    if card.exists():
        print(f"{card} was there already and stays as it is")
    else:
        model_card(classifier.description, type(classifier.technique), folder).save(card)
        print(card)


def folder_of(run: str) -> Path:
    """Finds the run folder that a path belongs to.

    >>> str(folder_of("runs/Toy/version_0/checkpoints/best.ckpt")), str(folder_of("kept/best.ckpt"))
    ('runs/Toy/version_0', 'kept')
    """
    path = Path(run)
    folder = path.parent if path.is_file() or path.suffix else path
    return folder.parent if folder.name == "checkpoints" else folder
