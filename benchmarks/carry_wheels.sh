#!/usr/bin/env bash
# Collect what debye-dots needs on a CUDA machine that reaches no package index.
#
#   bash benchmarks/carry_wheels.sh [PYTHON_VERSION]        default 3.12
#
# Fills build/wheels (git ignores it), about 55 MB: copy it there together with the checkout. The machine is expected to
# have Python of that version with NumPy, SciPy, Numba, h5py, matplotlib, rich, safetensors, threadpoolctl, tensorboard,
# pytest, xarray, CuPy, mpi4py, and torch with CUDA; benchmarks/on_gpu.sh installs the rest from here.
set -euo pipefail
cd "$(dirname "$0")/.."
python_version=${1:-3.12}
wheels=build/wheels
limit_mib=60

# As in constraints/cpu.txt. hydra-core needs antlr4, which is published as source only: built here.
packages=(
    array-api-compat ase donfig gemmi google-crc32c hydra-core mpich numcodecs omegaconf periodictable xraydb
    xraylib zarr zuko
    platformdirs SQLAlchemy     # of xraydb
)
from_source=(antlr4-python3-runtime)

rm -rf "$wheels"
mkdir -p "$wheels"
pinned() { grep -i "^$1==" constraints/cpu.txt; }

python3 -m pip download --quiet --dest "$wheels" --no-deps --only-binary=:all: --python-version "$python_version" \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
    $(for package in "${packages[@]}"; do pinned "$package"; done)
for package in "${from_source[@]}"; do
    python3 -m pip wheel --quiet --wheel-dir "$wheels" --no-deps "$(pinned "$package")"
done
# Its code is not used (the checkout comes first), but programs ask for the version of debye-dots.
rm -rf build/lib build/bdist.*     # of an earlier wheel: its files would be carried although they are gone by now
python3 -m pip wheel --quiet --wheel-dir "$wheels" --no-deps .

# A copy of the files has no history.
git rev-parse HEAD > "$wheels/COMMIT"
test -z "$(git status --porcelain)" || echo "$(git rev-parse HEAD)+" > "$wheels/COMMIT"

size_mib=$(du -sm "$wheels" | cut -f1)
ls -lh "$wheels" | awk 'NR > 1 { print $5, $9 }'
echo "$wheels holds $size_mib MiB for Python $python_version"
if [ "$size_mib" -gt "$limit_mib" ]; then
    echo "error: more than $limit_mib MiB; leave out what the machine has" >&2
    exit 1
fi
