#!/usr/bin/env bash
# Simulate a grid of patterns: MPI ranks on several nodes share its shards and write one store.
#
#   sbatch slurm/simulate.sh experiment=allara2024 store.path=runs/allara2024.zarr
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 slurm/simulate.sh ...
#
# Submit from the repository. What stands behind the script are Hydra overrides of qd-simulate, what stands before it are
# options of sbatch, which win over the lines below. Cluster settings live in slurm/site.env (README.md in this folder).
# A finished shard is a commit, so a job that is interrupted at any moment goes on with the missing shards; the template
# asks for that itself before its time limit (job.sh). Each reason stands above its line.

# The name in squeue and of the log.
#SBATCH --job-name=qd-simulate
# Two nodes show that the store is shared; one is as good.
#SBATCH --nodes=2
# One rank per GPU: as many as --gpus-per-node. Without GPUs: as many as fit the cores.
#SBATCH --ntasks-per-node=2
# One core computes or feeds the GPU, one writes shards and answers the other ranks.
#SBATCH --cpus-per-task=2
# Short jobs are started in gaps of the schedule, and an unfinished grid goes on in the next one.
#SBATCH --time=01:00:00
# In the folder of submission, since SLURM does not create folders and a job without its log file fails unseen.
#SBATCH --output=%x-%j.log
# A restarted job goes on in the same log.
#SBATCH --open-mode=append
# Allow SLURM (lost node, preemption) and job.sh (time limit) to start the job again.
#SBATCH --requeue
# Two minutes before the time limit; B: to the batch script only, which then stops the ranks.
#SBATCH --signal=B:USR1@120

set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} ]]; then
  (( $# )) || set -- experiment=smoke
  printf -v overrides ' %q' "$@"
  cat >&2 <<HELP
slurm/simulate.sh is a SLURM batch script and this is not a SLURM job. Submit it from the repository:
    sbatch slurm/simulate.sh$overrides
Or run the command here, on two MPI ranks or in one process:
    mpiexec -n 2 python -m mpi4py -m hpc.simulate$overrides
    python -m hpc.simulate$overrides
HELP
  exit 2
fi

# sbatch copies this file to a spool folder on the node, so $0 does not lead to the repository; the working folder does.
if [[ ! -f slurm/job.sh ]]; then
  echo "expected to run in the repository, got $PWD: submit from there, or with sbatch --chdir=REPOSITORY" >&2
  exit 2
fi
source slurm/job.sh

# MPICH's ranks tell each other their addresses through srun, whose pmi2 cuts lines at 1024 characters. Those of UCX can be
# longer, and then the job hangs (pmodels/mpich issue 6924); those of OFI are short. Other libraries are left alone.
if [[ -e $QD_VENV/lib/libmpi.so ]]; then export MPIR_CVAR_CH4_NETMOD=${MPIR_CVAR_CH4_NETMOD:-ofi}; fi

# --mpi            the wire-up protocol of the MPI library; with a wrong one every rank would be alone (qd-simulate refuses)
# -K1              one dead rank ends the step; the others would wait for it until the time limit
# --cpus-per-task  since SLURM 22.05 srun does not take it over from the job
# -m mpi4py        an exception on one rank aborts all of them
run_step TERM srun --mpi="${QD_SRUN_MPI:-pmi2}" -K1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  python -u -m mpi4py -m hpc.simulate "$@"
