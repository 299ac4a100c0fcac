"""A stress set on disk: one zarr v3 group for each, readable by `xarray.open_zarr`.

    q (q,)                    float64   shown Q [Å⁻¹]
    mask (q,)                 bool      visible
    intensity (pattern, q)    float32   counts over scale, area 1000
    diameter, sigma, strain, fraction, scale (pattern,) float64; solvent (pattern,) int64
    attrs: stress, fingerprint, checksum, config, units, software

A set is made once: beside its place, then renamed into it. What lies there with another fingerprint is refused, never
replaced: two numbers of one row of a table must be of the same patterns.
"""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qdml.stress.make import Design, StressSet, make_set
from qdml.stress.sets import StressConfig

__all__ = ["open_set", "read_set", "write_set"]

# Design field -> (name in the file, unit, meaning).
_COLUMNS = {
    "diameter_nm": ("diameter", "nm", "number-mean diameter D; of the ball of equal volume for other shapes"),
    "sigma": ("sigma", "1", "relative standard deviation of the diameter"),
    "strain": ("strain", "1", "isotropic lattice strain"),
    "solvent": ("solvent", "1", "index into the attribute solvents"),
    "fraction": ("fraction", "1", "share of the dots in the area"),
    "scale": ("scale", "1", "photons per intensity"),
}
# Rows of one chunk: 64 x 5004 float32 are 1.3 MB.
_CHUNK = 64


def open_set(
    name: str, config: StressConfig, folder: str | Path, show: Callable[[str], None] = lambda _: None
) -> StressSet:
    """A stored set; made and stored first where there is none.

    Args:
        name: of the set, and of its group `<name>.zarr` in the folder.
        config: what it has to hold.
        folder: of all sets.
        show: called with a line when something takes time.

    Raises:
        ValueError: what is stored is another set, or damaged; or a set that cannot be made.
    """
    path = Path(folder) / f"{name}.zarr"
    if not path.exists():
        show(f"stress set {name}: simulating {config.n_patterns} patterns (once)")
        write_set(path, name, config, make_set(config))
    return read_set(path, config)


def write_set(path: Path, name: str, config: StressConfig, content: StressSet) -> None:
    """Store a set; it is there whole, or not at all."""
    from importlib.metadata import version

    import zarr

    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    attributes = {
        "stress": name,
        "title": config.title,
        "fingerprint": config.fingerprint,
        "checksum": _checksum(content),
        "config": asdict(config),
        "solvents": list(config.solvents),
        "units": {"q": "1/angstrom", "diameter": "nm", "intensity": "counts over scale"},
        "software": {package: version(package) for package in ("debye-dots", "numpy", "zarr")},
    }
    root = zarr.create_group(building, attributes=attributes)

    def add(key: str, values: np.ndarray, axes: tuple[str, ...], unit: str, meaning: str) -> None:
        chunks = (min(_CHUNK, values.shape[0]), *values.shape[1:]) if values.ndim > 1 else values.shape
        array = root.create_array(
            key,
            shape=values.shape,
            dtype=values.dtype,
            chunks=chunks,
            dimension_names=axes,
            attributes={"units": unit, "long_name": meaning},
        )
        array[...] = values

    add("q", content.q, ("q",), "1/angstrom", "shown scattering vector, uniform")
    add("mask", content.mask, ("q",), "1", "visible")
    add("intensity", content.intensity, ("pattern", "q"), "counts over scale", "as measured")
    for field, (key, unit, meaning) in _COLUMNS.items():
        add(key, getattr(content.design, field), ("pattern",), unit, meaning)
    with warnings.catch_warnings():
        # zarr-python warns that other programs may not know consolidated metadata; xarray warns without them.
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(building)
    building.rename(path)


def read_set(path: Path, config: StressConfig) -> StressSet:
    """Read a stored set.

    Raises:
        ValueError: no set, another one, or numbers that are not those that were written.
    """
    import zarr

    try:
        root: Any = zarr.open_group(path, mode="r")
        stored = dict(root.attrs)
        values = {key: np.asarray(root[key][...]) for key in ("q", "mask", "intensity")}
        design = Design(**{field: np.asarray(root[key][...]) for field, (key, *_) in _COLUMNS.items()})
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is no stress set ({error}); delete it, and it will be made again"
        ) from error
    if stored.get("fingerprint") != config.fingerprint:
        raise ValueError(
            f"{path} holds another set: its fingerprint is {stored.get('fingerprint')}, conf/stress asks for "
            f"{config.fingerprint}. Numbers of both must not stand in one table: choose another stress.folder, or "
            "delete this one"
        )
    content = StressSet(**values, design=design)
    if (found := _checksum(content)) != stored["checksum"]:
        raise ValueError(
            f"{path} is damaged: its checksum is {found}, {stored['checksum']} was written; delete it, and it will "
            "be made again"
        )
    return content


def _checksum(content: StressSet) -> str:
    """16 hexadecimal digits of every number of a set."""
    digest = hashlib.sha256()
    columns = [getattr(content.design, field) for field in _COLUMNS]
    for values in (content.q, content.mask, content.intensity, *columns):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
