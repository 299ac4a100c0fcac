"""Patterns to try `qd-predict` on, for those who have no measurement at hand: `python -m qdml.example OUTDIR`.

Five PbS samples whose size, dispersion and strain are those of no training pattern, as a synchrotron
would record them (`hpc.instrument.recorded`, conf/instrument/synchrotron_strip.yaml): the dots' exact pattern at the
wavelength, with neighbours that move together; their solvent, a flat background, zero error, resolution, polarisation,
absorption and photons; written as 2θ, intensity and σ. They are perfect spheres, so they are easier than real dots.
`truth.json` beside them holds what went in.
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
    from hpc.instrument.recorded import Recorded

__all__ = ["SAMPLES", "Sample", "main", "write_samples"]

WAVELENGTH = 0.564162  # [Å], 22 keV
INSTRUMENT = "synchrotron_strip"
TWO_THETA = (5.0, 88.0, 0.012)  # first, last, step [degrees]; Q from 1 to 15.4 Å⁻¹
ZERO_DEG = 0.005
AIR_SHARE = 0.3  # of what is not nanocrystal
#: c of the first shells of neighbours.
CORRELATION = (0.5, 0.3, 0.15)
_Q_STEP = 0.004  # of the simulation [Å⁻¹]


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
    """A file of conf/liquid/."""
    fraction: float
    """Nanocrystals' share of the area of the pattern."""
    peak_counts: float
    """Counts at the highest point."""

    @property
    def file(self) -> str:
        """Name of its file, with size and wavelength, decimal points as `p`."""
        return f"pbs_{self.diameter_nm:.2f}nm_{self.solvent}_wl{WAVELENGTH}".replace(".", "p") + ".xye"


SAMPLES = (
    Sample(diameter_nm=3.13, sigma=0.11, strain=0.0028, solvent="hexane", fraction=0.55, peak_counts=600_000),
    Sample(
        diameter_nm=3.86, sigma=0.07, strain=0.0019, solvent="toluene", fraction=0.40, peak_counts=300_000
    ),
    Sample(
        diameter_nm=4.72, sigma=0.13, strain=0.0012, solvent="toluene", fraction=0.50, peak_counts=800_000
    ),
    Sample(diameter_nm=5.67, sigma=0.09, strain=0.0007, solvent="hexane", fraction=0.35, peak_counts=250_000),
    Sample(
        diameter_nm=6.91, sigma=0.08, strain=0.0003, solvent="hexane", fraction=0.60, peak_counts=1_000_000
    ),
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

    for number, sample in enumerate(samples):
        recorded = _record(sample, seed=seed + number)
        header = (
            f"simulated measurement of PbS quantum dots in {sample.solvent}\n"
            f"wavelength {WAVELENGTH} Å\n2theta (degrees)  intensity (arbitrary unit)  sigma"
        )
        columns = np.column_stack([recorded.two_theta, recorded.intensity, recorded.sigma])
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


def _record(sample: Sample, *, seed: int) -> Recorded:
    """What the instrument writes."""
    import numpy as np

    from hpc.dots import dot_pattern
    from hpc.instrument.recorded import Sample as Placed
    from hpc.instrument.recorded import ideal_window, measure
    from hpc.instrument.setup import load_instrument
    from hpc.structure.material import load_material
    from hpc.structure.variant import Variant

    instrument = load_instrument(INSTRUMENT, wavelength=WAVELENGTH).with_window(*TWO_THETA)
    low, high = ideal_window(instrument)
    q = np.arange(low - _Q_STEP, high + 2 * _Q_STEP, _Q_STEP)
    motion = {"correlation": CORRELATION}
    dots = dot_pattern(
        Variant.from_config({"material": load_material("pbs"), "shape": "sphere", "motion": motion}),
        q=q,
        diameter_nm=sample.diameter_nm,
        sigma=sample.sigma,
        strain=sample.strain,
        energy_kev=instrument.radiation.energy_kev,
        tail=1e-4,
    )
    air = AIR_SHARE * (1 - sample.fraction)
    placed = Placed(
        zero_deg=ZERO_DEG,
        displacement_mm=0.0,
        # Of what is not air; so that the dots have their share of everything.
        solvents={sample.solvent: 1 - sample.fraction / (1 - air)},
        background=air,
    )
    return measure(q, dots, instrument, placed, peak_counts=sample.peak_counts, seed=seed)


if __name__ == "__main__":
    sys.exit(main())
