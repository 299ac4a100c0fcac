"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

from hpc.memory import keep_freed_memory

# A process of its own: what it tells the C library holds to its end.
PROGRAM = """
import resource, sys
import numpy as np
from hpc.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        arrays = [np.ones(2**17) for _ in range(8)]
        del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


def test_freed_arrays_are_kept_for_the_next_ones() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc, whose heap this is about")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    given_back, kept = map(int, done.stdout.split())
    # 20 times 8 MiB are 40 960 pages.
    assert given_back > 10_000
    assert kept < 1_000
