"""A posterior on patterns it has not learned from: network, network + `refine`, and what could be known.

Each noise cell of the recipe (an instrument, or a cell of the published grid) gets `patterns` dots. Setting and latents
are drawn, so the truth of every unknown is known: the Cramér-Rao bound of a pattern is that of its own dots, setting
and latents. The first `refine_patterns` of each cell are fitted too, from the network's answer.

Symbols: B pattern of all cells, Q point of the grid, T target.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml.answers import targets_of
from qdml.asking import ask
from qdml.augmentation.config import InstrumentRecipeConfig
from qdml.augmentation.recipe import Main, Recipe, Setting
from qdml.augmentation.recipes import build_recipe
from qdml.basis_file import BASIS_FILE, read_basis
from qdml.checkpoint import training_config
from qdml.dataset import Rows, fingerprint, lane_generator, read_rows
from qdml.densities import GaussianMixture
from qdml.evaluation.samples import choose_samples, prior_rows
from qdml.evaluation.scores import Scored, group_scores, ideal_answers, score, score_guess
from qdml.limits.cramer_rao import cramer_rao
from qdml.limits.unknowns import MainPrior
from qdml.observation import Observation
from qdml.stopwatch import clock

if TYPE_CHECKING:
    from hpc.store import Store
    from qdml.config import EvaluateConfig

__all__ = ["Trial", "main_prior", "try_posterior", "variant_chances", "world_of"]

# Roles of the random streams, apart from those of training.
_PATTERNS, _DOTS, _IDEAL = 31, 32, 33
# Properties of a pattern are cut into as many groups of equal size.
_GROUPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Every answer, of every pattern of all cells."""

    cells: tuple[str, ...]
    cell: np.ndarray
    """(B,) int64."""
    properties: dict[str, np.ndarray]
    """Name -> (B,): `counts` (photons per grid point), `dots` (their share of the pattern), `window` [Å⁻¹]."""
    observation: Observation
    setting: Setting
    answers: dict[str, Scored]
    """`network` and `ideal` of all patterns; `refined` and `network, refined patterns` of those that were fitted,
    `classical` of those that qd-fit has fitted."""
    network: GaussianMixture
    refined: GaussianMixture | None
    guess: dict[str, Any]
    """How good the network's guess of what is not asked for is (`score_guess`)."""
    fits: dict[str, float] | None
    """Shares of the fits that ended by themselves (`converged`), whose residual is noise (`explained`) and that found
    the shape (`right_variant`); derivatives of a pattern (`derivatives`)."""
    seconds: dict[str, float]
    """Of one pattern: `network`, `bound`, `refine`, `classical` (see `clock`)."""

    def metrics(self) -> dict[str, Any]:
        """Everything that metrics.json says of the answers."""
        every = self.answers["network"]
        spread = float(every.truth[:, 2].std())
        who = list(self.answers)

        def of(chosen: np.ndarray) -> dict[str, Any]:
            """Scores of each answer on some patterns of the trial, (B,) bool."""
            parts = {name: one.take(chosen[one.index]) for name, one in self.answers.items()}
            return {name: group_scores(one, spread) for name, one in parts.items() if len(one)}

        all_of_them = np.ones(len(self.cell), dtype=bool)
        degenerate = every.degenerate
        groups = []
        for name, values in self.properties.items():
            edges = np.quantile(values, np.linspace(0, 1, _GROUPS + 1))
            for low, high in itertools.pairwise(edges):
                # A property that all patterns share is no group.
                if high > low:
                    inside = (values >= low) & ((values < high) | (high == edges[-1]))
                    groups.append({"by": name, "from": float(low), "to": float(high), **of(inside)})
        cells = [{"cell": name, **of(self.cell == index)} for index, name in enumerate(self.cells)]
        return {
            "patterns": len(self.cell),
            "sigma_spread": spread,
            "all": of(all_of_them),
            "mean_over_cells": {
                name: _mean_over_cells([cell[name] for cell in cells if name in cell]) for name in who
            },
            "cells": cells,
            "groups": groups,
            "regular": of(~degenerate),
            "nearly_degenerate": of(degenerate),
            "guess": self.guess,
            "fits": self.fits,
            "seconds_per_pattern": self.seconds,
        }


