"""A store of a few PbS dots that lies in memory: clean patterns, and what their basis says of near pairs."""

from types import SimpleNamespace

import numpy as np

from hpc.device import select_device
from hpc.dots import dot_pattern
from hpc.ensemble import OVERHANG, fine_step
from hpc.pairs.families import Sizes, count_family, plan_counting
from hpc.schema import B_SCALE, DIAMETER, SIGMA, STRAIN, VARIANT
from hpc.structure.crystal import REACH
from hpc.structure.material import load_material
from hpc.structure.variant import Motion, Variant
from hpc.synthesis import basis_partial

Q = np.arange(0.9, 14.0, 0.02)
DIAMETERS, SIGMAS = (2.4, 3.6, 5.0), (0.12, 0.08, 0.05)
STRAINS, B_SCALES = (-0.002, 0.0, 0.005), (0.8, 1.0, 2.5)
ENERGY = 22.0
TAIL = 1e-4


def pattern(sample, q=Q, motion=None, energy_kev=ENERGY, b_ratio=1.0, compton=False):
    """(q,) float64: the exact pattern of one of the dots, its B of S times a ratio."""
    material = load_material("pbs")
    pb, s = (kind.b_iso for kind in material.kinds)
    variant = Variant.from_config(
        {"material": material.with_b_iso({"Pb": pb, "S": b_ratio * s}), "shape": "sphere"}
        | ({"motion": motion} if motion else {})
    )
    return dot_pattern(
        variant, q=q, diameter_nm=DIAMETERS[sample], sigma=SIGMAS[sample], strain=STRAINS[sample],
        b_scale=B_SCALES[sample], energy_kev=energy_kev, tail=TAIL, compton=compton,
    )  # fmt: skip


def dot_store(q=Q, compton=False):
    """Three samples of one variant."""
    material = load_material("pbs")
    variant = Variant.from_config({"material": material, "shape": "sphere"})
    sizes = Sizes(diameter=10 * np.array(DIAMETERS), sigma=np.array(SIGMAS), tail=TAIL)
    device = select_device("cpu")
    counting = plan_counting(variant, sizes, q_max=float(q[-1]) * 1.01, device=device)
    family = count_family(counting, device=device)
    distance = np.unique(np.concatenate([table.distance for table in family.pairs]))
    distance = distance[distance < REACH]
    entering = family.near(distance)
    step = fine_step(float(counting.diameter[-1]))
    # Stores go 0.2 Å⁻¹ beyond their last point.
    q_fine = step * np.arange(int((q[-1] * 1.01 + 0.2) / step) + OVERHANG + 2)
    basis = {
        "q_fine": q_fine,
        "partial": basis_partial(family, q_fine),
        "diameter": counting.diameter / 10,
        "n_atoms": np.cumsum(family.atoms, axis=0),
        "near_distance": distance,
        "near_pairs": np.cumsum(entering, axis=1),
    }
    kinds = [
        {"label": k.label, "element": k.element, "occupancy": k.occupancy, "b_iso": k.b_iso}
        for k in counting.kinds
    ]
    values = np.stack([pattern(sample, q) for sample in range(3)]).astype(np.float32)
    return SimpleNamespace(
        path="memory",
        q=q,
        parameters={
            DIAMETER: np.array(DIAMETERS), SIGMA: np.array(SIGMAS), STRAIN: np.array(STRAINS),
            B_SCALE: np.array(B_SCALES), VARIANT: np.zeros(3, dtype=np.int64),
        },
        n_samples=3,
        n_variants=1,
        shards=[(0, 3)],
        attrs={
            "material": "PbS", "energy_kev": ENERGY, "particle": "xray",
            "variants": [{"title": "sphere", "kinds": kinds}],
            "config": {
                "material": {
                    "name": material.name, "space_group": material.space_group,
                    "cell_angstrom": list(material.cell_angstrom),
                    "sites": {
                        kind.label: {"element": kind.element, "position": list(position),
                                     "occupancy": kind.occupancy, "b_iso": kind.b_iso}
                        for kind, position in zip(material.kinds, material.positions, strict=True)
                    },
                },
                "b_iso": {}, "anomalous": True, "compton": compton, "grid": {"tail": TAIL},
            },
        },
        read=lambda start, stop: values[start:stop],
        basis=lambda variant: basis,
        near=lambda variant: basis,
    )  # fmt: skip


__all__ = ["Motion", "dot_store", "pattern"]
