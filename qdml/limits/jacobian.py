"""Derivatives of the expected pattern with respect to everything that is not known.

A recipe in stages (`qdml.augmentation.stages`) is differentiated stage by stage, each along the unknowns that have
entered so far; another as a whole, along all of them. Smooth factors exp(a Σ_k z_k b_k) of one part p of the scene need
neither: their columns are a p b_k. The pattern y has the mean 1 over the window; where c is the column of an intensity
t of any mean, that of y is

    ∂y = (c - y <c>) / <t>,        <> the mean over the window.

Symbols: B pattern, Q point of the grid, N main parameter, L latent, U unknown, K column of some of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.func import jvp, vmap

from qdml.augmentation.recipe import StagedRecipe
from qdml.limits.slopes import Slopes
from qdml.limits.unknowns import MAIN, main_of, values_of
from qdml.preprocess import masked_mean

if TYPE_CHECKING:
    from qdml.augmentation.recipe import Expected, Main, Recipe, Setting

__all__ = ["recipe_jacobian"]

_N = len(MAIN)


def recipe_jacobian(
    recipe: Recipe, main: Main, setting: Setting, z_BL: torch.Tensor
) -> tuple[Expected, torch.Tensor]:
    """The expected pattern and its derivatives.

    Args:
        recipe: the world.
        main: dots.
        setting: what is known of the measurements.
        z_BL: latents.

    Returns:
        what is expected, and (B, Q, N + L) float32 derivatives of its intensity with respect to `MAIN` and z, a view of
        memory in the order (B, N + L, Q).
    """
    main = main_of(values_of(main), main.variant)
    if isinstance(recipe, StagedRecipe):
        expected, total_BQ, columns_KBQ, order = _through_stages(recipe, main, setting, z_BL)
    else:
        expected, total_BQ, columns_KBQ, order = _as_a_whole(recipe, main, setting, z_BL)
    y_BQ, mask_BQ = expected.intensity, expected.mask
    slopes_BUQ = y_BQ.new_empty((len(y_BQ), _N + z_BL.shape[1], y_BQ.shape[1]))
    points_B1 = mask_BQ.sum(dim=1, keepdim=True)
    parts = expected.parts if recipe.space.fields else {}
    for name, field in recipe.space.fields.items():
        where = slice(_N + field.slice.start, _N + field.slice.stop)
        part_BQ = expected.amplitudes[name] * parts[field.part]
        mean_BK = (part_BQ * mask_BQ) @ field.basis.T / points_B1
        own_BKQ = slopes_BUQ[:, where]
        torch.mul(part_BQ[:, None], field.basis, out=own_BKQ)
        own_BKQ.addcmul_(y_BQ[:, None], mean_BK[:, :, None], value=-1)
    mean_B1 = masked_mean(total_BQ, mask_BQ)
    off_KB1 = (columns_KBQ * mask_BQ).sum(dim=2, keepdim=True) / points_B1
    slopes_BUQ[:, order] = ((columns_KBQ - off_KB1 * y_BQ) / mean_B1).movedim(0, 1)
    return expected, slopes_BUQ.mT


def _through_stages(
    recipe: StagedRecipe, main: Main, setting: Setting, z_BL: torch.Tensor
) -> tuple[Expected, torch.Tensor, torch.Tensor, list[int]]:
    """What is expected, (B, Q) an intensity of any mean, (K, B, Q) its columns, and which they are."""
    one_B = torch.ones_like(main.sigma)
    # With respect to ln σ and ln b.
    slopes = {"log_volume_diameter": one_B, "sigma": main.sigma, "strain": one_B, "b_scale": main.b_scale}
    columns = {name: range(index, index + 1) for index, name in enumerate(main.numbers())}
    for name, where in recipe.space.names.items():
        if name not in recipe.space.fields:
            columns[name] = range(_N + where.start, _N + where.stop)
    values = recipe.space.values(z_BL)
    stage = Slopes(main.numbers() | values, columns, slopes | recipe.space.slopes(z_BL))
    scene = recipe.scene(stage, main.variant, setting)
    expected = recipe.completed(tuple(one.value for one in scene), values, setting)
    return expected, scene[0].value, scene[0].slopes, list(scene[0].columns)


def _as_a_whole(
    recipe: Recipe, main: Main, setting: Setting, z_BL: torch.Tensor
) -> tuple[Expected, torch.Tensor, torch.Tensor, list[int]]:
    """The same of a recipe without stages: one column after another, each of all rows."""
    x_BU = torch.cat([values_of(main).float(), z_BL], dim=1)
    in_fields = {
        _N + latent
        for field in recipe.space.fields.values()
        for latent in range(*field.slice.indices(z_BL.shape[1]))
    }
    order = [column for column in range(x_BU.shape[1]) if column not in in_fields]

    def intensity(x_BU: torch.Tensor) -> torch.Tensor:
        return recipe.expected(main_of(x_BU[:, :_N], main.variant), setting, x_BU[:, _N:]).intensity

    along_KBU = torch.eye(x_BU.shape[1]).to(x_BU)[order, None].expand(-1, len(x_BU), -1)
    columns_KBQ = vmap(lambda along_BU: jvp(intensity, (x_BU,), (along_BU,))[1])(along_KBU)
    expected = recipe.expected(main, setting, z_BL)
    return expected, expected.intensity, columns_KBQ, order
