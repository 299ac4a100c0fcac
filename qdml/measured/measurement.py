"""What is known of a measurement before it is answered: instrument, energy, resolution, noise.

A model of posteriors is told the instrument, as its training was. Without `--instrument` it is assumed from the
radiation: the characteristic lines of copper, molybdenum and silver are those of laboratory instruments, any other
energy is that of the first synchrotron instrument that the model has been trained for at this energy. An assumption is
said in the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.form_factors import HC_KEV_ANGSTROM
from hpc.instrument.resolution import widths
from hpc.instrument.setup import Instrument, load_instrument
from qdml.fitting.instrument import SAME_LINE, wavelength_of

if TYPE_CHECKING:
    from qdml.augmentation.config import InstrumentChoice
    from qdml.augmentation.recipe import Setting
    from qdml.files.patterns import OnGrid
    from qdml.observation import Observation

__all__ = ["Q_MIN", "Measurement", "measurement_of", "observation_of"]

#: Below it neighbouring dots interfere, which is in no training [Å⁻¹]; as in conf/fit.
Q_MIN = 1.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The instrument of a pattern, as a model knows it."""

    instrument: Instrument
    """At the energy of the pattern."""
    index: int
    """Its place among the instruments of the model's recipe."""
    energy_kev: float
    resolution_factor: float
    """Times the widths of the instrument's file."""
    assumed: bool
    """Whether nobody named it."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Says what was assumed."""
        if not self.assumed:
            return ()
        name, what = self.instrument.name, self.instrument.description
        return (f"instrument assumed from the radiation: {name} ({what}); another with --instrument",)

    def observe(self, pattern: OnGrid) -> Observation:
        """The pattern as networks and fits take it: one row, with the conditions of this measurement."""
        import torch

        from qdml.observation import WIDTHS_AT, conditions, voigt_fwhm

        wavelength, lines = HC_KEV_ANGSTROM / self.energy_kev, self.instrument.radiation.wavelengths
        sigma, gamma = widths(
            np.array(WIDTHS_AT), wavelength, *self.instrument.resolution.radians(self.resolution_factor)
        )
        counts = (pattern.intensity[pattern.mask] / pattern.noise[pattern.mask]) ** 2
        several = len(lines) > 1
        known = conditions(
            wavelength_B=torch.tensor([lines[0] if several else wavelength]),
            widths_B3=voigt_fwhm(torch.as_tensor(sigma), torch.as_tensor(gamma))[None].float(),
            doublet_B=torch.tensor([100 * (lines[1] / lines[0] - 1) if several else 0.0]),
            plate_B=torch.tensor([float(self.instrument.geometry == "bragg_brentano")]),
            counts_B=torch.tensor([float(counts.mean())]),
        )
        return _rows(pattern, known)

    def setting(self, pattern: OnGrid, step: float) -> Setting:
        """The same for a recipe: one row.

        Args:
            pattern: measured.
            step: of the grid [Å⁻¹].
        """
        import torch

        from qdml.augmentation.recipe import Setting

        return Setting(
            instrument=torch.tensor([self.index]),
            energy_kev=torch.tensor([[self.energy_kev]], dtype=torch.float32),
            resolution_factor=torch.tensor([[self.resolution_factor]], dtype=torch.float32),
            dose=torch.tensor([[self.photons(pattern, step)]], dtype=torch.float32),
            mask=torch.as_tensor(pattern.mask, dtype=torch.float32)[None],
        )

    def window(self, card: Mapping[str, Any], q_min: float = Q_MIN) -> tuple[float, float]:
        """First and last Q that any pattern of this instrument had in the training of a model, from q_min on [Å⁻¹].

        Raises:
            ValueError: nothing is left from q_min on.
        """
        trained = card["windows"][self.index]
        first, last = max(card["q"]["min"], trained["first"][0]), min(card["q"]["max"], trained["last"][1])
        if not 0 <= q_min < last:
            raise ValueError(
                f"--q-min must lie in 0 to {last:.4g} Å⁻¹, where what the model knows of {self.instrument.name} ends; "
                f"got {q_min:g}"
            )
        return max(first, q_min), last

    def photons(self, pattern: OnGrid, step: float) -> float:
        """At the highest point of the pattern, of one step of the instrument, as if angles were small.

        Args:
            pattern: measured.
            step: of the grid [Å⁻¹].
        """
        peak = int(np.argmax(pattern.intensity))
        slope = 2 * np.pi * self.energy_kev / HC_KEV_ANGSTROM  # dQ/d2θ [Å⁻¹/rad]
        steps = step / (slope * np.radians(self.instrument.step_deg))
        return float((pattern.intensity[peak] / pattern.noise[peak]) ** 2 / steps)


