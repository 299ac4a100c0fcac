"""What not being told the noise cell costs on the published benchmark: exact answers of three states of knowledge.

    python benchmarks/published_ceiling.py runs/allara2024/store.zarr --cells 31 --seeds 0 1 2 3 4

The same patterns as `published_benchmark.py --patterns 258` with these seeds. Every hypothesis of the grid is compared
with each pattern; what is told besides:

- cell: solvent, fraction of nanocrystals and photons (the exact classifier);
- photons: the cell is one of the eight of as many photons, each as likely;
- refine's model: fraction and mixture of solvents are normal numbers, the scale is free. The three are fitted at every
  hypothesis and integrated by their curvature, which is exact but for terms of the third order: dots and solvents add
  up. No reading of refine's posterior on the grid can do better on average.

Symbols: B pattern, H hypothesis, Q point, K class.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from published_benchmark import LEAST, ROLE, Grid, augmentation, test_samples

from hpc.store import open_store
from qdml.augmentation.allara import AllaraRecipe
from qdml.augmentation.recipe import Main
from qdml.augmentation.recipes import build_recipe
from qdml.dataset import lane_generator, read_rows

# Hypotheses whose likelihood in the best of eight cells is smaller by this (its ln) are left out.
HOPELESS = 40.0
# Steps of a fit of three nearly linear unknowns.
STEPS = 3


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path, help="store of experiment=allara2024")
    parser.add_argument("--cells", type=int, nargs="+", default=[31], help="numbers of cells (default: 31)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--patterns", type=int, default=258)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    device = torch.device("cpu")
    store = open_store(arguments.store)
    recipe = build_recipe(augmentation(), store, device)
    assert isinstance(recipe, AllaraRecipe)
    test = test_samples(store, {})
    everything = read_rows(store, np.arange(store.n_samples), device)
    grid, clean_HQ = Grid(everything), everything.intensity.double()
    print("| cell | told | size | dispersion | -ln p of the true dispersion |\n|---|---|---|---|---|")
    for cell in arguments.cells:
        same = [c for c in range(len(recipe.cells)) if recipe.scale(c) == recipe.scale(cell)]
        expected = {c: counts_of(recipe, clean_HQ, c, recipe.latents(torch.tensor([c]))) for c in same}
        scores: dict[str, list[list[float]]] = {}
        for seed in arguments.seeds:
            chosen = np.sort(np.random.default_rng(seed).permutation(test)[: arguments.patterns])
            rows = read_rows(store, chosen, device)
            generator = lane_generator(device, seed, ROLE, cell)
            setting, z_BL = recipe.draw(rows, generator, cell)
            scene = recipe.expected(rows.main(), setting, z_BL)
            counts_BQ = torch.round(recipe.observe(scene, generator).intensity.double() * scene.rate.double())
            told = {c: counts_BQ @ mean_HQ.log().T - mean_HQ.sum(dim=1) for c, mean_HQ in expected.items()}
            log_CBH = torch.stack(list(told.values()))
            answers = {
                "cell": told[cell],
                "photons": log_CBH.logsumexp(dim=0),
                "refine's model": own_model(recipe, cell, counts_BQ, clean_HQ, log_CBH.amax(dim=0)),
            }
            truth = grid.labels(rows)
            for name, log_BH in answers.items():
                p = grid.marginals(torch.softmax(log_BH, dim=1))
                right = [float((p[key].argmax(dim=1) == truth[key]).double().mean()) for key in p]
                true_B = p["sigma"].gather(1, truth["sigma"][:, None])
                scores.setdefault(name, []).append([*right, float(-true_B.clamp(min=LEAST).log().mean())])
        for name, each in scores.items():
            size, dispersion, loss = np.mean(each, axis=0)
            print(
                f"| {recipe.cells[cell]} | {name} | {100 * size:.1f} % | {100 * dispersion:.1f} % | {loss:.3f} |"
            )


def counts_of(recipe: AllaraRecipe, clean_HQ: torch.Tensor, cell: int, z_HL: torch.Tensor) -> torch.Tensor:
    """(H, Q) float64 photons expected of every hypothesis."""
    n = len(clean_HQ)
    unused = torch.zeros(n)
    dots = Main(
        log_volume_diameter=unused, sigma=unused, strain=unused, variant=unused.long(), b_scale=unused,
        intensity=clean_HQ,
    )  # fmt: skip
    setting = recipe.setting(torch.full((n,), cell))
    expected = recipe.expected(dots, setting, z_HL.double().expand(n, -1))
    return expected.intensity * expected.rate.double()


def own_model(
    recipe: AllaraRecipe, cell: int, counts_BQ: torch.Tensor, clean_HQ: torch.Tensor, best_BH: torch.Tensor
) -> torch.Tensor:
    """(B, H) ln of the evidence of each hypothesis, latents and scale integrated; `best_BH` says who is tried."""
    log_BH = torch.full_like(best_BH, -torch.inf)
    n_latents = len(recipe.space)
    known = torch.diag(torch.tensor([1.0] * n_latents + [0.0], dtype=torch.float64))
    for row, counts_Q in enumerate(counts_BQ):
        tried = torch.nonzero(best_BH[row] > best_BH[row].max() - HOPELESS)[:, 0]
        clean_hQ = clean_HQ[tried]
        u_hU = torch.zeros((len(tried), n_latents + 1), dtype=torch.float64)
        for step in range(STEPS + 1):
            mean_hQ, slopes_hUQ = photons_and_slopes(recipe, cell, clean_hQ, u_hU)
            weighted = slopes_hUQ / mean_hQ[:, None]
            matrix = weighted @ slopes_hUQ.mT + known
            if step < STEPS:
                pull = (weighted * (counts_Q - mean_hQ)[:, None]).sum(dim=2) - u_hU @ known
                u_hU = u_hU + torch.linalg.solve(matrix, pull).clamp(-2, 2)
        log_likelihood = (counts_Q * mean_hQ.log() - mean_hQ).sum(dim=1)
        prior = 0.5 * (u_hU @ known * u_hU).sum(dim=1)
        log_BH[row, tried] = log_likelihood - prior - 0.5 * torch.linalg.slogdet(matrix)[1]
    return log_BH


def photons_and_slopes(
    recipe: AllaraRecipe, cell: int, clean_hQ: torch.Tensor, u_hU: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(h, Q) photons at latents and ln scale, and (h, U, Q) derivatives: the pattern is linear in each latent."""
    z_hL, scale_h1 = u_hU[:, :-1], u_hU[:, -1:].exp()
    here = counts_of(recipe, clean_hQ, cell, z_hL)
    slopes = []
    for latent in range(z_hL.shape[1]):
        moved = z_hL.clone()
        moved[:, latent] += 1
        slopes.append(counts_of(recipe, clean_hQ, cell, moved) - here)
    mean_hQ = (scale_h1 * here).clamp(min=1e-3)
    return mean_hQ, torch.stack([*(scale_h1 * one for one in slopes), mean_hQ], dim=1)


if __name__ == "__main__":
    main()
