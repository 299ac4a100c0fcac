"""A source of `qd-pattern` -> its pair sums: a structure file, or a model particle or ensemble.

Structure files are counted by `hpc.pairs.single`; with several ranks each counts a part of the pairs, and the sums
have the same bits for any number of them. Model particles go through `hpc.pairs.families` on rank 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpc.debye import sums_of_atoms
from hpc.device import Device
from hpc.mpi import World
from hpc.pattern_options import list_shapes, motion_of, read_b_iso, texture_of, variant_of
from hpc.scattering import PairSums, coefficients
from hpc.structure.atoms import Atoms, make_atoms
from hpc.structure.files import is_crystal, read_structure
from hpc.structure.material import Kind
from hpc.structure.variant import plain_changes
from hpc.texture import texture_gain

if TYPE_CHECKING:
    from hpc.radiation import Beam
    from hpc.structure.variant import Variant

__all__ = ["atoms_of", "is_model", "sums_of"]

_log = logging.getLogger(__name__)
# Options of model particles -> their neutral value.
_MODEL_OPTIONS: dict[str, Any] = {
    "material": None,
    "diameter_nm": None,
    "centre": None,
    "shape": None,
    "surface": None,
    "lattice": None,
    "faults": None,
    "disorder": None,
    "coating": None,
    "set": [],
    "sigma": 0.0,
    "strain": 0.0,
    "realisations": None,
    "texture": None,
}


def is_model(source: str, chosen: argparse.Namespace) -> bool:
    """Whether a source is a model particle: the name of a shape, or a crystal that a shape is cut from."""
    return source in list_shapes() or (is_crystal(source) and chosen.shape is not None)


def sums_of(
    source: str,
    chosen: argparse.Namespace,
    q: np.ndarray,
    *,
    beam: Beam,
    device: Device,
    world: World,
) -> tuple[PairSums, dict[str, object]]:
    """Pair sums of a source and its parameters for the header.

    Args:
        source: a structure file or the name of a shape.
        chosen: the options.
        q: (q,) float64 [Å⁻¹].
        beam: what is scattered, checked against the tables before anything is counted.
        device: where pairs are counted.
        world: the ranks that share the pairs of a structure file; all of them have to call.

    Raises:
        ValueError: a bad source, or options that do not fit it.
    """
    if is_model(source, chosen):
        variant = _variant(source, chosen)
        coefficients(variant.material.kinds, q[[0, -1]], **beam)
        gains = texture_of(chosen)
        # Refused before anything is counted.
        texture = (
            texture_gain(variant.material, q, gains, by=chosen.texture_by, strain=chosen.strain)
            if gains
            else None
        )
        sums = dataclasses.replace(_sums_of_model(variant, chosen, q, device), texture=texture)
        described = {
            "shape": variant.shape.name,
            "material": variant.material.name,
            "space_group": variant.material.space_group,
            "cell_angstrom": " ".join(f"{x:g}" for x in variant.material.cell_angstrom),
            "sites": "; ".join(
                f"{kind.label} {kind.element} {' '.join(f'{x:.6g}' for x in position)} occupancy {kind.occupancy:.6g}"
                for kind, position in zip(variant.material.kinds, variant.material.positions, strict=True)
            ),
            "diameter_nm": chosen.diameter_nm,
            "sigma": chosen.sigma,
            "strain": chosen.strain,
            "centres": " ".join(str(centre) for centre in variant.centres),
            "b_iso": " ".join(f"{kind.label}={kind.b_iso:g}" for kind in variant.material.kinds),
            "variant": variant.to_mapping(),
            "texture": " ".join([*chosen.texture, f"by {chosen.texture_by}"]) if gains else None,
            "realisations": chosen.realisations,
            "seed": chosen.seed,
        }
        return sums, {name: value for name, value in described.items() if value is not None}
    atoms = _atoms_of_file(source, chosen)
    elements = [str(element) for element in np.unique(atoms.element)]
    coefficients([Kind(label=e, element=e, occupancy=1.0, b_iso=0.0) for e in elements], q[[0, -1]], **beam)
    counter = _Counter(chosen, device=device, world=world, name=source, n_atoms=len(atoms))
    motion = motion_of(chosen)
    sums = sums_of_atoms(atoms, q, counter, motion)
    kinds = [
        (kind.element, kind.occupancy, kind.b_iso, n)
        for kind, n in zip(sums.kinds, sums.n_atoms, strict=True)
    ]
    described = {
        "file": Path(source).name,
        "atoms": " ".join(
            f"{element}={np.sum(atoms.element == element)}" for element in np.unique(atoms.element)
        ),
        "kinds": "; ".join(f"{e} occupancy {o:g} b_iso {b:g}: {n:g}" for e, o, b, n in kinds),
        "repeat": " ".join(map(str, chosen.repeat or ())) or None,
        "motion": plain_changes(motion) or None,
        **counter.described,
    }
    return sums, {name: value for name, value in described.items() if value is not None}


def atoms_of(source: str, chosen: argparse.Namespace) -> Atoms:
    """The atoms of a file, or of the first realisation of a model particle around its first centre.

    Raises:
        ValueError: a bad source, or options that do not fit it.
    """
    if not is_model(source, chosen):
        return _atoms_of_file(source, chosen)
    from hpc.structure.particles import build_particle

    variant = _variant(source, chosen)
    kinds, positions = build_particle(
        variant,
        centre=variant.centres[0],
        diameter=10 * chosen.diameter_nm,
        seed=chosen.seed,
        realisation=0,
        realisations=chosen.realisations or 1,
    )
    numbers = [len(one) for one in positions]
    return make_atoms(
        (1 + chosen.strain) * np.concatenate(positions),
        np.repeat([kind.element for kind in kinds], numbers),
        occupancy=np.repeat([kind.occupancy for kind in kinds], numbers),
        b_iso=np.repeat([kind.b_iso for kind in kinds], numbers),
        label=np.repeat([kind.label for kind in kinds], numbers),
    )


def _variant(source: str, chosen: argparse.Namespace) -> Variant:
    """The sort of dot of a model particle."""
    if chosen.repeat is not None:
        raise ValueError("--repeat makes a block of unit cells; leave it out, or leave out --shape")
    if chosen.diameter_nm is None:
        raise ValueError("a model particle needs --diameter-nm, for example --diameter-nm 4")
    if source in list_shapes():
        if chosen.shape is not None:
            raise ValueError(f"--shape is for crystal files; the source {source} is a shape itself")
        if chosen.material is None:
            raise ValueError("a model particle needs --material, for example --material pbs")
        return variant_of(chosen, shape=source, material=chosen.material)
    if chosen.material is not None:
        raise ValueError(f"--material is for shapes; the crystal is that of {source}")
    return variant_of(chosen, shape=chosen.shape, material=source)


def _atoms_of_file(source: str, chosen: argparse.Namespace) -> Atoms:
    given = [name for name, neutral in _MODEL_OPTIONS.items() if getattr(chosen, name) != neutral]
    if all(word.startswith("motion.") for word in chosen.set):
        given = [name for name in given if name != "set"]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(f"{options} belong to a model particle {list_shapes()}, got the file {source}")
    atoms = read_structure(source, repeat=chosen.repeat)
    names = sorted({*atoms.element.tolist(), *atoms.label.tolist()})
    values = read_b_iso(chosen.b_iso, names)
    b_iso = [
        values.get(str(label), values.get(str(element), old))
        for label, element, old in zip(atoms.label, atoms.element, atoms.b_iso, strict=True)
    ]
    return dataclasses.replace(atoms, b_iso=np.array(b_iso))


class _Counter:
    """The pair engine, on one process or on all ranks; logs what it is about to do."""

    def __init__(
        self, chosen: argparse.Namespace, *, device: Device, world: World, name: str, n_atoms: int
    ) -> None:
        self._chosen, self._device, self._world, self._name, self._n_atoms = (
            chosen,
            device,
            world,
            name,
            n_atoms,
        )
        self.described: dict[str, object] = {}

    def __call__(self, positions: list[np.ndarray], q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from hpc.pairs.moments import choose_bins, estimated_error
        from hpc.pairs.single import memory_needed, pair_extent, pair_weights

        q_max, world = float(q.max()), self._world
        bins = choose_bins(
            pair_extent(positions),
            q_max=q_max,
            tolerance=self._chosen.tolerance,
            width=self._chosen.bin_width,
        )
        error = estimated_error(bins, q_max)
        self.described = {"bin_width_angstrom": f"{bins.width:.6g}", "estimated_error": f"{error:.1e}"}
        if world.rank == 0:
            memory = memory_needed(positions, bins, len(q), threads=world.threads)
            pairs = self._n_atoms * (self._n_atoms - 1) / 2
            _log.info(
                "%s: %d atoms, %.3g pairs, bins of %.4g Å, estimated error %.1e of I(Q), %.0f MB, %s",
                *(self._name, self._n_atoms, pairs, bins.width, error, memory / 1e6, self._device),
            )
        if self._device.kind == "cuda":
            from hpc.cuda.pairs import check_tolerance

            check_tolerance(self._chosen.tolerance)
        weights = pair_weights(positions, bins, threads=world.threads, device=self._device, world=world)
        return weights, bins.nodes


def _sums_of_model(variant: Variant, chosen: argparse.Namespace, q: np.ndarray, device: Device) -> PairSums:
    from hpc.dots import dot_sums
    from hpc.pairs.families import Sampling

    sampling = Sampling(tolerance=chosen.tolerance, seed=chosen.seed)
    if chosen.realisations is not None:
        sampling = dataclasses.replace(sampling, realisations=chosen.realisations)
    return dot_sums(
        variant,
        q=q,
        diameter_nm=chosen.diameter_nm,
        sigma=chosen.sigma,
        strain=chosen.strain,
        sampling=sampling,
        device=device,
    )
