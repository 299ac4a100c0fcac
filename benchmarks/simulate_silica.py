"""Simulate silica glass once, and tabulate its structure: conf/container/tables/silica.yaml.

    pip install openmm
    python benchmarks/simulate_silica.py --out conf/container/tables

Molecular dynamics with the potential of B. W. H. van Beest, G. J. Kramer & R. A. van Santen (Phys. Rev. Lett. 64, 1955
(1990); OpenMM, CPU): ideal beta-cristobalite is melted at 6000 K, cooled linearly to 300 K at the density of the glass
and sampled there. Below 1.2 Å (Si-O) and 1.7 Å (O-O), where that potential falls to minus infinity, a steep wall keeps
atoms apart. Charges are cut at 10 Å and continued by a reaction field, which a glass tolerates (A. Carré, L. Berthier,
J. Horbach, S. Ispas & W. Kob, J. Chem. Phys. 127, 114512 (2007)). What is written is h(r) = g(r) - 1 by pair of
elements, in bins of 0.05 Å.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import openmm
from openmm import unit
from simulate_liquids import count_pairs

BIN = 0.05
EV = 96.48533212  # kJ/mol
DENSITY = 2.20  # g/cm³
MELT, GLASS = 6000.0, 300.0  # K
# A [eV], b [1/Å], C [eV Å⁶], distance of the wall [Å] by pair; charges [e].
BKS = {("O", "O"): (1388.7730, 2.76, 175.0, 1.7), ("O", "Si"): (18003.7572, 4.87318, 133.5381, 1.2)}
CHARGE = {"Si": 2.4, "O": -1.2}
CUTOFF = 0.6  # nm
CHARGE_CUTOFF = 1.0  # nm


def cristobalite(cells: int) -> tuple[np.ndarray, list[str], float]:
    """Positions [Å], elements and edge [Å] of ideal beta-cristobalite at the density of the glass."""
    edge = (8 * 60.0843 / DENSITY / 0.602214076) ** (1 / 3)
    face = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    silicon = np.concatenate([face, face + 0.25])
    bridge = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 8
    oxygen = (face[:, None] + bridge).reshape(-1, 3)
    cell = np.concatenate([silicon, oxygen])
    shift = np.stack(np.meshgrid(*[np.arange(cells)] * 3), axis=-1).reshape(-1, 1, 3)
    elements = ["Si"] * len(silicon) + ["O"] * len(oxygen)
    return ((cell + shift).reshape(-1, 3) * edge), elements * cells**3, edge * cells


def glass_system(elements: list[str], box: float) -> openmm.System:
    """Charges with a reaction field, the rest by a function of the pair's kinds."""
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * box / 10))
    charges = openmm.NonbondedForce()
    charges.setNonbondedMethod(charges.CutoffPeriodic)
    charges.setCutoffDistance(CHARGE_CUTOFF)
    pairs = openmm.CustomNonbondedForce(
        "a*exp(-b*r) - c/r^6*inside + wall; inside = step(r-w); wall = 1e5*(w-r)*(w-r)*10*step(w-r);"
        "a = A(k1,k2); b = B(k1,k2); c = C(k1,k2); w = W(k1,k2)"
    )
    # Columns of the tables: O, Si.
    values = np.zeros((4, 2, 2))
    values[1] = 1.0
    for (x, y), (a, b, c, wall) in BKS.items():
        i, j = ("O", "Si").index(x), ("O", "Si").index(y)
        values[:, i, j] = values[:, j, i] = (a * EV, b * 10, c * EV * 1e-6, wall / 10)
    for name, table in zip("ABCW", values, strict=True):
        pairs.addTabulatedFunction(name, openmm.Discrete2DFunction(2, 2, table.T.ravel().tolist()))
    pairs.addPerParticleParameter("k")
    pairs.setNonbondedMethod(pairs.CutoffPeriodic)
    pairs.setCutoffDistance(CUTOFF)
    mass = {"Si": 28.085, "O": 15.999}
    for element in elements:
        system.addParticle(mass[element])
        charges.addParticle(CHARGE[element], 0.1, 0.0)
        pairs.addParticle([("O", "Si").index(element)])
    system.addForce(charges)
    system.addForce(pairs)
    return system


def main() -> None:
    """Melt, cool, sample, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("conf/container/tables"), help="folder of the table")
    parser.add_argument("--cells", type=int, default=3, help="cells of cristobalite along each edge")
    parser.add_argument("--melt-ps", type=float, default=10.0)
    parser.add_argument("--cool-ps", type=float, default=40.0)
    parser.add_argument("--sample-ps", type=float, default=6.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    position, elements, box = cristobalite(arguments.cells)
    integrator = openmm.LangevinMiddleIntegrator(MELT, 2.0, 0.001)
    integrator.setRandomNumberSeed(arguments.seed)
    context = openmm.Context(
        glass_system(elements, box), integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"}
    )
    context.setPositions(position / 10)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(MELT, arguments.seed)
    integrator.step(int(arguments.melt_ps * 1000))
    stages = 100
    for stage in range(stages):
        integrator.setTemperature(MELT + (GLASS - MELT) * (stage + 1) / stages)
        integrator.step(int(arguments.cool_ps * 1000 / stages))
    integrator.step(2000)
    kinds = np.array(elements)
    bins = int(box / 2 / BIN)
    counts = {pair: np.zeros(bins) for pair in (("O", "O"), ("O", "Si"), ("Si", "Si"))}
    frames = int(arguments.sample_ps / 0.2)
    for _ in range(frames):
        integrator.step(200)
        now = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        for (a, b), table in counts.items():
            x, y = np.ascontiguousarray(now[kinds == a]), np.ascontiguousarray(now[kinds == b])
            count_pairs(x, y, a == b, 0, 0, box, table, BIN)
    shell = 4 / 3 * np.pi * np.diff((BIN * np.arange(bins + 1)) ** 3)
    lines = [
        f"# Silica glass: h(r) = g(r) - 1, in bins of {BIN} Å from r = 0.",
        f"# Made by benchmarks/simulate_silica.py: {len(elements)} atoms, box {box:.3f} Å, {frames} frames.",
        f"bin_angstrom: {BIN}",
        f"box_angstrom: {box:.4f}",
        "h:",
    ]
    for (a, b), table in counts.items():
        n_a, n_b = int((kinds == a).sum()), int((kinds == b).sum())
        pairs = n_a * (n_a - 1) / 2 if a == b else n_a * n_b
        h = table / (frames * pairs * shell / box**3) - 1
        lines.append(f"  {a}-{b}: [{', '.join(f'{x:.4g}' for x in h)}]")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "silica.yaml").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
