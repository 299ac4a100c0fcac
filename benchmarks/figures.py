"""What the scripts that draw a figure for `results/` are asked."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["figure_arguments"]


def figure_arguments(doc: str | None, name: str, *, diameter_nm: float | None = None) -> argparse.Namespace:
    """Read `-o`, and `--diameter-nm` where it has a default; figures are drawn without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if diameter_nm is not None:
        parser.add_argument("--diameter-nm", type=float, default=diameter_nm)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / name)
    return parser.parse_args()
