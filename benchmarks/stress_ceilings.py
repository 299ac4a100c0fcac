"""What is possible on the stress sets for who knows everything but size, dispersion and strain.

    python benchmarks/stress_ceilings.py runs/stress [--sets published sigma_30 ...] [--patterns 340]

The exact-likelihood classifier (`qdml.limits.exact`) of each set: it is told what the set changes, the solvent, its
share and the photons of every pattern, and that dots are of the set's grid (17 sizes, its dispersions, its strains).
Nothing does better on average at telling the size class; a network, or a fit, that is told none of this does worse.
Written as Markdown.

Symbols: B pattern, H hypothesis, Q point of the set's grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from qdml.stress.files import open_set
from qdml.stress.make import Design, StressSet, expected_patterns
from qdml.stress.sets import StressConfig, load_stress, stress_names


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the stress sets (stress.folder of qd-evaluate)")
    parser.add_argument(
        "--sets", nargs="+", default=stress_names(), help="names of conf/stress (default: all)"
    )
    parser.add_argument(
        "--patterns", type=int, default=1088, help="of each set, chosen evenly (default: all)"
    )
    arguments = parser.parse_args(words)
    print("| set | exact classifier, size (%) | σ (%) |\n|---|---|---|")
    for name in arguments.sets:
        config = load_stress(name)
        size, sigma = exact_shares(config, open_set(name, config, arguments.folder), arguments.patterns)
        print(f"| {config.title} | {100 * size:.1f} | {100 * sigma:.1f} |", flush=True)


def exact_shares(config: StressConfig, content: StressSet, patterns: int) -> tuple[float, float]:
    """Shares of patterns of the right size and of the right dispersion class."""
    n = len(content.design)
    chosen = np.unique(np.linspace(0, n - 1, min(patterns, n)).astype(int))
    right = np.zeros((len(chosen), 2), dtype=bool)
    sizes, sigmas, strains = np.meshgrid(
        config.diameter_nm,
        config.sigma,
        np.linspace(config.strain[0], config.strain[1], config.strains),
        indexing="ij",
    )
    shape, n_h = sizes.shape, sizes.size
    pure = Design(
        diameter_nm=sizes.ravel(),
        sigma=sigmas.ravel(),
        strain=strains.ravel(),
        solvent=np.zeros(n_h, dtype=np.int64),
        fraction=np.ones(n_h),
        scale=np.ones(n_h),
    )
    # Expected patterns are linear in the share of the dots: those without solvent, and those of each solvent alone.
    dots_HQ = expected_patterns(config, pure)
    solvents_SQ = [
        expected_patterns(
            config,
            replace(pure.take(np.array([0])), solvent=np.array([index]), fraction=np.array([0.0])),
        )[0]
        for index in range(len(config.solvents))
    ]
    design = content.design.take(chosen)
    visible = content.mask
    cells = np.stack([design.solvent, design.fraction, design.scale], axis=1)
    for cell in np.unique(cells, axis=0):
        solvent, fraction, scale = int(cell[0]), cell[1], cell[2]
        rate_HQ = scale * (fraction * dots_HQ + (1 - fraction) * solvents_SQ[solvent])[:, visible]
        here = np.flatnonzero((cells == cell).all(axis=1))
        counts_BQ = np.rint(content.intensity[chosen[here]][:, visible].astype(np.float64) * scale)
        log_BH = counts_BQ @ np.log(rate_HQ).T - rate_HQ.sum(axis=1)
        p_BH = np.exp(log_BH - log_BH.max(axis=1, keepdims=True)).reshape(-1, *shape)
        size = np.asarray(config.diameter_nm)[p_BH.sum(axis=(2, 3)).argmax(axis=1)]
        sigma = np.asarray(config.sigma)[p_BH.sum(axis=(1, 3)).argmax(axis=1)]
        right[here, 0] = size == design.diameter_nm[here]
        right[here, 1] = sigma == design.sigma[here]
    size_share, sigma_share = right.mean(axis=0)
    return float(size_share), float(sigma_share)


if __name__ == "__main__":
    main()
