#!/usr/bin/env bash
# Train a network on a store with DistributedDataParallel: one process per GPU on several nodes.
#
#   sbatch slurm/train_ddp.sh experiment=allara2024 data.store=runs/allara2024.zarr
#   sbatch --dependency=afterok:SIMULATE_JOB --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 slurm/train_ddp.sh ...
#
# Submit from the repository. What stands behind the script are Hydra overrides of qd-train, what stands before it are
# options of sbatch, which win over the lines below. Cluster settings live in slurm/site.env (README.md in this folder).
# Before the time limit training saves its state, and the job goes back into the queue and resumes (job.sh).
# Each reason stands above its line.

# The name in squeue and of the log.
#SBATCH --job-name=qd-train
# Two nodes show that gradients cross the network; one is as good while it holds enough GPUs.
#SBATCH --nodes=2
# One process per GPU: as many as --gpus-per-node.
#SBATCH --ntasks-per-node=2
# One core drives the GPU, one reads shards.
#SBATCH --cpus-per-task=2
# Several hours between two saves and two waits in the queue.
#SBATCH --time=04:00:00
# In the folder of submission, since SLURM does not create folders and a job without its log file fails unseen.
#SBATCH --output=%x-%j.log
# A restarted job goes on in the same log.
#SBATCH --open-mode=append
# Allow SLURM (lost node, preemption) and job.sh (time limit) to start the job again.
#SBATCH --requeue
# Two minutes before the time limit, enough to finish a step and save; B: to the batch script only, which passes it on.
#SBATCH --signal=B:USR1@120

set -euo pipefail

if [[ -z ${SLURM_JOB_ID:-} ]]; then
  (( $# )) || set -- experiment=smoke
  printf -v overrides ' %q' "$@"
  cat >&2 <<HELP
slurm/train_ddp.sh is a SLURM batch script and this is not a SLURM job. Submit it from the repository:
    sbatch slurm/train_ddp.sh$overrides
Or run the command here, in two processes or in one:
    torchrun --nproc-per-node 2 -m qdml.train$overrides
    python -m qdml.train$overrides
HELP
  exit 2
fi

# sbatch copies this file to a spool folder on the node, so $0 does not lead to the repository; the working folder does.
if [[ ! -f slurm/job.sh ]]; then
  echo "expected to run in the repository, got $PWD: submit from there, or with sbatch --chdir=REPOSITORY" >&2
  exit 2
fi
source slurm/job.sh

# Rendezvous: rank 0 runs on the first node. SLURM's own address of it is reachable from the others even where its name is not.
read -r first_node < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(scontrol show node "$first_node" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
# Jobs on one node differ in id; 10000-29999 is below the range from which Linux takes ports for outgoing connections.
MASTER_PORT=$((10000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT

# -K1              one dead process ends the step; the others would wait for it until the time limit
# --cpus-per-task  since SLURM 22.05 srun does not take it over from the job
# output           from the job id: one folder for all processes and all restarts, so that a restart finds its state
# trainer.threads  what the job has been given; the cores that a process sees may belong to others too
run_step USR1 srun -K1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  python -u -m qdml.train output="runs/$SLURM_JOB_ID" trainer.threads="${SLURM_CPUS_PER_TASK:-1}" "$@"
