"""What is possible on a stress set: how often an estimator at the Cramér-Rao bound would find the right class.

Errors of such an estimator are normal and as wide as the bound, which has all latents of the world with their priors,
and B, but knows the shape. Its dots are the true ones; latents, which a set does not have, are those of the fit. D is
the centre of its class, so that the class is right where the error stays below half a step (the outermost classes are
open), and D_v is right where its error does.

Symbols: B pattern, Q point of the grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from qdml.answers import QUANTITIES, targets_of
from qdml.limits.cramer_rao import cramer_rao, quantity_errors
from qdml.limits.unknowns import MainPrior, main_of

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Recipe
    from qdml.refine import Refined
    from qdml.stress.make import Design
    from qdml.stress.seen import Seen
    from qdml.stress.sets import StressConfig

__all__ = ["possible", "share_right"]


def possible(
    recipe: Recipe,
    config: StressConfig,
    seen: Seen,
    design: Design,
    fits: Refined,
    variant: int | None,
    prior: MainPrior,
) -> dict[str, float]:
    """Expected shares of right answers, `nearest` and `volume`.

    Args:
        recipe: the world.
        config: of the set.
        seen: the patterns that were fitted.
        design: what they are of.
        fits: what the fit found: latents and B.
        variant: number of the set's shape; None where the model has no such shape, for those of the fit.
        prior: ranges of the main parameters.
    """
    assert seen.setting is not None
    device = fits.values.device
    columns = (
        torch.as_tensor(getattr(design, key), device=device) for key in ("diameter_nm", "sigma", "strain")
    )
    targets_BT = targets_of(*columns)
    values_BN = torch.cat([targets_BT, fits.values[:, targets_BT.shape[1] :]], dim=1)
    variant_B = fits.variant if variant is None else torch.full_like(fits.variant, variant)
    main = main_of(values_BN, variant_B)
    # As many photons as there are.
    setting = replace(seen.setting, dose=torch.ones_like(seen.setting.dose))
    with torch.no_grad():
        expected = recipe.expected(main, setting, fits.z)
    counts_B = ((seen.observation.intensity / seen.observation.noise) ** 2 * seen.observation.mask).sum(dim=1)
    each_B = (expected.intensity * expected.rate * expected.mask).sum(dim=1)
    setting = replace(setting, dose=(counts_B / each_B)[:, None])
    error_BK = quantity_errors(cramer_rao(recipe, main, setting, fits.z, prior), targets_BT).cpu().numpy()
    number, volume = (error_BK[:, QUANTITIES.index(k)] for k in ("diameter_nm", "diameter_volume_nm"))
    return share_right(number, volume, design.diameter_nm, config.diameter_nm)


def share_right(
    number_error: np.ndarray, volume_error: np.ndarray, diameter: np.ndarray, classes: tuple[float, ...]
) -> dict[str, float]:
    """The same from standard deviations.

    Args:
        number_error: (B,) of D [nm].
        volume_error: (B,) of D_v [nm].
        diameter: (B,) true D [nm], each the centre of a class.
        classes: centres [nm].
    """
    from scipy.special import ndtr

    centres = np.asarray(classes)
    edges = np.concatenate([[-np.inf], (centres[1:] + centres[:-1]) / 2, [np.inf]])
    at = np.abs(diameter[:, None] - centres).argmin(axis=1)
    right = ndtr((edges[at + 1] - diameter) / number_error) - ndtr((edges[at] - diameter) / number_error)
    half = np.diff(centres).min() / 2
    return {
        "nearest": float(right.mean()),
        "volume": float((1 - 2 * ndtr(-half / volume_error)).mean()),
    }
