#!/usr/bin/env bash
# Everything that needs a GPU, on a machine that has one: tests, benchmarks, a data set, training. One results file.
#
#   bash benchmarks/on_gpu.sh [RESULTS_FOLDER] [STEP ...]     all steps, or those named (default: benchmarks/results)
#   bash benchmarks/on_gpu.sh --dry-run [RESULTS_FOLDER]      without a GPU: small sizes, and what needs one is left out
#   bash benchmarks/on_gpu.sh --list                          the steps, their commands, and the tests that need a GPU
#
# Writes RESULTS_FOLDER/on_gpu.md (Markdown, with the records as JSON lines at its end). Logs and data go to build/on_gpu
# (or $QD_WORK), which is emptied first; the store and the model of train-production-gpu go to build/production (or
# $QD_KEPT) and stay, so that a later run continues the training. A step that fails does not stop the later ones; the
# exit status is 1 if any failed.
# The steps come by value: all of them together have $QD_LIMIT_S seconds (540; 0 is no limit, as in a dry run), and those
# that the time does not reach are left out.
# Packages that the machine lacks are installed there from build/wheels (benchmarks/carry_wheels.sh); no network is used.
set -uo pipefail
cd "$(dirname "$0")/.."

# ------------------------------------------------------------------------------------------------------------- steps
# step NAME (cpu|gpu) DESCRIPTION, commands on standard input. They run in the root of the repository with: $work a folder
# for data, $kept one that is not emptied, $records the file of JSON lines, $experiment and $quick the size of the run,
# $left_s the seconds that are left (0: no limit). Status 77: a tool is missing.
steps=()
declare -A needs describes commands
step() {
    [ -z "${needs[$1]:-}" ] || { echo "error: two steps are named $1" >&2; exit 2; }
    steps+=("$1")
    needs[$1]=$2
    describes[$1]=$3
    commands[$1]=$(cat)
}

step machine cpu "What is here" << 'END'
python3 --version
python3 -c 'import numba, numpy, torch, zarr; print("numpy", numpy.__version__, "numba", numba.__version__, "torch", torch.__version__, "zarr", zarr.__version__)'
mpiexec --version | head -n 1
nvcc --version | tail -n 1 || echo "no nvcc: kernels are not compiled for other GPUs"
nvidia-smi || echo "no nvidia-smi"
END

step mpi cpu "Two MPI ranks find each other" << 'END'
mpiexec -n 2 python3 -m mpi4py -c 'from mpi4py import MPI; assert MPI.COMM_WORLD.size == 2, MPI.COMM_WORLD.size'
END

step gpu-tests gpu "Every test that needs a GPU; none may skip" << 'END'
QD_REQUIRE_GPU=1 python3 -m pytest tests -m gpu -q
END

step pair-benchmarks-gpu gpu "Pair moments of off-lattice particles on the GPU, beside their ceilings, and variants of the kernel" << 'END'
python3 benchmarks/bench_pair_kernel.py --device cuda --output "$records" $quick
END

step kernel-benchmarks-gpu gpu "Pair histograms, float64 products and patterns per second on the GPU, beside their ceilings" << 'END'
python3 benchmarks/bench_kernels.py --device cuda --output "$records" $quick
END

step augmentation-benchmark-gpu gpu "Augmented patterns per second on the GPU, effect by effect" << 'END'
python3 benchmarks/bench_augmentation.py --device cuda --output "$records" $quick
END

step simulate-production-gpu gpu "The basis of endless dots: five shapes up to 30 nm" << 'END'
python3 -m hpc.simulate experiment=production device=cuda store.path="$kept/store.zarr"
END

step ensemble-benchmark-gpu gpu "Endless dots on the GPU: patterns per second, and how exact" << 'END'
python3 benchmarks/bench_ensemble.py --device cuda --store "$kept/store.zarr" --output "$records" $quick
END

step training-benchmark-gpu gpu "A training step in float32 and bfloat16, with and without torch.compile" << 'END'
python3 benchmarks/bench_training.py --device cuda --store "$kept/store.zarr" --output "$records" $quick
END

step sanitizer-memcheck gpu "No access outside memory, by compute-sanitizer" << 'END'
command -v compute-sanitizer || { echo "compute-sanitizer is not on this machine"; exit 77; }
QD_REQUIRE_GPU=1 compute-sanitizer --tool memcheck --error-exitcode 1 python3 -m pytest -q -m gpu -p no:cacheprovider \
    tests/kernels/test_pairs_cuda.py tests/kernels/test_nested_cuda.py -k "carries or plan or all_pairs"
END

step sanitizer-racecheck gpu "No race on shared memory, by compute-sanitizer" << 'END'
command -v compute-sanitizer || { echo "compute-sanitizer is not on this machine"; exit 77; }
QD_REQUIRE_GPU=1 compute-sanitizer --tool racecheck --error-exitcode 1 python3 -m pytest -q -m gpu -p no:cacheprovider \
    tests/kernels/test_pairs_cuda.py tests/kernels/test_nested_cuda.py -k "carries or all_pairs"
