"""What the dots of a real sample scatter, and what perfect ones in a simulation do not do, in the frame of the crystal.

    I(q') = Σ_a x_a S_a + m² Σ_ab C_ab e^{-(B_a+B_b) s²} P_ab(q') + ΔI(correlated motion) + ΔI(halo)
            + (Σ_g (γ_g - 1) w_g) m² Bragg,      q' = Q(1+ε), s = Q/4π

with C_ab = o_a o_b Re(f_a f_b*) and S_a = o_a |f_a|² (and Compton scattering) at the photon energy of each pattern, and
means P_ab over its sizes (`qdml.basis`). At q' nothing but form and Debye-Waller factors depends on strain: these are
smooth, and evaluated at some thirty points. The instrument then reads I at Q(1+ε).

- B: that of the material, times the row's `b_scale`, times a latent for every element but the heaviest;
- correlated motion and halo: `hpc.motion`, with the near pairs of each sample (`qdml.augmentation.near`); c(r) lies
  between the law of shells and that of 1/r, the weight is a latent;
- texture, a gain γ for each direction of reflections: `hpc.texture`, on the Bragg part alone;
- surface atoms that move more, by ΔB: every coherent amplitude falls by m = 1 - x (1 - e^{-ΔB s²}) with x the share of
  atoms in the outermost layer, as if those were spread over the dot (a variant with `motion.surface_b` has
  them in place).

Symbols: B pattern, G point of q', N node of smooth functions, J point of `near`, C column of near pairs, S shell,
A kind, E element, P pair of kinds, R group of reflections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from hpc.form_factors import scattering_factor
from hpc.motion import correlation_weights, smooth_correlation
from hpc.schema import B_SCALE
from hpc.structure.crystal import shells
from hpc.structure.material import Kind, Material, kind_pairs
from hpc.texture import group_labels, reflection_groups, reflections
from qdml.augmentation.amplitudes import Amplitudes
from qdml.augmentation.config import DotsConfig
from qdml.augmentation.latents import LatentSpace, between, log_between
from qdml.augmentation.near import Columns, NearTables
from qdml.augmentation.recipe import Main
from qdml.augmentation.stages import Stages
from qdml.augmentation.tables import chebyshev_matrix, chebyshev_nodes, table
from qdml.basis import DotBasis

__all__ = ["Dots"]

# Nodes of products of form and Debye-Waller factors.
_NODES_PER_INVERSE_ANGSTROM = 2.0
_LEAST_NODES = 24
_4PI2 = (4 * np.pi) ** 2


class Dots:
    """The atoms' effects on a batch."""

    def __init__(
        self,
        config: DotsConfig | None,
        basis: DotBasis,
        energy_kev: tuple[float, float],
        space: LatentSpace,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Tabulate, and add the latents of dots to the space.

        Args:
            config: which effects and how strong; None for perfect dots.
            basis: the dots.
            energy_kev: range of photon energies [keV].
            space: of the recipe.
            device: of the batches.
            dtype: of the tables.

        Raises:
            ValueError: energies outside the tables of f' and f''.
        """
        self._config, self._basis = config, basis
        q, kinds = basis.q, basis.kinds
        settings = basis.attrs["config"]
        self._elements = sorted({kind.element for kind in kinds})

        def to_device(values: object) -> torch.Tensor:
            return table(values, device, dtype)

        nodes = chebyshev_nodes(
            q[0], q[-1], max(_LEAST_NODES, int((q[-1] - q[0]) * _NODES_PER_INVERSE_ANGSTROM))
        )
        self._matrix_NG = to_device(chebyshev_matrix(nodes, q))
        self._s2_N = to_device(nodes**2 / _4PI2)
        self._n_nodes = len(nodes)
        self._element_A = torch.tensor([self._elements.index(kind.element) for kind in kinds], device=device)
        self._occupancy_A = to_device([kind.occupancy for kind in kinds])
        self._b_A = to_device([kind.b_iso for kind in kinds])
        self._first_P, self._second_P = (
            torch.tensor([pair[side] for pair in basis.pairs], device=device) for side in (0, 1)
        )
        points = nodes
        if config is not None:
            points = np.concatenate([nodes, q[self._tabulate(config, space, device, dtype)]])
        self._amplitudes = Amplitudes(
            self._elements,
            points,
            energy_kev,
            anomalous=settings["anomalous"],
            with_compton=settings["compton"],
            device=device,
            dtype=dtype,
        )

    def _tabulate(
        self,
        config: DotsConfig,
        space: LatentSpace,
        device: torch.device,
        dtype: torch.dtype,
    ) -> np.ndarray:
        """Tables of what perfect dots do not do; returns the (J,) points of q' where amplitudes are needed."""
        basis, q = self._basis, self._basis.q
        settings = basis.attrs["config"]
        material = Material.from_config(settings["material"]).with_b_iso(settings["b_iso"] or {})
        missing = {kind.element for kind in material.kinds} - set(self._elements)
        assert not missing, f"the dots have no {missing}"

        def to_device(values: object) -> torch.Tensor:
            return table(values, device, dtype)

        # The heaviest element scatters most: the row's B is its.
        heavy = max(
            self._elements, key=lambda e: float(scattering_factor(e, np.zeros(1), anomalous=False)[0].real)
        )
        order = [e for e in self._elements if e != heavy]
        self._ratio_of = torch.tensor(
            [order.index(e) + 1 if e != heavy else 0 for e in self._elements], device=device
        )
        if order:
            space.uniform("b_ratio", len(order))

        distances, neighbours = shells(material, config.shells + 1)
        inner, neighbours = distances[:-1], neighbours[:-1]
        pair_of = {pair: index for index, pair in enumerate(kind_pairs(len(self._elements)))}

        def elements_of(pair: tuple[int, int], kinds: tuple[Kind, ...]) -> int:
            a, b = sorted(self._elements.index(kinds[k].element) for k in pair)
            return pair_of[a, b]

        columns = Columns(
            elements=np.array(
                [elements_of(basis.pairs[p], basis.kinds) for p in basis.near_pair], dtype=np.int64
            ),
            distance=basis.near_distance,
        )
        occupied = np.array([basis.kinds[a].occupancy * basis.kinds[b].occupancy for a, b in basis.pairs])
        self._occupied_C = to_device(occupied[basis.near_pair])
        self._pair_C = torch.as_tensor(basis.near_pair, device=device)
        bulk_pairs = kind_pairs(len(material.kinds))
        shell, bulk = np.nonzero(neighbours)
        halo = Columns(
            elements=np.array([elements_of(bulk_pairs[p], material.kinds) for p in bulk], dtype=np.int64),
            distance=inner[shell],
        )
        occupied = np.array(
            [material.kinds[a].occupancy * material.kinds[b].occupancy for a, b in bulk_pairs]
        )
        weight_SH = np.zeros((len(inner), len(shell)))
        weight_SH[shell, np.arange(len(shell))] = neighbours[shell, bulk] * occupied[bulk]
        self._halo_SH = to_device(weight_SH)

        least_stretch = (1 + min(0.0, basis.ranges["strain"][0])) ** 2
        b_max = 2 * max(k.b_iso for k in basis.kinds) * basis.ranges[B_SCALE][1] * max(1.0, config.b_ratio[1])
        f0 = [scattering_factor(e, q, anomalous=False).real for e in self._elements]
        self._near = NearTables(
            columns,
            halo,
            q,
            y_max=max(b_max, config.halo_b[1]) / _4PI2 / least_stretch,
            form=np.array([f0[a] * f0[b] for a, b in pair_of]),
            device=device,
            dtype=dtype,
        )
        self._rest_XG = torch.cat([self._near.matrix_JG, self._matrix_NG])
        self._near_pairs = [list(pair_of)[index] for index in self._near.elements]
        self._first = float(distances[0])
        self._distance_C = to_device(basis.near_distance)
        self._hat_SC = to_device(correlation_weights(basis.near_distance, distances))
        space.uniform("correlation")
        if config.shells > 1:
            space.uniform("correlation_fall", config.shells - 1)
        space.uniform("correlation_law")
        space.normal("halo", config.shells)
        space.uniform("halo_b")
        space.uniform("surface_b")

        last = float(min(q[-1], config.texture_to))
        groups = reflection_groups(material, q, by="direction", blend=config.texture_blend)
        found = reflections(material, last)
        labels = group_labels(material, float(q[-1]), by="direction")
        divisor = np.gcd.reduce(found.hkl, axis=1)
        within = {tuple(int(i) for i in hkl) for hkl in found.hkl // divisor[:, None]}
        chosen = [index for index, label in enumerate(labels) if label in within]
        # The last is the whole of what scatters coherently.
        self._groups_RG = to_device(np.concatenate([groups[chosen], np.ones((1, len(q)))]))
        space.uniform("texture_spread", amplitude_of="texture")
        space.normal("texture", len(chosen))
        return self._near.points

    def __call__(
        self,
        main: Main,
        energy_B1: torch.Tensor,
        values: Mapping[str, torch.Tensor] | None = None,
        texture_B1: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, G) [electron units per atom]: the dots at q'.

        Args:
            main: the dots.
            energy_B1: photon energy [keV].
            values: of `LatentSpace.values`; None for perfect dots.
            texture_B1: standard deviation of ln γ.
        """
        stage = Stages(main.numbers() | dict(values or {}))
        if values is not None:
            return self.staged(stage, main.variant, energy_B1, texture_B1)
        partial, shares, _ = stage(
            self.averages, stage.unknown("log_volume_diameter", "sigma"), variant_B=main.variant
        )
        atoms = stage(self.atoms, stage.unknown("strain", "b_scale"), energy_B1=energy_B1)
        smooth_BKN = self.smooth(atoms, shares)
        return self._with_pairs(smooth_BKN[:, 0] @ self._matrix_NG, smooth_BKN[:, 1:], partial)

    def staged(self, stage: Stages, variant_B: torch.Tensor, energy_B1: torch.Tensor, texture_B1: Any) -> Any:
        """The same for real dots, with the unknowns of `stage`: main parameters and latents.

        Args:
            stage: runs the stages.
            variant_B: of the dots.
            energy_B1: photon energy [keV].
            texture_B1: standard deviation of ln γ, a stage's or a tensor.
        """
        size = stage.unknown("log_volume_diameter", "sigma")
        partial, shares, near = stage(self.averages, size, variant_B=variant_B)
        surface_B1 = stage(self.surface_share, size)
        atoms = stage(self.atoms, stage.unknown("strain", "b_scale", "b_ratio"), energy_B1=energy_B1)
        smooth_BKN = stage(self.smooth, atoms, shares, surface_B1, stage.unknown("surface_b"))
        moving_BJ = stage(
            self.motion,
            atoms,
            near,
            surface_B1,
            stage.unknown("correlation", "correlation_fall", "correlation_law"),
            stage.unknown("halo", "halo_b"),
        )
        return stage(self.total, smooth_BKN, partial, moving_BJ, texture_B1, stage.unknown("texture"))

    def averages(
        self, size: Mapping[str, torch.Tensor], *, variant_B: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, P, G) P_ab, (B, A) sites of each kind and (B, C) near pairs, all per atom: means over the sizes."""
        # A basis is float32, whatever the tables are.
        found = self._basis.average(variant_B, size["log_volume_diameter"].float(), size["sigma"].float())
        return found.partial, found.shares, found.near

    def surface_share(self, size: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, 1) share x of the atoms in the outermost layer, of dots of the mean size."""
        assert self._config is not None
        diameter_B1 = torch.exp(size["log_volume_diameter"] - 3 * torch.log1p(size["sigma"] ** 2))[:, None]
        inside_B1 = (1 - 0.2 * self._config.surface_depth / diameter_B1).clamp(min=0)
        return 1 - inside_B1**3

    def atoms(
        self, values: Mapping[str, torch.Tensor], *, energy_B1: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Amplitudes and vibrations of atoms in the frame of the crystal.

        Returns:
            Amplitudes f: real (B, E, X) and imaginary (B, E, 1); (B, E, X) all that atoms scatter alone, |f|² and
            Compton; (B, A) B/(1+ε)²; (B, 1) 1/(1+ε)².
        """
        strain_B1 = values["strain"][:, None]
        shrink_B1 = (1 + strain_B1) ** -2
        real_BEX, imaginary_BE1, incoherent_BEX = self._amplitudes(energy_B1, strain_B1)
        alone_BEX = real_BEX**2 + imaginary_BE1**2
        if incoherent_BEX is not None:
            alone_BEX = alone_BEX + incoherent_BEX
        b_BA = self._b_A * values["b_scale"][:, None]
        if "b_ratio" in values:
            assert self._config is not None
            ratio = log_between(values["b_ratio"], self._config.b_ratio)
            ratio_BE = torch.cat([torch.ones_like(ratio[:, :1]), ratio], dim=1).index_select(
                1, self._ratio_of
            )
            b_BA = b_BA * ratio_BE[:, self._element_A]
        return real_BEX, imaginary_BE1, alone_BEX, b_BA * shrink_B1, shrink_B1

    def smooth(
        self,
        atoms: tuple[torch.Tensor, ...],
        shares_BA: torch.Tensor,
        surface_B1: torch.Tensor | None = None,
        values: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """(B, 1 + 1 + P, N) smooth functions: the self term Σ x S without Bragg, what of it is Bragg, factors of P_ab.

        Perfect dots, which have no values, have the whole self term in the first and no second: (B, 1 + P, N).
        """
        real_BEX, imaginary_BE1, alone_BEX, b_BA, shrink_B1 = atoms
        # Amplitudes of kinds at the nodes, and as their vibrations leave them.
        n = self._n_nodes
        real_BAN = real_BEX[:, :, :n].index_select(1, self._element_A)
        imaginary_BA1 = imaginary_BE1.index_select(1, self._element_A)
        waller_BAN = self._occupancy_A[:, None] * torch.exp(-b_BA[:, :, None] * self._s2_N)
        sites_BA1 = shares_BA[:, :, None]
        alone_BAN = alone_BEX[:, :, :n].index_select(1, self._element_A)
        self_BN = (sites_BA1 * self._occupancy_A[:, None] * alone_BAN).sum(dim=1)
        damped_BAN = waller_BAN * real_BAN
        damped_im_BAN = waller_BAN * imaginary_BA1
        first, second = self._first_P, self._second_P
        pair_BPN = damped_BAN.index_select(1, first) * damped_BAN.index_select(
            1, second
        ) + damped_im_BAN.index_select(1, first) * damped_im_BAN.index_select(1, second)
        if values is None or surface_B1 is None:
            return torch.cat([self_BN[:, None], pair_BPN], dim=1)
        assert self._config is not None
        extra_B1 = between(values["surface_b"], *self._config.surface_b) * shrink_B1
        m2_B1N = ((1 - surface_B1 * (1 - torch.exp(-extra_B1 * self._s2_N))) ** 2)[:, None]
        # Of the Bragg part: pairs, and what of the self term belongs to the mean structure.
        bragg_self_B1N = m2_B1N * (sites_BA1 * (damped_BAN**2 + damped_im_BAN**2)).sum(dim=1, keepdim=True)
        return torch.cat([self_BN[:, None] - bragg_self_B1N, bragg_self_B1N, m2_B1N * pair_BPN], dim=1)

    def motion(
        self,
        atoms: tuple[torch.Tensor, ...],
        near_BC: torch.Tensor,
        surface_B1: torch.Tensor,
        correlation: Mapping[str, torch.Tensor],
        halo: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """(B, J) what correlated motion and halo add."""
        config = self._config
        assert config is not None
        real_BEX, imaginary_BE1, _, b_BA, shrink_B1 = atoms
        base_BC = ((b_BA[:, self._first_P] + b_BA[:, self._second_P]) / _4PI2).index_select(1, self._pair_C)
        halo_BH = (config.halo * surface_B1 * halo["halo"]) @ self._halo_SH
        halo_b_B1 = between(halo["halo_b"], *config.halo_b) * (shrink_B1 / _4PI2)
        real_BEJ = real_BEX[:, :, self._n_nodes :]
        form = [
            real_BEJ[:, a] * real_BEJ[:, b] + imaginary_BE1[:, a] * imaginary_BE1[:, b]
            for a, b in self._near_pairs
        ]
        return self._near(
            near_BC * self._occupied_C,
            base_BC * (1 - self.correlation(correlation)),
            base_BC,
            halo_BH,
            halo_b_B1,
            form,
        )

    def total(
        self,
        smooth_BKN: torch.Tensor,
        partial_BPG: torch.Tensor,
        moving_BJ: torch.Tensor,
        texture_B1: torch.Tensor,
        values: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        """(B, G) everything, with the gains of the directions."""
        rest_BG = torch.cat([moving_BJ, smooth_BKN[:, 0]], dim=1) @ self._rest_XG
        bragg_BG = self._with_pairs(smooth_BKN[:, 1] @ self._matrix_NG, smooth_BKN[:, 2:], partial_BPG)
        gains_BR = torch.cat(
            [torch.exp(texture_B1 * values["texture"]) - 1, torch.ones_like(texture_B1)], dim=1
        )
        return torch.addcmul(rest_BG, gains_BR @ self._groups_RG, bragg_BG)

    def _with_pairs(
        self, self_BG: torch.Tensor, factors_BPN: torch.Tensor, partial_BPG: torch.Tensor
    ) -> torch.Tensor:
        """(B, G) a self term and Σ_P of products; of one pair at a time, whose factor stays in the cache."""
        for pair in range(partial_BPG.shape[1]):
            self_BG = torch.addcmul(self_BG, factors_BPN[:, pair] @ self._matrix_NG, partial_BPG[:, pair])
        return self_BG

    def correlation(self, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """(B, C) correlation of every column: between the two laws, which agree at the first shell."""
        assert self._config is not None
        first_B1 = between(values["correlation"], *self._config.correlation)
        falls = [first_B1]
        if "correlation_fall" in values:
            falls += [
                falls[0] * fall for fall in torch.cumprod(values["correlation_fall"], dim=1).split(1, dim=1)
            ]
        by_shell_BC = torch.cat(falls, dim=1) @ self._hat_SC
        smooth_BC = smooth_correlation(self._distance_C, self._first * first_B1)
        return smooth_BC + values["correlation_law"] * (by_shell_BC - smooth_BC)
