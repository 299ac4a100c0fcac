"""qd-store: look at a finished store, check its bytes, hand it on.

qd-store info STORE                      what it holds
qd-store verify STORE                    every byte against the checksums taken when it was written
qd-store export STORE OUT.h5 | OUT.csv   HDF5 (everything) or CSV (one column per pattern)
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["export_csv", "export_hdf5", "main"]

# Patterns of one CSV file; more belong into HDF5.
_CSV_PATTERNS = 1000


def _info(path: str) -> None:
    """Print what a store holds."""
    import numpy as np

    from hpc.store import RECORDS, open_store, read_sealed

    store = open_store(path)
    print(f"{path}: {store.n_samples} patterns of {len(store.q)} points in {len(store.shards)} shards")
    print(f"  material     {store.attrs['material']}")
    print(f"  radiation    {_radiation(store.attrs)}")
    print(f"  q            {store.q[0]:g} to {store.q[-1]:g} 1/Å in steps of {store.q[1] - store.q[0]:g}")
    for name, values in store.parameters.items():
        distinct = np.unique(values)
        print(f"  {name:<12} {distinct[0]:g} to {distinct[-1]:g}, {len(distinct)} distinct")
    for index, variant in enumerate(store.attrs["variants"]):
        print(f"  variant {index:<4} {variant['title']}")
    records = [read_sealed(file) for file in sorted((Path(path) / RECORDS).glob("*.json"))]
    seconds = sum(record["seconds"] for record in records)
    ranks = len({record["rank"] for record in records})
    print(
        f"  made on      {store.attrs['device']}, {ranks} rank(s), {seconds:.1f} s of work in {len(records)} pieces"
    )
    print(f"  software     {', '.join(f'{k} {v}' for k, v in store.attrs['software'].items())}")


def _radiation(attrs: Mapping[str, Any]) -> str:
    """Name, and the energy or wavelength that patterns depend on."""
    if attrs["particle"] == "neutron":
        wavelength = attrs["wavelength_angstrom"]
        return "neutrons" if wavelength is None else f"neutrons of {wavelength:g} Å"
    energy = attrs["energy_kev"]
    return f"{attrs['radiation']}, " + ("without f' and f''" if energy is None else f"{energy} keV")


def _verify(path: str) -> None:
    """Print damaged files, if any."""
    from hpc.store import StoreError, verify_store

    problems = verify_store(path)
    if problems:
        raise StoreError(
            f"{path} is damaged, {len(problems)} file(s):\n  "
            + "\n  ".join(problems)
            + "\ndelete the store and simulate it again"
        )
    print(f"{path}: every byte is as it was written")


def export_hdf5(path: str | Path, target: str | Path) -> None:
    """Copy a store into one HDF5 file: the same arrays, names, units and attributes.

    Raises:
        StoreError: there is no finished store.
        OSError: the file cannot be written.
    """
    import json

    import h5py

    from hpc.schema import ARRAYS, BASIS_ARRAYS, INTENSITY, Q, basis_group
    from hpc.store import open_store

    store = open_store(path)
    with h5py.File(target, "w") as file:
        for name, value in store.attrs.items():
            file.attrs[name] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
        intensity = file.create_dataset(INTENSITY, shape=(store.n_samples, len(store.q)), dtype="float32")
        # Shard by shard: a store may be larger than the memory.
        for start, stop in store.shards:
            intensity[start:stop] = store.read(start, stop)
        file[Q] = store.q
        for name, values in store.parameters.items():
            file[name] = values
        fields = dict(ARRAYS)
        for variant in range(store.n_variants):
            group = basis_group(variant, store.n_variants)
            for name, values in store.basis(variant).items():
                file[f"{group}/{name}"] = values
                fields[f"{group}/{name}"] = BASIS_ARRAYS[name]
        for name, field in fields.items():
            file[name].attrs["units"] = field.units
            file[name].attrs["long_name"] = field.meaning
            for axis, label in enumerate(field.axes):
                file[name].dims[axis].label = label


def export_csv(path: str | Path, target: str | Path) -> None:
    """Write the patterns as columns beside q, with their parameters in the header lines.

    Raises:
        StoreError: there is no finished store, or it holds more patterns than a CSV file is good for.
    """
    import numpy as np

    from hpc.schema import PARAMETERS
    from hpc.store import StoreError, open_store

    store = open_store(path)
    if store.n_samples > _CSV_PATTERNS:
        raise StoreError(
            f"{path} holds {store.n_samples} patterns, a CSV file at most {_CSV_PATTERNS}; export to OUT.h5 instead"
        )
    patterns = np.concatenate([store.read(start, stop) for start, stop in store.shards])
    header = [
        f"{name}," + ",".join(f"{value:.12g}" for value in store.parameters[name]) for name in PARAMETERS
    ]
    header.append("q [1/angstrom]," + ",".join(f"sample {index}" for index in range(store.n_samples)))
    np.savetxt(
        target,
        np.column_stack((store.q, patterns.T)),
        delimiter=",",
        fmt="%.9g",
        header="\n".join(header),
        comments="",
    )


def _export(path: str, target: str) -> None:
    """Write beside the target, then rename: a failed export leaves nothing behind."""
    exporters = {".h5": export_hdf5, ".hdf5": export_hdf5, ".csv": export_csv}
    suffix = Path(target).suffix.lower()
    if suffix not in exporters:
        raise ValueError(f"the export's name must end in {', '.join(exporters)}, got {target}")
    part = f"{target}.{os.getpid()}.part"
    try:
        exporters[suffix](path, part)
        os.replace(part, target)
    finally:
        Path(part).unlink(missing_ok=True)
    print(f"{target}: {Path(target).stat().st_size / 1e6:.1f} MB")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of qd-store."""
    parser = argparse.ArgumentParser(
        prog="qd-store", description="Look at a finished store, check its bytes, hand it on."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("info", help="what the store holds").add_argument("store")
    commands.add_parser("verify", help="compare every byte with the checksums").add_argument("store")
    export = commands.add_parser("export", help="copy to HDF5 (.h5) or CSV (.csv)")
    export.add_argument("store")
    export.add_argument("target", help="OUT.h5 or OUT.csv")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "info":
            _info(chosen.store)
        elif chosen.command == "verify":
            _verify(chosen.store)
        else:
            _export(chosen.store, chosen.target)
    except (ValueError, OSError) as error:
        print(f"qd-store: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
