"""qd-pattern: one model particle or one structure file -> I(Q).

    qd-pattern sphere --material pbs --diameter-nm 4 --energy-kev 22 --q 0.5 20 0.01 -o out.xy
    qd-pattern sphere --material pbs --diameter-nm 4 --sigma 0.1 --strain 0.002 --wavelength 1.5406 --q 1 7 0.01
    qd-pattern cluster.xyz --energy-kev 22 --b-iso Pb=1.3 S=1.2 --q 0.5 20 0.01 -o out.xy

Model particles are exact (pair counts on the lattice); files go through the moment histogram of `hpc.pairs`. The
output has two columns, Q [Å⁻¹] and I [electron units of the whole particle, or per atom], behind a header that
holds every parameter.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from hpc.material import Material

__all__ = ["file_pattern", "main", "read_structure"]


def read_structure(path: str | Path) -> tuple[list[str], list[np.ndarray]]:
    """Elements and positions of a structure file (anything ASE reads).

    Returns:
        Element symbols in alphabetical order and, for each, (n, 3) float64 positions [Å].

    Raises:
        ValueError: the file is missing, unreadable, empty, or holds positions that are not finite.
    """
    import ase
    import ase.io
    import numpy as np

    if not Path(path).is_file():
        raise ValueError(
            f"{path} does not exist; give a structure file (.xyz, .cif, ...) or a shape such as 'sphere'"
        )
    try:
        atoms = ase.io.read(path)
    except Exception as error:  # ASE's readers raise whatever their formats make them raise
        raise ValueError(
            f"{path} cannot be read as a structure ({type(error).__name__}: {error}); "
            "expected a file that ASE reads, such as .xyz"
        ) from error
    assert isinstance(atoms, ase.Atoms)  # without an index, ASE gives one structure: the last
    if len(atoms) == 0:
        raise ValueError(f"{path} holds no atoms")
    symbols = np.array(atoms.get_chemical_symbols())
    positions = np.asarray(atoms.get_positions(), dtype=np.float64)
    if not np.isfinite(positions).all():
        raise ValueError(
            f"{path}: atom {int(np.argwhere(~np.isfinite(positions))[0, 0]) + 1} has a position that is not finite"
        )
    elements = sorted(set(symbols.tolist()))
    return elements, [positions[symbols == element] for element in elements]


def file_pattern(
    elements: Sequence[str],
    positions: list[np.ndarray],
    *,
    q: np.ndarray,
    energy_kev: float | None,
    b_iso: dict[str, float],
    anomalous: bool = True,
    compton: bool = True,
    per_atom: bool = False,
) -> np.ndarray:
    """I(Q) of a particle given by its atoms.

    Args:
        elements: chemical symbols.
        positions: for each element, (n, 3) float64 [Å].
        q: (q,) float64 [Å⁻¹].
        energy_kev: photon energy [keV]; needed with `anomalous`.
        b_iso: Debye-Waller factor by element [Å²]; 0 for those that are not named.
        anomalous: f' and f'' by energy.
        compton: add incoherent scattering.
        per_atom: divide by the number of atoms.

    Returns:
        (q,) float64 [electron units].
    """
    import numpy as np

    from hpc.debye import coefficients, intensity
    from hpc.material import Kind
    from hpc.pairs import partial_sums_of_positions

    kinds = tuple(Kind(label=e, element=e, occupancy=1.0, b_iso=b_iso.get(e, 0.0)) for e in elements)
    terms = coefficients(kinds, q, energy_kev=energy_kev, anomalous=anomalous, with_compton=compton)
    n_atoms = np.array([len(one) for one in positions], dtype=np.float64)
    total = intensity(partial_sums_of_positions(positions, q), n_atoms, terms.pair(), terms.self)
    return total / n_atoms.sum() if per_atom else total


def _read_b_iso(words: Sequence[str] | None, labels: Sequence[str]) -> dict[str, float]:
    """`0.7`, or `Pb=1.3 S=1.2`, by label."""
    if not words:
        return {}
    try:
        if len(words) == 1 and "=" not in words[0]:
            values = dict.fromkeys(labels, float(words[0]))
        else:
            values = {label: float(number) for label, number in (word.split("=") for word in words)}
    except ValueError:
        raise ValueError(
            f"--b-iso takes one number, or LABEL=NUMBER for each site, got {' '.join(words)}"
        ) from None
    unknown = sorted(set(values) - set(labels))
    if unknown:
        raise ValueError(f"--b-iso: the sites are {list(labels)}, got {unknown}")
    if not all(0 <= value < 100 for value in values.values()):
        raise ValueError(f"--b-iso must lie in 0 to 100 Å², got {' '.join(words)}")
    return values


def _read_q(minimum: float, maximum: float, step: float) -> np.ndarray:
    from hpc.config import QConfig
    from hpc.grid import q_values

    return q_values(QConfig(min=minimum, max=maximum, step=step))


def _energy(chosen: argparse.Namespace) -> float | None:
    """The photon energy [keV], from either option; None only without anomalous scattering."""
    from hpc.form_factors import check_energy, energy_of_wavelength

    if chosen.wavelength is not None:
        return energy_of_wavelength(chosen.wavelength)
    if chosen.energy_kev is None and chosen.no_anomalous:
        return None
    if chosen.energy_kev is None:
        raise ValueError(
            "the photon energy is missing: f' and f'' depend on it and there is no default; "
            "add --energy-kev 22 (or --wavelength 0.5636), or --no-anomalous to leave them out"
        )
    return check_energy(chosen.energy_kev)


def _material(chosen: argparse.Namespace) -> Material:
    from hpc.material import load_material

    if chosen.material is None:
        raise ValueError("a model particle needs --material, for example --material pbs")
    material = load_material(chosen.material)
    return material.with_b_iso(_read_b_iso(chosen.b_iso, material.labels))


def _compute(chosen: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, dict[str, object]]:
    """q, intensity and the parameters for the header."""
    from hpc.crystal import SHAPES

    q, energy = _read_q(*chosen.q), _energy(chosen)
    switches = {
        "anomalous": not chosen.no_anomalous,
        "compton": not chosen.no_compton,
        "per_atom": chosen.per_atom,
    }
    common: dict[str, object] = {"energy_kev": energy, **switches}
    model_only = {
        "--material": chosen.material,
        "--diameter-nm": chosen.diameter_nm,
        "--centre": chosen.centre,
    }
    if chosen.source in SHAPES:
        if chosen.diameter_nm is None:
            raise ValueError("a model particle needs --diameter-nm, for example --diameter-nm 4")
        from hpc.dots import dot_pattern

        material = _material(chosen)
        values = dot_pattern(
            material,
            q=q,
            diameter_nm=chosen.diameter_nm,
            sigma=chosen.sigma,
            strain=chosen.strain,
            energy_kev=energy,
            shape=chosen.source,
            centres=chosen.centre,
            **switches,
        )
        described = {
            "shape": chosen.source,
            "material": material.name,
            "cell_angstrom": " ".join(f"{x:g}" for x in material.cell_angstrom),
            "diameter_nm": chosen.diameter_nm,
            "sigma": chosen.sigma,
            "strain": chosen.strain,
            "centres": " ".join(chosen.centre or material.labels),
            "b_iso": " ".join(f"{kind.label}={kind.b_iso:g}" for kind in material.kinds),
        }
        return q, values, {**described, **common}
    given = [option for option, value in model_only.items() if value is not None]
    given += [option for option, value in (("--sigma", chosen.sigma), ("--strain", chosen.strain)) if value]
    if given:
        raise ValueError(
            f"{', '.join(given)} belong to a model particle {sorted(SHAPES)}, got the file {chosen.source}"
        )
    elements, positions = read_structure(chosen.source)
    b_iso = _read_b_iso(chosen.b_iso, elements)
    values = file_pattern(elements, positions, q=q, energy_kev=energy, b_iso=b_iso, **switches)
    described = {
        "file": Path(chosen.source).name,
        "atoms": " ".join(f"{e}={len(p)}" for e, p in zip(elements, positions, strict=True)),
        "b_iso": " ".join(f"{e}={b_iso.get(e, 0.0):g}" for e in elements),
    }
    return q, values, {**described, **common}


def _write(q: np.ndarray, values: np.ndarray, parameters: dict[str, object], target: str | None) -> None:
    """Two columns with 15 significant digits behind a '#' header; to a file in one piece, or to standard output."""
    unit = "electron units per atom" if parameters["per_atom"] else "electron units"
    lines = [f"# {name}: {value}" for name, value in parameters.items()]
    lines.append(f"# Q [1/angstrom]   I [{unit}]")
    lines += [f"{x:.12g} {y:.15g}" for x, y in zip(q, values, strict=True)]
    text = "\n".join(lines) + "\n"
    if target is None:
        sys.stdout.write(text)
        return
    part = Path(f"{target}.{os.getpid()}.part")
    try:
        part.write_text(text)
        os.replace(part, target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ValueError(f"cannot write {target}: {error.strerror}; choose another -o") from error
    print(f"{target}: {len(q)} points, {q[0]:g} to {q[-1]:g} 1/Å")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qd-pattern",
        description="One model particle or one structure file -> I(Q) by the Debye scattering equation.",
    )
    parser.add_argument(
        "source", help="a shape (sphere) or a structure file (.xyz, .cif, anything ASE reads)"
    )
    parser.add_argument("--material", help="material of a model particle, for example pbs")
    parser.add_argument("--diameter-nm", type=float, help="number-mean diameter of a model particle")
    parser.add_argument(
        "--sigma",
        type=float,
        default=0.0,
        help="relative standard deviation of the diameter (0: one particle)",
    )
    parser.add_argument("--strain", type=float, default=0.0, help="isotropic lattice strain")
    parser.add_argument(
        "--centre", nargs="+", help="site labels to cut around; averaged. Default: every site of the material"
    )
    parser.add_argument(
        "--b-iso", nargs="+", metavar="B", help="Debye-Waller factors in Å²: 0.7, or Pb=1.3 S=1.2"
    )
    parser.add_argument("--energy-kev", type=float, help="photon energy; there is no default")
    parser.add_argument("--wavelength", type=float, help="wavelength in Å, instead of the energy")
    parser.add_argument("--no-anomalous", action="store_true", help="leave out f' and f''")
    parser.add_argument("--no-compton", action="store_true", help="leave out incoherent scattering")
    parser.add_argument("--per-atom", action="store_true", help="divide by the number of atoms")
    parser.add_argument(
        "--q", nargs=3, type=float, required=True, metavar=("MIN", "MAX", "STEP"), help="1/Å, MAX included"
    )
    parser.add_argument("-o", "--output", help="file to write; standard output when left out")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of qd-pattern."""
    chosen = _parser().parse_args(arguments)
    if chosen.energy_kev is not None and chosen.wavelength is not None:
        print("qd-pattern: error: give --energy-kev or --wavelength, not both", file=sys.stderr)
        sys.exit(2)
    try:
        q, values, parameters = _compute(chosen)
        _write(q, values, parameters, chosen.output)
    except ValueError as error:
        print(f"qd-pattern: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
