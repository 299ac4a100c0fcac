"""Simulate liquids once, and tabulate how their molecules are ordered: conf/liquid/tables/.

    pip install openmm
    python benchmarks/simulate_liquids.py hexane toluene --out conf/liquid/tables

Molecular dynamics at the density and temperature of the liquid's file (OpenMM, CPU). Its groups are Lennard-Jones
sites with charges (Lorentz-Berthelot, cut at 12 Å, beyond which a reaction field continues charges); bonds, angles and
fixed dihedrals are springs around the file's geometry (bonds to a hydrogen are rigid), torsions follow its potentials,
and sites up to three bonds apart do not interact (as in TraPPE: M. G. Martin & J. I. Siepmann, J. Phys. Chem. B 102,
2569 (1998)). Molecules start far apart, are pressed together at 600 K, relax, and are then sampled at the liquid's
temperature. Hydrogens are put on the groups of every sample; what is written is h(r) = g(r) - 1 between atoms of
different molecules by pair of elements, in bins of 0.1 Å.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numba
import numpy as np
import openmm
from openmm import unit

from hpc.liquids.liquid import Liquid, load_liquid
from hpc.liquids.molecule import bond_counts, conformers, with_hydrogens

BIN = 0.1
MASS = {"H": 1.008, "C": 12.011, "O": 15.999, "Cl": 35.45}
GAS = 0.00831446261815324  # kJ/(mol K), CODATA 2018
SPRING_BOND = 200_000.0  # kJ/(mol nm²): 0.035 Å at 298 K
SPRING_ANGLE = 62500 * GAS  # kJ/(mol rad²), TraPPE
SPRING_DIHEDRAL = 200.0  # kJ/(mol rad²): 6° at 298 K
PRESSING_TEMPERATURE = 600.0


def molecular_system(liquid: Liquid, position: np.ndarray, count: int) -> openmm.System:
    """`count` molecules of the geometry `position` (rows, 3): masses, springs, torsions, interactions."""
    n, steps = len(liquid.rows), bond_counts(liquid)
    system = openmm.System()
    bonds, angles = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsions = openmm.CustomTorsionForce("c0+c1*(1+cos(theta))+c2*(1-cos(2*theta))+c3*(1+cos(3*theta))")
    for name in ("c0", "c1", "c2", "c3"):
        torsions.addPerTorsionParameter(name)
    fixed = openmm.CustomTorsionForce("k*(1-cos(theta-theta0))")
    fixed.addGlobalParameter("k", SPRING_DIHEDRAL)
    fixed.addPerTorsionParameter("theta0")
    sites = openmm.NonbondedForce()
    sites.setNonbondedMethod(sites.CutoffPeriodic)
    near = np.argwhere(np.triu((steps > 0) & (steps <= 3)))
    for molecule in range(count):
        first = molecule * n
        for row in liquid.rows:
            group = liquid.groups[row.group]
            # Light sites are made heavier, which no average of positions notices: longer steps.
            system.addParticle(max(MASS[group.element] + MASS["H"] * group.hydrogens, 4.0))
            sites.addParticle(group.charge, group.sigma / 10, group.epsilon * GAS)
        hydrogen = {i for i, row in enumerate(liquid.rows) if liquid.groups[row.group].element == "H"}
        for i, j in np.argwhere(np.triu(steps == 1)):
            length = np.linalg.norm(position[i] - position[j]) / 10
            # A bond to a hydrogen site is rigid: a spring would stretch in hydrogen bonds.
            if hydrogen & {i, j}:
                system.addConstraint(first + i, first + j, length)
            else:
                bonds.addBond(first + i, first + j, length, SPRING_BOND)
        for j in range(n):
            for i, k in itertools.combinations(np.flatnonzero(steps[j] == 1), 2):
                if {i, k} <= hydrogen:
                    system.addConstraint(first + i, first + k, np.linalg.norm(position[i] - position[k]) / 10)
                    continue
                a, b = position[i] - position[j], position[k] - position[j]
                value = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                angles.addAngle(first + i, first + j, first + k, value, SPRING_ANGLE)
        for i, row in enumerate(liquid.rows):
            if len(row.to) == 3:
                four = [first + i, *(first + k for k in row.to)]
                if isinstance(row.dihedral, str):
                    torsions.addTorsion(*four, [c * GAS for c in liquid.torsions[row.dihedral]])
                else:
                    fixed.addTorsion(*four, [np.radians(row.dihedral)])
        for i, j in near:
            sites.addException(first + i, first + j, 0.0, 0.1, 0.0)
    for force in (bonds, angles, torsions, fixed, sites):
        system.addForce(force)
    return system


def simulate(liquid: Liquid, *, sites: int, relax_ps: float, sample_ps: float, every_ps: float, seed: int):
    """Positions of the skeletons: (frame, molecule, row, 3) [Å], and the box [Å]."""
    rng = np.random.default_rng(seed)
    shapes, weight = conformers(liquid, seed=seed)
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    n = len(liquid.rows)
    count = round(sites / n)
    chosen = shapes[rng.choice(len(shapes), size=count, p=weight)]
    system = molecular_system(liquid, chosen[0], count)
    box = (count / liquid.number_density) ** (1 / 3)
    nonbonded = next(f for f in system.getForces() if isinstance(f, openmm.NonbondedForce))
    nonbonded.setCutoffDistance(min(12.0, 0.49 * box) / 10)
    nonbonded.setUseDispersionCorrection(False)

    side = int(np.ceil(count ** (1 / 3)))
    spacing = max(2 * np.linalg.norm(chosen, axis=2).max() + 3.0, box / side)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), axis=-1).reshape(-1, 3)[:count]
    turn = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    turn *= np.linalg.det(turn)[:, None, None]  # proper rotations
    position = (chosen @ turn + spacing * grid[:, None]).reshape(-1, 3)
    length = spacing * side

    integrator = openmm.LangevinMiddleIntegrator(PRESSING_TEMPERATURE, 5.0, 0.002)
    integrator.setRandomNumberSeed(seed + 1)
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * length / 10))
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
    context.setPositions(position / 10)
    openmm.LocalEnergyMinimizer.minimize(context, maxIterations=50)
    context.setVelocitiesToTemperature(PRESSING_TEMPERATURE, seed + 1)
    while length > box:
        factor = max(0.98, box / length)
        length *= factor
        now = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        molecules = now.reshape(count, n, 3)
        centre = molecules.mean(axis=1, keepdims=True)
        context.setPeriodicBoxVectors(*(np.eye(3) * length / 10))
        context.setPositions((molecules + (factor - 1) * centre).reshape(-1, 3) / 10)
        openmm.LocalEnergyMinimizer.minimize(context, maxIterations=20)
        context.setVelocitiesToTemperature(PRESSING_TEMPERATURE)
        integrator.step(300)
    integrator.step(int(relax_ps / 2 / 0.002))
    integrator.setTemperature(liquid.temperature)
    integrator.setFriction(1.0)
    integrator.step(int(relax_ps / 0.002))
    frames = []
    for _ in range(int(sample_ps / every_ps)):
        integrator.step(int(every_ps / 0.002))
        now = context.getState(getPositions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        frames.append(np.asarray(now).reshape(count, n, 3))
    return np.array(frames), box


@numba.njit(cache=True)
def count_pairs(x, y, same, n_x, n_y, box, counts, width):
    """Add pairs of atoms to the histogram: of different molecules, of n_x and n_y atoms each."""
    half, reach = box / 2, counts.size * width
    for i in range(x.shape[0]):
        start = i + 1 if same else 0
        for j in range(start, y.shape[0]):
            if i // n_x == j // n_y:
                continue
            r2 = 0.0
            for k in range(3):
                d = abs(x[i, k] - y[j, k])
                d -= box * np.floor(d / box)
                if d > half:
                    d = box - d
                r2 += d * d
            if r2 < reach * reach:
                counts[int(np.sqrt(r2) / width)] += 1


def correlations(liquid: Liquid, frames: np.ndarray, box: float) -> dict[str, np.ndarray]:
    """h(r) between molecules by pair of elements, in bins of BIN up to half the box."""
    n_molecule = frames.shape[1]
    bins = int(box / 2 / BIN)
    counts: dict[tuple[str, str], np.ndarray] = {}
    kinds = sorted(liquid.composition)
    for frame in frames:
        atoms, elements, _ = with_hydrogens(liquid, frame)
        by_kind = {
            kind: np.ascontiguousarray(atoms[:, [e == kind for e in elements]].reshape(-1, 3))
            for kind in kinds
        }
        for n, a in enumerate(kinds):
            for b in kinds[n:]:
                table = counts.setdefault((a, b), np.zeros(bins))
                x, y = by_kind[a], by_kind[b]
                per = (len(x) // n_molecule, len(y) // n_molecule)
                count_pairs(x, y, a == b, *per, box, table, BIN)
    edge = BIN * np.arange(bins + 1)
    shell = 4 / 3 * np.pi * np.diff(edge**3)
    result = {}
    for (a, b), table in counts.items():
        n_a, n_b = liquid.composition[a], liquid.composition[b]
        pairs = n_molecule * (n_molecule - 1) * n_a * n_b / (2 if a == b else 1)
        result[f"{a}-{b}"] = table / (len(frames) * pairs * shell / box**3) - 1
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("liquids", nargs="+", help="names in conf/liquid/")
    parser.add_argument("--out", type=Path, default=Path("conf/liquid/tables"), help="folder of the tables")
    parser.add_argument("--sites", type=int, default=1500, help="about how many sites to simulate")
    parser.add_argument("--relax-ps", type=float, default=60.0)
    parser.add_argument("--sample-ps", type=float, default=300.0)
    parser.add_argument("--every-ps", type=float, default=1.5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.liquids:
        start = time.perf_counter()
        liquid = load_liquid(name)
        frames, box = simulate(
            liquid,
            sites=arguments.sites,
            relax_ps=arguments.relax_ps,
            sample_ps=arguments.sample_ps,
            every_ps=arguments.every_ps,
            seed=arguments.seed,
        )
        table = correlations(liquid, frames, box)
        made = f"{frames.shape[1]} molecules, box {box:.3f} Å, {len(frames)} frames in {arguments.sample_ps:g} ps"
        lines = [
            f"# {name}: h(r) = g(r) - 1 between atoms of different molecules, in bins of {BIN} Å from r = 0.",
            f"# Made by benchmarks/simulate_liquids.py: {made}.",
            f"bin_angstrom: {BIN}",
            f"box_angstrom: {box:.4f}",
            "h:",
            *(f"  {pair}: [{', '.join(f'{x:.4g}' for x in values)}]" for pair, values in table.items()),
        ]
        (arguments.out / f"{name}.yaml").write_text("\n".join(lines) + "\n")
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
