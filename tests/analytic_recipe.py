"""A world with a known answer: reflections whose width and shape depend on size and dispersion, and a few latents.

Everything that limits and `refine` ask of a recipe, in fifty lines that can be differentiated by hand.
"""

import math
from dataclasses import replace

import torch

from qdml.augmentation.latents import LatentSpace, between, smooth_modes
from qdml.augmentation.recipe import Expected, Main, Recipe, Setting
from qdml.limits.unknowns import MainPrior

STEP = 0.02
Q = torch.arange(1.0, 8.0, STEP, dtype=torch.float64)
PEAKS = (1.83, 2.99, 3.51, 4.61, 5.98, 6.69)
RANGES = {"diameter": (2.0, 8.0), "sigma": (0.03, 0.3), "strain": (-0.005, 0.005), "b_scale": (1.0, 1.0)}


def prior() -> MainPrior:
    return MainPrior.of_ranges(RANGES, torch.device("cpu"))


class AnalyticRecipe(Recipe):
    """Reflections, a smooth background with a field, a scale of the dots, a zero shift."""

    def __init__(self, photons: float = 1e4) -> None:
        self.cells = ["analytic"]
        self.windows = [((1.0, 1.0), (8.0, 8.0))]
        self.needs_intensity, self.basis = False, None
        self.q = Q.float()
        self.photons = photons
        self.space = LatentSpace()
        self.space.uniform("fraction")
        self.space.normal("shift")
        self.space.normal("decay")
        self.space.field("background", "background", torch.as_tensor(smooth_modes(Q.numpy(), 1.0)).float())

    def draw(self, rows, generator, cell=None):
        return self.setting(len(rows)), self.space.draw(len(rows), generator)

    def setting(self, n: int) -> Setting:
        one = torch.ones((n, 1))
        return Setting(
            instrument=torch.zeros(n, dtype=torch.int64), energy_kev=one, resolution_factor=one,
            dose=self.photons * one, mask=torch.ones((n, len(Q))),
        )  # fmt: skip

    def expected(self, main: Main, setting: Setting, z_BL: torch.Tensor) -> Expected:
        latent = self.space.values(z_BL)
        q = self.q.to(z_BL.dtype)
        volume_B1, sigma_B1, strain_B1 = (
            one[:, None] for one in (main.log_volume_diameter.exp(), main.sigma, main.strain)
        )
        # The number mean makes the core narrow, the dispersion gives it wings.
        core_B1 = 0.5 / volume_B1
        wide_B1 = core_B1 * (1 + 6 * sigma_B1)
        dots_BQ = torch.zeros_like(setting.mask)
        for index, peak in enumerate(PEAKS):
            away_BQ = q - (peak / (1 + strain_B1) + 0.002 * latent["shift"])
            for width in (core_B1, wide_B1):
                dots_BQ = dots_BQ + torch.exp(-0.5 * (away_BQ / width) ** 2 - 0.05 * index) / width
        dots_BQ = 0.3 + dots_BQ
        background_BQ = torch.exp(
            -0.3 * (1 + 0.1 * latent["decay"]) * q
            + 0.2 * latent["background"] @ self.space.fields["background"].basis
        )
        share_B1 = between(latent["fraction"], 0.2, 0.8)
        parts = {
            "dots": share_B1 * dots_BQ / dots_BQ.mean(dim=1, keepdim=True),
            "background": (1 - share_B1) * background_BQ / 0.5,
        }
        whole_B1 = sum(parts.values()).mean(dim=1, keepdim=True)
        parts = {name: part / whole_B1 for name, part in parts.items()}
        return Expected(
            intensity=sum(parts.values()), rate=setting.dose.expand_as(setting.mask), mask=setting.mask,
            known=torch.zeros((len(z_BL), 6)), make_parts=lambda: parts,
            amplitudes={"background": torch.full((len(z_BL), 1), 0.2)},
        )  # fmt: skip


def dots(n: int, generator: torch.Generator) -> Main:
    """Uniform draws of the main parameters over the middle of their ranges."""
    u = torch.rand((3, n), generator=generator)
    diameter, sigma = 3 + 4 * u[0], 0.06 + 0.18 * u[1]
    return Main(
        log_volume_diameter=torch.log(diameter) + 3 * torch.log1p(sigma**2), sigma=sigma,
        strain=0.006 * (u[2] - 0.5), variant=torch.zeros(n, dtype=torch.int64), b_scale=torch.ones(n),
    )  # fmt: skip


assert math.isclose(float(Q[1] - Q[0]), STEP)


class WavyBackground(AnalyticRecipe):
    """The size of the background's waves is not known."""

    def __init__(self, photons: float) -> None:
        super().__init__(photons)
        self.space.uniform("waves", amplitude_of="background")

    def expected(self, main, setting, z_BL):
        where = self.space.names["background"]
        size_B1 = between(self.space.values(z_BL)["waves"], 0.1, 3.0)
        z_BL = torch.cat([z_BL[:, : where.start], size_B1 * z_BL[:, where], z_BL[:, where.stop :]], dim=1)
        expected = super().expected(main, setting, z_BL)
        return replace(expected, amplitudes={"background": 0.2 * size_B1})
