"""Patterns to try `qd-predict` on, for those who have no measurement at hand: `python -m qdml.example OUTDIR`.

Five PbS samples whose size, dispersion and strain lie between the points of any training grid, as a synchrotron
would record them: the dots' exact pattern at the wavelength, their solvent, air scattering, resolution and counting
noise, written as 2θ, intensity and σ. They are perfect spheres, so they are easier than real dots. `truth.json` beside
them holds what went in.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["SAMPLES", "Sample", "main", "write_samples"]

WAVELENGTH = 0.564162  # [Å], 22 keV
TWO_THETA = (2.0, 88.0, 0.012)  # first, last, step [degrees]; Q up to 15.4 Å⁻¹
RESOLUTION = 0.005  # FWHM [Å⁻¹]: a capillary of 1 mm in front of a strip detector
AIR_SHARE = 0.3  # of what is not nanocrystal
_Q_STEP = 0.002  # of the simulation [Å⁻¹]: the standard deviation of the resolution


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One made-up measurement."""

    diameter_nm: float
    """Number-mean diameter D [nm]."""
    sigma: float
    """Relative standard deviation of the diameter."""
    strain: float
    """Isotropic strain."""
    solvent: str
    """A name of `qdml.augmentation.solvents.LIQUIDS`."""
    fraction: float
    """Nanocrystals' share of the area of the pattern."""
    peak_counts: float
    """Counts at the highest point."""

    @property
    def file(self) -> str:
        """Name of its file, with size and wavelength, decimal points as `p`."""
        return f"pbs_{self.diameter_nm:.2f}nm_{self.solvent}_wl{WAVELENGTH}".replace(".", "p") + ".xye"


SAMPLES = (
    Sample(diameter_nm=3.13, sigma=0.11, strain=0.0028, solvent="hexane", fraction=0.55, peak_counts=60_000),
    Sample(diameter_nm=3.86, sigma=0.07, strain=0.0019, solvent="toluene", fraction=0.40, peak_counts=30_000),
    Sample(diameter_nm=4.72, sigma=0.13, strain=0.0012, solvent="toluene", fraction=0.50, peak_counts=80_000),
    Sample(diameter_nm=5.67, sigma=0.09, strain=0.0007, solvent="hexane", fraction=0.35, peak_counts=20_000),
    Sample(diameter_nm=6.91, sigma=0.08, strain=0.0003, solvent="hexane", fraction=0.60, peak_counts=100_000),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m qdml.example",
        description="Write simulated measurements of PbS dots to try qd-predict on.",
    )
    parser.add_argument("output", type=Path, metavar="OUTDIR", help="folder for the files")
    options = parser.parse_args(arguments)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(
            f"qdml.example: error: cannot make the folder {options.output}: {error.strerror}", file=sys.stderr
        )
        return 2
    for path in write_samples(options.output):
        print(path)
    print(f"{options.output / 'truth.json'}: what went in; to size them, give --wavelength {WAVELENGTH}")
    return 0


def write_samples(folder: Path, samples: Sequence[Sample] = SAMPLES, *, seed: int = 0) -> list[Path]:
    """Simulate the samples and write one `.xye` each, and `truth.json`.

    Args:
        folder: an existing folder.
        samples: what to simulate.
        seed: of the counting noise.

    Returns:
        the files of the samples.
    """
    import numpy as np

    from hpc.ensemble import volume_mean_diameter

    first, last, step = TWO_THETA
    two_theta = first + step * np.arange(round((last - first) / step) + 1)
    q = 4 * np.pi * np.sin(np.radians(two_theta) / 2) / WAVELENGTH
    generator = np.random.default_rng(seed)
    for sample in samples:
        expected = _expected(sample, q)
        per_count = expected.max() / sample.peak_counts
        counts = generator.poisson(expected / per_count)
        header = (
            f"simulated measurement of PbS quantum dots in {sample.solvent}\n"
            f"wavelength {WAVELENGTH} Å\n2theta (degrees)  intensity (arbitrary unit)  sigma"
        )
        columns = np.column_stack([two_theta, counts * per_count, np.sqrt(np.maximum(counts, 1)) * per_count])
        np.savetxt(
            folder / sample.file, columns, fmt=("%9.4f", "%14.6f", "%12.6f"), header=header, encoding="utf-8"
        )
    truth = [
        {"file": one.file, "diameter_volume_nm": float(volume_mean_diameter(one.diameter_nm, one.sigma))}
        | asdict(one)
        for one in samples
    ]
    (folder / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="utf-8")
    return [folder / sample.file for sample in samples]


def _expected(sample: Sample, q: np.ndarray) -> np.ndarray:
    """(q,) float64: the pattern without noise, of mean 100."""
    import numpy as np
    from scipy.interpolate import CubicSpline
    from scipy.ndimage import gaussian_filter1d

    from hpc.dots import dot_pattern
    from hpc.form_factors import energy_of_wavelength
    from hpc.structure.material import load_material
    from qdml.augmentation.solvents import liquid_profile

    uniform = np.arange(q[0] - 0.02, q[-1] + 0.02, _Q_STEP)
    dots = dot_pattern(
        load_material("pbs"),
        q=uniform,
        diameter_nm=sample.diameter_nm,
        sigma=sample.sigma,
        strain=sample.strain,
        energy_kev=energy_of_wavelength(WAVELENGTH),
        tail=1e-4,
    )
    dots = gaussian_filter1d(dots, RESOLUTION / np.sqrt(8 * np.log(2)) / _Q_STEP, mode="nearest")
    dots = CubicSpline(uniform, dots)(q)
    solvent = liquid_profile(sample.solvent, q)
    air = np.exp(-q / 2) + 0.15
    # Shares are those of the window that networks see: below 1 Å⁻¹ small-angle scattering takes over.
    window = q > 1.0
    shares = (
        (sample.fraction, dots),
        ((1 - sample.fraction) * (1 - AIR_SHARE), solvent),
        ((1 - sample.fraction) * AIR_SHARE, air),
    )
    return sum((100 * share * part / part[window].mean() for share, part in shares), start=np.zeros_like(q))


if __name__ == "__main__":
    sys.exit(main())