def observation_of(pattern: OnGrid) -> Observation:
    """A pattern of which nothing is known but itself, for networks that ask for no more: one row, conditions 0."""
    import torch

    from qdml.observation import CONDITIONS

    return _rows(pattern, torch.zeros(1, len(CONDITIONS)))


def _rows(pattern: OnGrid, conditions: Any) -> Observation:
    import torch

    from qdml.observation import Observation

    intensity, noise, mask = (
        torch.as_tensor(one, dtype=torch.float32)[None]
        for one in (pattern.intensity, pattern.noise, pattern.mask)
    )
    return Observation(intensity=intensity, noise=noise, mask=mask, conditions=conditions)


def measurement_of(
    card: Mapping[str, Any],
    *,
    energy_kev: float | None,
    instrument: str | None,
    resolution_factor: float = 1.0,
) -> Measurement:
    """Find the instrument of a pattern among those that a model was trained for.

    Args:
        card: of a model that was trained with the recipe `instrument`.
        energy_kev: photon energy [keV]; None where it is unknown.
        instrument: its name; None to assume it from the radiation.
        resolution_factor: times the widths of the instrument's file.

    Raises:
        ValueError: no energy, an instrument that the model does not know, that contradicts the energy, an energy or a
            resolution for which it was never trained; the message names the choices.
    """
    from qdml.augmentation.config import InstrumentRecipeConfig
    from qdml.checkpoint import training_config

    recipe = training_config(card).augment
    if not isinstance(recipe, InstrumentRecipeConfig):
        raise ValueError(
            f"the model was trained with augment={recipe.name}, which has no instruments; for measured patterns train "
            "one with augment=instrument"
        )
    known = recipe.instruments
    if energy_kev is None:
        raise ValueError(
            "this model must know the photon energy, which Q alone does not tell: add --wavelength or --energy-kev "
            "beside --q-unit"
        )
    index = _named(known, instrument) if instrument is not None else _assumed(known, energy_kev)
    choice = known[index]
    setup = choice.load()
    if choice.energy_kev is None:
        wavelength_of(setup, energy_kev)
    else:
        low, high = choice.energy_kev
        if not low <= energy_kev <= high:
            raise ValueError(
                f"the model was trained for {choice.name} at {low:g} to {high:g} keV "
                f"({HC_KEV_ANGSTROM / high:.4f} to {HC_KEV_ANGSTROM / low:.4f} Å), the pattern was measured at "
                f"{energy_kev:.4g} keV ({HC_KEV_ANGSTROM / energy_kev:.4f} Å); {_choices(known)}"
            )
        setup = choice.load(energy_kev)
    low, high = setup.random.resolution_factor
    if not low <= resolution_factor <= high:
        raise ValueError(
            f"--resolution must be {low:g} to {high:g} times the widths of {choice.name}, got {resolution_factor:g}; "
            "the model was trained for nothing else"
        )
    return Measurement(
        instrument=setup,
        index=index,
        energy_kev=energy_kev,
        resolution_factor=resolution_factor,
        assumed=instrument is None,
    )


def _named(known: Sequence[InstrumentChoice], name: str) -> int:
    names = [one.name for one in known]
    if name.lower() not in names:
        raise ValueError(f"the model does not know the instrument {name!r}; {_choices(known)}")
    return names.index(name.lower())


def _assumed(known: Sequence[InstrumentChoice], energy_kev: float) -> int:
    """The instrument with this line; otherwise the first one whose energy can be chosen, and was."""
    for index, one in enumerate(known):
        if one.energy_kev is None:
            first = load_instrument(one.name).radiation.wavelengths[0]
            if abs(HC_KEV_ANGSTROM / energy_kev / first - 1) < SAME_LINE:
                return index
    for index, one in enumerate(known):
        if one.energy_kev is not None and one.energy_kev[0] <= energy_kev <= one.energy_kev[1]:
            return index
    raise ValueError(
        f"the model was trained for no instrument at {energy_kev:.4g} keV ({HC_KEV_ANGSTROM / energy_kev:.4f} Å); "
        f"{_choices(known)}"
    )


def _choices(known: Sequence[InstrumentChoice]) -> str:
    """The instruments of a model and how to choose one."""
    words = []
    for one in known:
        setup = load_instrument(one.name)
        at = (
            f"{setup.wavelength:.4f} Å"
            if one.energy_kev is None
            else f"{one.energy_kev[0]:g} to {one.energy_kev[1]:g} keV"
        )
        words.append(f"{one.name} ({setup.description}; {at})")
    return (
        "it knows "
        + ", ".join(words)
        + ". Choose with --instrument the one that measured in the same way (radiation, "
        "flat sample or capillary, kind of detector), and check the wavelength"
    )