def _mean_over_cells(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of each cell's error over bound, with the standard error of the mean, and of its median and coverage."""

    def means(key: str) -> dict[str, float]:
        return {name: float(np.mean([cell[key][name] for cell in cells])) for name in cells[0][key]}

    errors = {
        name: [cell["error_over_bound_error"][name] for cell in cells]
        for name in cells[0]["error_over_bound"]
    }
    return {
        "error_over_bound": means("error_over_bound"),
        "error_over_bound_error": {
            name: None if None in each else float(np.sqrt(np.square(each).sum()) / len(each))
            for name, each in errors.items()
        },
        "median_error_over_bound": means("median_error_over_bound"),
        "coverage": {
            name: {
                level: float(np.mean([cell["coverage"][name][level] for cell in cells]))
                for level in cells[0]["coverage"][name]
            }
            for name in cells[0]["coverage"]
        },
    }


def main_prior(card: Mapping[str, Any], device: torch.device) -> MainPrior:
    """The ranges of the dots that a model has learned from, as bounds and fits take them."""
    prior = card["prior"]
    ranges = {
        "diameter": prior["diameter_nm"],
        **{name: prior[name] for name in ("sigma", "strain", "b_scale")},
    }
    return MainPrior.of_ranges(ranges, device)


def variant_chances(card: Mapping[str, Any], store: Store) -> dict[int, float]:
    """Variants that a fit should try -> how common each was in the training; in another store all alike."""
    from qdml.ensemble import variant_weights

    data = training_config(card).data
    if data.name != "ensemble" or fingerprint(store) != card["store"]["fingerprint"]:
        return dict.fromkeys(range(store.n_variants), 1.0)
    return {index: w for index, w in enumerate(variant_weights(data, store).tolist()) if w > 0}


def try_posterior(
    module: torch.nn.Module,
    card: dict[str, Any],
    store: Store,
    config: EvaluateConfig,
    device: torch.device,
    show: Callable[[str], None] = lambda _: None,
) -> Trial:
    """Let a model, and `refine`, answer new patterns in every noise cell.

    Args:
        module: the network, on the device.
        card: its card.
        store: where the dots are.
        config: split, patterns of each cell, seed.
        device: of the network.
        show: called with a line when a cell is done.

    Raises:
        ValueError: see `choose_samples` and `prior_rows`; derivatives that are not finite.
    """
    training, now = training_config(card), clock(device)
    classes = training.classes or config.classes
    rows = _rows(store, card, config, device)
    recipe = world_of(card, store, config.model, device)
    q = torch.as_tensor(store.q)
    drawn = []
    for cell, name in enumerate(recipe.cells):
        generator = lane_generator(device, config.seed, _PATTERNS, cell)
        part = rows.take(slice(cell * config.patterns, (cell + 1) * config.patterns))
        drawn.append(_draw(recipe, part, cell, generator, batch=config.batch, step=float(q[1] - q[0])))
        show(f"{name}: {len(part)} patterns drawn")
    main = Main.cat([one.main for one in drawn])
    setting = Setting.cat([one.setting for one in drawn])
    z_BL = torch.cat([one.z for one in drawn])
    observation = Observation.cat([one.observation for one in drawn])
    properties = {
        name: np.concatenate([one.properties[name] for one in drawn]) for name in drawn[0].properties
    }
    n, n_cells = len(observation), len(recipe.cells)
    cell_B = np.repeat(np.arange(n_cells), config.patterns)

    started = now()
    network, guess = ask(module, card, observation, config.batch)
    seconds = {"network": (now() - started) / n}
    show("network: answered")

    started = now()
    prior = main_prior(card, device)
    bound_BTT = cramer_rao(recipe, main, setting, z_BL, prior)
    seconds["bound"] = (now() - started) / n
    show("Cramér-Rao bound: known")

    targets_BT = targets_of(rows.diameter, rows.sigma, rows.strain)
    everything = np.arange(n)
    ideal = ideal_answers(targets_BT, bound_BTT, lane_generator(device, config.seed, _IDEAL))
    answers = {
        "network": score(network, targets_BT, bound_BTT, classes, everything, config.seed),
        "ideal": score(ideal, targets_BT, bound_BTT, classes, everything, config.seed),
    }
    refined, fits = None, None
    if config.refine:
        from qdml.refine import refine

        chances = variant_chances(card, store)
        chosen = everything[everything % config.patterns < config.refine_patterns]
        pick = torch.as_tensor(chosen, device=device)
        started = now()
        found = refine(
            recipe,
            observation.take(pick),
            setting.take(pick),
            network.take(pick),
            nuisance=guess.take(pick),
            prior=prior,
            variants=tuple(chances),
            weights=tuple(chances.values()),
        )
        seconds["refine"] = (now() - started) / len(chosen)
        refined = found.posterior
        fits = {
            "converged": float(found.converged.double().mean()),
            "explained": float((found.unit == 1).double().mean()),
            "right_variant": float((found.variant == main.variant[pick]).double().mean()),
            "derivatives": float(found.steps.double().mean()),
        }
        answers["refined"] = score(refined, targets_BT[pick], bound_BTT[pick], classes, chosen, config.seed)
        answers["network, refined patterns"] = answers["network"].take(chosen)
        show(f"refine: {len(chosen)} patterns fitted")
    if config.classical_patterns and isinstance(training.augment, InstrumentRecipeConfig):
        from qdml.evaluation.classical import score_classical

        chosen = everything[everything % config.patterns < config.classical_patterns]
        pick = torch.as_tensor(chosen, device=device)
        answers["classical"], seconds["classical"] = score_classical(
            store, training.augment, recipe.space, main.take(pick), setting.take(pick), z_BL[pick],
            observation.take(pick), targets_BT[pick], bound_BTT[pick], classes, chosen, show,
        )  # fmt: skip
    return Trial(
        cells=tuple(recipe.cells),
        cell=cell_B,
        properties=properties,
        observation=observation,
        setting=setting,
        answers=answers,
        network=network,
        refined=refined,
        guess=score_guess(guess, main, z_BL, recipe.space.names),
        fits=fits,
        seconds=seconds,
    )


def world_of(card: dict[str, Any], store: Store, folder: str, device: torch.device) -> Recipe:
    """The world of the training; with the basis of the model's folder for its own store, which takes no time."""
    augment = training_config(card).augment
    own = fingerprint(store) == card["store"]["fingerprint"] and (Path(folder) / BASIS_FILE).is_file()
    if own and augment.name == "instrument":
        return build_recipe(augment, read_basis(folder, device), device)
    return build_recipe(augment, store, device)


def _rows(store: Store, card: dict[str, Any], config: EvaluateConfig, device: torch.device) -> Rows:
    """The dots of all cells, one after the other."""
    n = config.patterns * len(card["windows"])
    generator = lane_generator(device, config.seed, _DOTS)
    if config.data.split == "prior":
        return prior_rows(store, card, n, generator, device)
    index = choose_samples(store, card, config.data.split)
    # Every sample as often as every other, in an order of its own for each round.
    rng = np.random.default_rng((config.seed, _DOTS))
    rounds = [rng.permutation(index) for _ in range(-(-n // len(index)))]
    chosen = np.concatenate(rounds)[:n]
    needs = training_config(card).augment.name == "allara2024"
    unique, inverse = np.unique(chosen, return_inverse=True)
    return read_rows(store, unique, device, intensity=needs).take(torch.as_tensor(inverse, device=device))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawn:
    """The patterns of one cell, and everything that decided them."""

    main: Main
    setting: Setting
    z: torch.Tensor
    observation: Observation
    properties: dict[str, np.ndarray]


@torch.no_grad()
def _draw(
    recipe: Recipe, rows: Rows, cell: int, generator: torch.Generator, *, batch: int, step: float
) -> _Drawn:
    setting, z_BL = recipe.draw(rows, generator, cell)
    observations, shares = [], []
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        expected = recipe.expected(rows.take(part).main(), setting.take(part), z_BL[part])
        observations.append(recipe.observe(expected, generator))
        visible = expected.mask.sum(dim=1)
        shares.append((expected.parts["dots"] * expected.mask).sum(dim=1) / visible)
    observation = Observation.cat(observations)
    visible = observation.mask.sum(dim=1)
    counts = (observation.intensity / observation.noise.clamp(min=1e-30)) ** 2 * observation.mask
    return _Drawn(
        # Derivatives and fits take the dots of the basis, not the samples' own patterns.
        main=replace(rows.main(), intensity=None),
        setting=setting,
        z=z_BL,
        observation=observation,
        properties={
            "counts": (counts.sum(dim=1) / visible).cpu().numpy(),
            "dots": torch.cat(shares).cpu().numpy(),
            "window": (step * visible).cpu().numpy(),
        },
    )
