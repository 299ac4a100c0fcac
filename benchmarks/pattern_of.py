"""One program computes the pattern of one particle, in a process of its own: what `bench_pairs.py` starts.

    python benchmarks/pattern_of.py PROGRAM particle.npz result.npz REPEATS

particle.npz holds position (n, 3) [Å], element (n,) and q (q,) [Å⁻¹], uniform. All programs are asked for I(Q) of
rigid atoms (B = 0) without f' and f''. result.npz gets q as the program has it, intensity in the normalisation of the
Debye equation (every pair twice), and the form factors it took, f (kind, q) by alphabetical order of elements. One
JSON line says seconds of the wall clock and of the processors for each repeat, peak memory and version. It needs NumPy
and the program alone, so that programs may live in different environments.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

Pattern = tuple[np.ndarray, np.ndarray, np.ndarray]


def debye_dots(
    position: np.ndarray, element: np.ndarray, q: np.ndarray, *, tolerance: float = 1e-6
) -> Callable[[], Pattern]:
    from hpc.debye import iq
    from hpc.form_factors import scattering_factor

    f = np.stack([scattering_factor(e, q, energy_kev=None, anomalous=False).real for e in np.unique(element)])
    return lambda: (q, iq(position, element, q, anomalous=False, tolerance=tolerance), f)


def debyecalculator(position: np.ndarray, element: np.ndarray, q: np.ndarray) -> Callable[[], Pattern]:
    import torch
    from debyecalculator import DebyeCalculator

    step = (q[-1] - q[0]) / (len(q) - 1)
    calculator = DebyeCalculator(
        qmin=q[0], qmax=q[-1] + step / 2, qstep=step, biso=0.0, device="cpu", dtype=torch.float64
    )
    table, own_q = calculator.FORM_FACTOR_COEF, calculator.q.numpy()[:, 0]
    f = np.stack([calculator.form_factor_func(table[e]).numpy() for e in np.unique(element)])
    atoms = (element.tolist(), torch.from_numpy(position))
    # It sums every pair once, and half of the self term.
    return lambda: (own_q, 2 * calculator.iq(atoms).i, f)


def pyausaxs(position: np.ndarray, element: np.ndarray, q: np.ndarray) -> Callable[[], Pattern]:
    from pyausaxs import sasview

    # It knows constant amplitudes only.
    kinds = np.unique(element)
    amplitude = dict(zip(kinds, np.linspace(80.0, 16.0, len(kinds)), strict=True))
    weight = np.array([amplitude[e] for e in element])
    f = np.outer(list(amplitude.values()), np.ones(len(q)))
    axes = [np.ascontiguousarray(axis) for axis in position.T]
    return lambda: (q, np.array(sasview.debye_no_ff(q, *axes, weight)), f)


PROGRAMS: dict[str, Callable[..., Callable[[], Pattern]]] = {
    "debye-dots": debye_dots,
    "debye-dots to 1e-9": partial(debye_dots, tolerance=1e-9),
    "debyecalculator": debyecalculator,
    "pyausaxs": pyausaxs,
}


def peak_memory() -> float:
    """Of this process so far [MB]. Not `ru_maxrss`, which starts from that of the process that started this one."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e3
    raise RuntimeError("/proc/self/status has no VmHWM: peak memory is known on Linux alone")


def main(program: str, particle: str, result: str, repeats: str) -> None:
    with np.load(particle) as given:
        position, element, q = (given[name] for name in ("position", "element", "q"))
    # Whatever is compiled or imported late, on a small part of the particle.
    PROGRAMS[program](position[:200], element[:200], q)()
    compute = PROGRAMS[program](position, element, q)
    before = peak_memory()
    wall, processor = [], []
    for _ in range(int(repeats)):
        start = time.perf_counter(), time.process_time()
        own_q, intensity, f = compute()
        wall.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    peak = peak_memory()
    np.savez(result, q=own_q, intensity=intensity, f=f)
    record = {"wall_s": wall, "cpu_s": processor, "peak_mb": peak, "added_mb": peak - before}
    print(json.dumps({**record, "version": version(program.split()[0])}))


if __name__ == "__main__":
    main(*sys.argv[1:])
