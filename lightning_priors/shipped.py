"""The configuration files that come with the package, and how one is found by its name. Imports no torch."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_priors.errors import PriorError, nearest

SUFFIXES = (".yaml", ".yml")
PLANS = "compare/"


def config_folder() -> Path:
    """Returns the folder of the shipped configurations: inside the installed package, or beside it in a checkout.

    >>> (config_folder() / "techniques" / "cam_restriction.yaml").is_file()
    True
    """
    package = Path(__file__).parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Lists the shipped configurations by their path below the folder, without suffix.

    >>> shipped_configs()["data/kakapo"].name
    'kakapo.yaml'
    """
    folder = config_folder()
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.glob("*/*.yaml"))}


def find_config(name: str, beside: Path | None = None, plan: bool = False) -> tuple[Path, bool]:
    """Finds a configuration file: the user's own first, then a shipped one.

    Args:
        name: A path; or the name of a shipped configuration, with or without its folder and the suffix.
        beside: A folder that is looked into before the working folder, such as that of the plan that names the file.
        plan: Whether a plan of a comparison is wanted, not a configuration of a run.

    Returns:
        The file, and whether it is a shipped one.

    Raises:
        PriorError: If there is none, with the nearest name; or if several shipped ones have that name.

    >>> find_config("cam_restriction") == find_config("techniques/cam_restriction.yaml")
    True
    >>> find_config("cam_restrictoin")
    Traceback (most recent call last):
    lightning_priors.errors.PriorError: there is no file cam_restrictoin; did you mean 'cam_restriction'?
    """
    for folder in dict.fromkeys((beside or Path(), Path())):
        if (folder / name).is_file():
            return folder / name, False
    shipped = {key: path for key, path in shipped_configs().items() if key.startswith(PLANS) == plan}
    bare = name.removesuffix(".yaml").removesuffix(".yml").removeprefix("configs/")
    matching = [key for key in shipped if bare in (key, key.rpartition("/")[2])]
    if not matching:
        raise PriorError(f"there is no file {name}; {_nearest(name, bare, shipped)}")
    if len(matching) > 1:
        raise PriorError(f"{name} may be any of {', '.join(matching)}: give it with its folder")
    return shipped[matching[0]], True


def first_line(path: Path) -> str:
    """Returns what a configuration file says of itself: its first line, a comment.

    >>> first_line(shipped_configs()["data/kakapo"])[:14]
    'Drawn birds: a'
    """
    with path.open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def main(arguments: Sequence[str]) -> int:
    """Lists the shipped configurations, one line each.

    Args:
        arguments: None, or words of which the name or the line of a configuration must have one.

    Returns:
        The exit code 0.

    Raises:
        PriorError: If no configuration has such a word, or an option is given.

    >>> main(["restriction_tuned"])
    techniques/cam_restriction_tuned  CAM restriction of tuned ImageNet weights, a tenth of the birds outlined; ...
    0
    """
    if any(word in ("-h", "--help") for word in arguments):
        print("usage: lightning-priors configs [WORD ...]\n\nLists the configurations to be named after -c.")
        return 0
    if options := [word for word in arguments if word.startswith("-")]:
        raise PriorError(f"configs has no option {options[0]}; it takes words to look for")
    lines = {name: first_line(path) for name, path in shipped_configs().items()}
    wanted = [word.lower() for word in arguments]
    found = [name for name in lines if not wanted or any(word in f"{name} {lines[name]}".lower() for word in wanted)]
    if not found:
        raise PriorError(f"no configuration is about {' '.join(arguments)}; {nearest(arguments[0], lines)}")
    width = max(map(len, found))
    for name in found:
        print(f"{name:{width}}  {lines[name]}")
    return 0


def _nearest(name: str, bare: str, shipped: Iterable[str]) -> str:
    """Returns the hint at the files of the same folder, or else at the shipped configurations."""
    parent = Path(name).parent
    files = [str(path) for suffix in SUFFIXES for path in sorted(parent.glob(f"*{suffix}"))]
    keys = list(shipped)
    names = keys if "/" in bare else [key.rpartition("/")[2] for key in keys]
    for wanted, choices in ((name, files), (bare, names), (bare, keys)):
        if (hint := nearest(wanted, choices)).startswith("did you mean"):
            return hint
    return nearest(name, files) or "`lightning-priors configs` lists those that are shipped"
