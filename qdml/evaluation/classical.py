"""The classical fit of some patterns of a trial, scored like every other answer.

`qd-fit` is told what its user knows: instrument, energy, resolution, the shape of the dots, the three main liquids, the
containers that there are, and whether the sample is a dried film, whose reflections have free gains.

Symbols: B pattern, L latent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from qdml.answers import quantities_of
from qdml.dataset import nearest_class
from qdml.evaluation.scores import Scored
from qdml.limits.classical import Conditions, classical_fits
from qdml.limits.cramer_rao import quantity_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from hpc.store import Store
    from hpc.structure.variant import Variant
    from qdml.augmentation.config import InstrumentRecipeConfig
    from qdml.augmentation.latents import LatentSpace
    from qdml.augmentation.recipe import Main, Setting
    from qdml.config import ClassConfig
    from qdml.observation import Observation

__all__ = ["score_classical"]

# Liquids that the fit may mix: the largest of those that are there.
_LIQUIDS = 3
# Keys of a variant that say no more than its shape.
_PLAIN = {"title", "material", "shape", "kinds"}


def score_classical(
    store: Store,
    world: InstrumentRecipeConfig,
    space: LatentSpace,
    main: Main,
    setting: Setting,
    z_BL: torch.Tensor,
    observation: Observation,
    targets_BT: torch.Tensor,
    bound_BTT: torch.Tensor,
    classes: ClassConfig | None,
    index: np.ndarray,
    show: Callable[[str], None],
) -> tuple[Scored, float]:
    """Fit every one of some patterns.

    Args:
        store: what dots there are.
        world: the instruments and liquids of the patterns.
        space: its latents.
        main: the true dots, for their shape.
        setting: what is known of the measurements.
        z_BL: the true latents, for the liquids.
        observation: the patterns.
        targets_BT: the truth.
        bound_BTT: Cramér-Rao bound of the targets.
        classes: of size and dispersion; None to ask for none.
        index: (B,) numbers of the patterns in the trial.
        show: called with a line now and then.

    Returns:
        The scores, and seconds of one core for a pattern.

    Raises:
        ValueError: dots that differ from perfect crystals in more than their shape; patterns that cannot be fitted.
    """
    variants = _variants(store)
    names = [one.name for one in world.surroundings.solvents]
    main_liquids = z_BL[:, space.names["solvent"]].argsort(dim=1, descending=True)[:, :_LIQUIDS].tolist()
    plates = [one.load().geometry == "bragg_brentano" for one in world.instruments]
    known = [
        Conditions(
            instrument=world.instruments[instrument].name,
            energy_kev=energy,
            resolution_factor=factor,
            solvents=tuple(names[liquid] for liquid in liquids),
            containers=tuple(world.surroundings.containers),
            film=plates[instrument],
        )
        for instrument, energy, factor, liquids in zip(
            setting.instrument.tolist(),
            setting.energy_kev[:, 0].tolist(),
            setting.resolution_factor[:, 0].tolist(),
            main_liquids,
            strict=True,
        )
    ]
    estimate, error = torch.empty((len(known), 4)).double(), torch.empty((len(known), 4)).double()
    seconds, done = 0.0, 0
    for shape in main.variant.unique().tolist():
        of_shape = torch.nonzero(main.variant == shape)[:, 0].cpu()
        fits = classical_fits(
            observation.take(of_shape.to(observation.mask.device)),
            store.q,
            [known[row] for row in of_shape.tolist()],
            variants[shape],
        )
        estimate[of_shape], error[of_shape] = fits.estimate, fits.error
        seconds, done = seconds + float(fits.seconds.sum()), done + len(of_shape)
        show(f"classical fit: {done} of {len(known)} patterns")
    return _score(estimate, error, targets_BT, bound_BTT, classes, index), seconds / len(known)


def _score(
    estimate: torch.Tensor,
    error: torch.Tensor,
    targets_BT: torch.Tensor,
    bound_BTT: torch.Tensor,
    classes: ClassConfig | None,
    index: np.ndarray,
) -> Scored:
    """Posteriors of the fit are normal."""
    truth = quantities_of(targets_BT.cpu())
    names = list(truth)
    right = {
        name: (
            nearest_class(truth[name], getattr(classes, name))
            == nearest_class(estimate[:, names.index(name)], getattr(classes, name))
        ).numpy()
        for name in (("diameter_nm", "sigma") if classes is not None else ())
    }
    true = torch.stack(list(truth.values()), dim=1)
    return Scored(
        index=index,
        truth=true.numpy(),
        estimate=estimate.numpy(),
        spread=error.numpy(),
        bound=quantity_errors(bound_BTT, targets_BT).cpu().numpy(),
        rank=torch.special.ndtr((true - estimate) / error.clamp(min=1e-12)).numpy(),
        right=right,
    )


def _variants(store: Store) -> list[Variant]:
    """The dots of a store as fits take them."""
    from hpc.structure.material import Material
    from hpc.structure.variant import Shape, Variant

    config: Any = store.attrs["config"]
    material = Material.from_config(config["material"])
    variants = []
    for one in store.attrs["variants"]:
        if more := set(one) - _PLAIN:
            raise ValueError(
                f"classical fits take perfect crystals, {one['title']!r} of {store.path} has {sorted(more)}; leave "
                "classical_patterns at 0"
            )
        variants.append(Variant(material=material, shape=Shape(**one["shape"])))
    return variants
