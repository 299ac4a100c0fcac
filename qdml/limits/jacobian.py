"""Derivatives of the expected pattern with respect to everything that is not known.

Forward differentiation, a few tangents at a time; each tangent is of all patterns of the batch, since no pattern
depends on the unknowns of another. Smooth factors exp(a Σ_k z_k b_k) of one part p of the scene need none of it: with
the pattern y of mean 1 over the window, their columns are a p b_k - y <a p b_k> (`qdml.augmentation.latents.Field`).

Symbols: B pattern, Q point of the grid, N main parameter, L latent, U unknown, K bump, T tangent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import jvp, vmap

from qdml.limits.unknowns import MAIN, main_of, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qdml.augmentation.recipe import Expected, Main, Recipe, Setting

__all__ = ["recipe_jacobian"]

# Patterns times tangents that are pushed through together. More fill the cache of a core, fewer spend their time in
# Python: 0.5 s for one pattern whatever is asked for, 45 ms for each of 48.
_TOGETHER, _LEAST = 512, 8


def recipe_jacobian(
    recipe: Recipe, main: Main, setting: Setting, z_BL: torch.Tensor, *, tangents: int | None = None
) -> tuple[Expected, torch.Tensor]:
    """The expected pattern and its derivatives.

    Args:
        recipe: the world.
        main: dots.
        setting: what is known of the measurements.
        z_BL: latents.
        tangents: how many are pushed through at a time; None for as many as the number of patterns suggests.

    Returns:
        what is expected, and (B, Q, N + L) float32 derivatives of its intensity with respect to `MAIN` and z.
    """
    tangents = max(_LEAST, _TOGETHER // max(1, len(z_BL))) if tangents is None else tangents
    values_BN, variant_B = values_of(main).float(), main.variant
    expected = recipe.expected(main_of(values_BN, variant_B), setting, z_BL)
    y_BQ, mask_BQ = expected.intensity, expected.mask
    n_main, n_latents = len(MAIN), z_BL.shape[1]
    slopes_BQU = y_BQ.new_zeros((*y_BQ.shape, n_main + n_latents))

    def of_main(x_BN: torch.Tensor) -> torch.Tensor:
        return recipe.expected(main_of(x_BN, variant_B), setting, z_BL).intensity

    slopes_BQU[..., :n_main] = _push(of_main, values_BN, range(n_main), tangents)

    linear = torch.zeros(n_latents, dtype=torch.bool)
    for name, field in recipe.space.fields.items():
        linear[field.slice] = True
        part_BQ = expected.amplitudes[name] * expected.parts[field.part]
        mean_BK = (part_BQ * mask_BQ) @ field.basis.T / mask_BQ.sum(dim=1, keepdim=True)
        columns = slice(n_main + field.slice.start, n_main + field.slice.stop)
        slopes_BQU[..., columns] = part_BQ[..., None] * field.basis.T - y_BQ[..., None] * mean_BK[:, None, :]

    def of_latents(z: torch.Tensor) -> torch.Tensor:
        return recipe.expected(main, setting, z).intensity

    rest = torch.nonzero(~linear)[:, 0].tolist()
    if rest:
        slopes_BQU[..., [n_main + index for index in rest]] = _push(of_latents, z_BL, rest, tangents)
    return expected, slopes_BQU


def _push(
    function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, columns: Sequence[int], tangents: int
) -> torch.Tensor:
    """(B, Q, T) derivatives of a function of (B, n) along some of its n columns, each for all rows at once."""
    direction_TBn = x.new_zeros((len(columns), *x.shape))
    for index, column in enumerate(columns):
        direction_TBn[index, :, column] = 1
    along = vmap(lambda direction: jvp(function, (x,), (direction,))[1], out_dims=-1, chunk_size=tangents)
    return along(direction_TBn)
