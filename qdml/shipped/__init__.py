"""Models that travel with the package: one folder for each material, as `qd-train` writes them, without its last state.

`benchmarks/ship_model.py` puts a model here.
"""

from pathlib import Path

__all__ = ["DEFAULT", "shipped_model", "shipped_names"]

#: What `qd-predict` takes when no model is named.
DEFAULT = "pbs"


def shipped_names() -> list[str]:
    """Names of the models that this installation has."""
    return sorted(card.parent.name for card in Path(__file__).parent.glob("*/card.json"))


def shipped_model(name: str = DEFAULT) -> Path:
    """The folder of a model that travels with the package.

    Raises:
        ValueError: this installation has none of that name.
    """
    folder = Path(__file__).parent / name
    if not (folder / "card.json").is_file():
        names = shipped_names()
        has = f"its models are {', '.join(names)}" if names else "it has none at all"
        raise ValueError(
            f"no model {name!r} travels with this installation ({has}): give the folder of one with --model, or train "
            "one with qd-train"
        )
    return folder