END

step simulate-cpu cpu "A data set on the CPU; two MPI ranks make the same bytes as one" << 'END'
mpiexec -n 2 python3 -m mpi4py -m hpc.simulate experiment=$experiment device=cpu store.path="$work/cpu.zarr"
python3 -m hpc.storetool verify "$work/cpu.zarr"
python3 -m hpc.simulate experiment=$experiment device=cpu store.path="$work/cpu1.zarr"
python3 benchmarks/compare_stores.py "$work/cpu1.zarr" "$work/cpu.zarr" --intensity 0 --basis 0 --output "$records"
END

step simulate-gpu gpu "The same data set on the GPU, equal to that of the CPU" << 'END'
python3 -m hpc.simulate experiment=$experiment device=cuda store.path="$work/cuda.zarr"
python3 -m hpc.storetool verify "$work/cuda.zarr"
python3 benchmarks/compare_stores.py "$work/cuda.zarr" "$work/cpu.zarr" --output "$records"
END

step simulate-gpu-ranks gpu "Two MPI ranks that share the GPU make the same bytes as one" << 'END'
mpiexec -n 2 python3 -m mpi4py -m hpc.simulate experiment=$experiment device=cuda store.path="$work/cuda2.zarr"
python3 benchmarks/compare_stores.py "$work/cuda2.zarr" "$work/cuda.zarr" --intensity 0 --basis 0
END

step train-gpu gpu "Training on every GPU, DDP over NCCL if there are several, in bfloat16" << 'END'
python3 -m torch.distributed.run --standalone --nproc-per-node gpu -m qdml.train experiment=$experiment device=cuda \
    trainer.precision=bfloat16 trainer.steps=805 trainer.evaluate_every=161 data.store="$work/cuda.zarr" output="$work/model-gpu"
tail -n 1 "$work/model-gpu/metrics.jsonl"
END

step train-production-gpu gpu "The posterior on every instrument goes on from the model of the package: one part, with three quarters of the time that is left" << 'END'
# The next run of this step goes on where this one stopped. What was kept in $kept is what it needs.
python3 -m hpc.simulate experiment=production device=cuda store.path="$kept/store.zarr"
minutes=$(python3 -c "print(${left_s:-0} * 0.75 / 60 or 'null')")
python3 -m qdml.train experiment=production_more device=cuda data.store="$kept/store.zarr" output="$kept/model" \
    trainer.stop_after_minutes=$minutes || [ $? = 75 ]
tail -n 1 "$kept/model/metrics.jsonl"
END

step train-cpu cpu "Training in two DDP processes over gloo, in float32" << 'END'
python3 -m torch.distributed.run --standalone --nproc-per-node 2 -m qdml.train experiment=$experiment device=cpu \
    trainer.precision=float32 trainer.steps=40 trainer.evaluate_every=20 data.store="$work/cpu.zarr" output="$work/model-cpu"
END

step train-parts-cpu cpu "A posterior on endless dots in two parts: the same command goes on" << 'END'
python3 -m hpc.simulate experiment=smoke device=cpu store.path="$work/smoke.zarr"
for part in 1 2; do
    python3 -m qdml.train experiment=smoke data=ensemble network=posterior optim=muon device=cpu \
        data.diameter_nm=[2,3] data.sigma=[0.05,0.1] data.strain=[-0.002,0.004] data.b_scale=[1,1] network.input=area_mask \
        network.components=60 network.width=64 trainer.steps=100000 trainer.threads=1 trainer.stop_after_minutes=0.1 \
        data.store="$work/smoke.zarr" output="$work/model-parts" | tee "$work/part-$part.log" || [ $? = 75 ]
done
grep "resuming at step" "$work/part-2.log"
END

step training-benchmark-cpu cpu "A training step on one CPU core" << 'END'
python3 benchmarks/bench_training.py --device cpu --output "$records" --quick
END

step kernel-tests cpu "Kernels compiled by nvcc, executed on the CPU, compared integer for integer" << 'END'
python3 -m pytest tests/kernels -m "not gpu" -q
END

step kernel-benchmarks-cpu cpu "The same on the CPU" << 'END'
python3 benchmarks/bench_kernels.py --device cpu --output "$records" $quick
END

step augmentation-benchmark-cpu cpu "The same on one CPU core" << 'END'
python3 benchmarks/bench_augmentation.py --device cpu --output "$records" $quick
END

step ensemble-benchmark-cpu cpu "The same on one CPU core" << 'END'
python3 benchmarks/bench_ensemble.py --device cpu --output "$records" $quick
END

