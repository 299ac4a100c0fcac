# shellcheck shell=bash
# What every job of this project does around its one step. Sourced by the templates in this folder, never submitted itself.
#
# Sourcing it reads the site's settings and puts the Python environment first on PATH. Then:
#
#   run_step SIGNAL COMMAND...
#
# runs COMMAND and ends the batch script with COMMAND's exit status. When SLURM announces the time limit by sending USR1
# to the batch script (#SBATCH --signal=B:USR1@120), it passes SIGNAL on to COMMAND, waits for it to stop, and puts the job
# back into the queue: the same job id starts again with the same arguments and goes on from what is on disk. So it does
# when COMMAND stops by itself and says that it is not finished (exit status 75: training with trainer.stop_after_minutes).
# A command that fails for any other reason fails the job; it is not tried again.

fail() {
  echo "slurm/job.sh: $*" >&2
  exit 2
}

# shellcheck source=slurm/site.env.example
if [[ -f slurm/site.env ]]; then source slurm/site.env; fi

if [[ -n ${QD_MODULES:-} ]]; then
  set +u  # module functions of many sites read unset variables
  # shellcheck disable=SC2086 # several modules, separated by spaces
  module load $QD_MODULES
  set -u
fi

QD_VENV=${QD_VENV:-.venv}
[[ -x $QD_VENV/bin/python ]] || fail "expected a Python environment in $QD_VENV, found no $QD_VENV/bin/python: set QD_VENV in slurm/site.env"
export PATH=$QD_VENV/bin:$PATH

# One task per GPU. The templates ask for tasks and the site (or the command line) for GPUs, so the numbers can disagree.
if [[ -n ${SLURM_GPUS_ON_NODE:-} && $SLURM_GPUS_ON_NODE != "${SLURM_NTASKS_PER_NODE:-1}" ]]; then
  fail "expected one task per GPU, got ${SLURM_NTASKS_PER_NODE:-1} tasks and $SLURM_GPUS_ON_NODE GPUs per node:" \
    "submit with sbatch --ntasks-per-node=$SLURM_GPUS_ON_NODE"
fi

# Exit status of a command that has saved its state and stopped before it was finished (EX_TEMPFAIL in sysexits.h).
readonly EXIT_INTERRUPTED=75

interruptions=0
step_signal=
step_pid=

pass_on() { kill -s "$step_signal" "$step_pid" 2>/dev/null || true; }  # srun forwards it to every rank; it may be gone by now

on_time_limit() {
  interruptions=$((interruptions + 1))
  if [[ -n $step_pid ]]; then pass_on; fi
}
trap on_time_limit USR1

requeue() {
  local restarts=${SLURM_RESTART_COUNT:-0} limit=${QD_MAX_REQUEUES:-20}
  # A job that gets nowhere between two time limits would otherwise come back for ever.
  (( restarts < limit )) || fail "not requeued: restarted $restarts times, and QD_MAX_REQUEUES is $limit"
  echo "slurm/job.sh: requeue job $SLURM_JOB_ID (restart $((restarts + 1)) of at most $limit)"
  scontrol requeue "$SLURM_JOB_ID"
}

run_step() {
  step_signal=$1
  "${@:2}" &
  step_pid=$!
  if (( interruptions )); then pass_on; fi  # announced while the step was being started

  # A trapped signal ends `wait` early: wait again until it returns without one.
  local status seen=-1
  until (( interruptions == seen )); do
    seen=$interruptions status=0
    wait "$step_pid" || status=$?
  done

  case $status in
    "$EXIT_INTERRUPTED") requeue ;;  # saved and stopped
    # By number, ended by one of KILL, USR1, TERM: ours, or srun's -K1 that follows the first rank to go.
    $((128 + 9)) | $((128 + 10)) | $((128 + 15))) if (( interruptions )); then requeue; fi ;;
  esac
  exit "$status"
}
