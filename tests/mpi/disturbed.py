"""qd-simulate with an accident: `python -m mpi4py disturbed.py RANK ACCIDENT PART [overrides]`.

The rank with the number RANK suffers ACCIDENT (kill, value-error, os-error, bug) when it puts a file whose path
contains PART into the store; others dawdle, so that it gets its turn. ACCIDENT "slow" makes every rank dawdle.
"""

import os
import signal
import sys
import time

from hpc import simulate, store_writing
from hpc.store import StoreError

RANK, ACCIDENT, PART = int(sys.argv[1]), sys.argv[2], sys.argv[3]
del sys.argv[1:4]
mine = int(os.environ.get("PMI_RANK", "0")) == RANK
put = store_writing._replace


def _replace(file, content):
    if ACCIDENT == "slow" or not mine:
        time.sleep(0.1)
    elif PART in str(file):
        if ACCIDENT == "kill":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_name(f"{file.name}.{os.getpid()}.part").write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        if ACCIDENT == "value-error":
            raise StoreError(f"cannot store {file.name} on rank {RANK}")
        if ACCIDENT == "os-error":
            raise OSError(28, "No space left on device")
        raise RuntimeError(f"a bug on rank {RANK}")
    put(file, content)


store_writing._replace = _replace
simulate.main()