step store-benchmark cpu "Writing shards against a plain write of the same bytes, and reading them" << 'END'
QD_BENCH_DIR=$work python3 benchmarks/bench_store.py --device cpu --output "$records" $quick
END

# --------------------------------------------------------------------------------------------------------- arguments
mode=gpu
case ${1:-} in
    --list)
        for name in "${steps[@]}"; do
            printf '%s (%s): %s\n%s\n\n' "$name" "${needs[$name]}" "${describes[$name]}" "$(sed 's/^/    /' <<< "${commands[$name]}")"
        done
        echo "Tests that need a GPU:"
        python3 -m pytest tests -m gpu --collect-only -q
        exit
        ;;
    --dry-run) mode=dry-run; shift ;;
    -*) echo "error: expected --list, --dry-run or a folder for the results, got $1" >&2; exit 2 ;;
esac
results=${1:-benchmarks/results}
shift || true
chosen=("$@")
[ $# -gt 0 ] || chosen=("${steps[@]}")
for name in "${chosen[@]}"; do
    if [ -z "${needs[$name]:-}" ]; then
        echo "error: there is no step $name; the steps are: ${steps[*]}" >&2
        exit 2
    fi
done

# ------------------------------------------------------------------------------------------------------- environment
root=$PWD
work=${QD_WORK:-$root/build/on_gpu}
kept=${QD_KEPT:-$root/build/production}
records=$work/records.jsonl
rm -rf "$work"
mkdir -p "$work" "$results"
failed=0

record() { # STEP OUTCOME SECONDS
    printf '{"step": "%s", "outcome": "%s", "seconds": %s}\n' "$1" "$2" "$3" >> "$work/steps.jsonl"
    [ "$2" != failed ] || failed=1
}

install_wheels() {
    # mpich keeps its library outside of what --target installs: unpack it instead.
    local wheel others=()
    for wheel in build/wheels/*.whl; do
        case $wheel in
            */mpich-*) python3 -m zipfile -e "$wheel" "$work/mpich" && chmod +x "$work"/mpich/*.data/data/bin/* || return ;;
            *) others+=("$wheel") ;;
        esac
    done
    python3 -m pip install --quiet --no-index --no-deps --target "$work/packages" "${others[@]}"
}

export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 MPLBACKEND=Agg
needed='import array_api_compat, ase, gemmi, google_crc32c, hydra, xraydb, xraylib, zarr; import importlib.metadata as m; m.version("debye-dots"), m.version("zuko")'
if ! { python3 -c "$needed" && command -v mpiexec; } > /dev/null 2>&1; then
    echo "== install: packages from build/wheels"
    if [ -d build/wheels ] && install_wheels > "$work/install.log" 2>&1; then
        record install passed 0
    else
        echo "No wheels for what this machine lacks; run benchmarks/carry_wheels.sh where there is a network." >> "$work/install.log"
        cat "$work/install.log"
        record install failed 0
    fi
    export PYTHONPATH=$PYTHONPATH:$work/packages
    for data in "$work"/mpich/*.data/data; do
        export PATH=$data/bin:$PATH LD_LIBRARY_PATH=$data/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} MPI4PY_MPIABI=mpich
    done
fi
# Files that were copied without their history.
[ -e .git ] || [ ! -e build/wheels/COMMIT ] || export QD_COMMIT=$(cat build/wheels/COMMIT)

if [ $mode = dry-run ]; then
    experiment=smoke quick=--quick limit=0
else
    experiment=allara2024 quick= limit=${QD_LIMIT_S:-540}
fi
export work kept records experiment quick

# --------------------------------------------------------------------------------------------------------------- run
for name in "${chosen[@]}"; do
    if [ $mode = dry-run ] && [ "${needs[$name]}" = gpu ]; then
        echo "== $name: needs a device"
        record "$name" "needs a device" 0
        continue
    fi
    left=$((limit > 0 ? limit - SECONDS : 0)) # of `timeout`: 0 is no limit
    if [ "$limit" -gt 0 ] && [ $left -le 0 ]; then
        echo "== $name: left out, $limit s are over"
        record "$name" "no time left" 0
        continue
    fi
    echo "== $name: ${describes[$name]}"
    began=$SECONDS
    left_s=$left timeout $left bash -euo pipefail -c "${commands[$name]}" 2>&1 | tee "$work/$name.log"
    case ${PIPESTATUS[0]} in
        0) outcome=passed ;;
        77) outcome="tool is missing" ;;
        124) outcome="stopped, no time left" ;;
        *) outcome=failed && echo "== $name FAILED" ;;
    esac
    record "$name" "$outcome" $((SECONDS - began))
done
python3 benchmarks/write_results.py "$work" > "$results/on_gpu.md" || failed=1
echo "== $results/on_gpu.md"
sed -n '/^## Steps/,/^## Results/{/^|/p}' "$results/on_gpu.md"
exit $failed
