#!/usr/bin/env bash
# A real SLURM on this one machine: slurmctld, two slurmd (= two nodes with 4 CPUs and 2 fake GPUs each) and munged.
#
#   bash tests/slurm/slurm_sim.sh up        start it; prints the `export SLURM_CONF=...` that points the commands at it
#   bash tests/slurm/slurm_sim.sh status    nodes and jobs
#   bash tests/slurm/slurm_sim.sh down      cancel every job, stop the daemons
#
# Needs sbatch, slurmctld, slurmd and munged (Debian: apt-get install slurm-wlm munge); neither root nor systemd nor cgroups.
# SLURM_SIM_DIR   everything it writes (default /tmp/slurm-sim-$UID); short, because a socket path has at most 107 characters
# SLURM_SIM_PORT  first of three free ports (default 16817)
set -euo pipefail

readonly nodes=2 cpus=4 gpus=2
readonly action=${1:-} dir=${SLURM_SIM_DIR:-/tmp/slurm-sim-$UID} port=${SLURM_SIM_PORT:-16817}
export SLURM_CONF=$dir/slurm.conf

nodes_usable() { [[ $(sinfo --noheader --Node --states=idle,mixed,allocated --format=%N 2>/dev/null | sort -u | wc -l) == "$nodes" ]]; }

queue_empty() { [[ -z $(timeout 5 squeue --noheader 2>/dev/null) ]]; }

pid_of() { cat "$dir/run/$1.pid" 2>/dev/null; }  # NAME

running() {  # NAME: is the daemon that this script started under NAME still there?
  local pid
  pid=$(pid_of "$1") && [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "${1%%.*}" ]]
}

gone() { ! grep -qs '^State:[[:space:]]*[^ZX]' "/proc/$1/status"; }  # PID: ended, even if nobody has asked for its status

wait_until() {  # TENTHS COMMAND...: repeat COMMAND until it succeeds, for so many tenths of a second
  local left=$1
  until "${@:2}"; do (( left-- > 0 )) || return 1; sleep 0.1; done
}

write_configuration() {
  # The number at the end of a device file becomes CUDA_VISIBLE_DEVICES; SLURM insists on a device, and takes a link to one.
  for ((gpu = 0; gpu < gpus; gpu++)); do ln -sfn /dev/null "$dir/dev/nvidia$gpu"; done
  cat > "$dir/gres.conf" <<CONF
AutoDetect=off
NodeName=n[1-$nodes] Name=gpu Type=fake File=$dir/dev/nvidia[0-$((gpus - 1))]
CONF
  # cred_expire: a requeued job starts again only after its old credential has expired (default 120 s, 5 s is the least allowed).
  # FirstJobId: templates derive a network port from the job id, so two simulated clusters must not share ids.
  # MinJobAge: finished jobs stay visible to `scontrol show job`; there is no accounting database.
  # config_overrides: nodes may claim more CPUs than this machine has.
  cat > "$SLURM_CONF" <<CONF
ClusterName=sim
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthInfo=socket=$dir/run/munge.socket,cred_expire=5
FirstJobId=$port
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
KillWait=5
MinJobAge=3600
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=1
SlurmdParameters=config_overrides
CONF
  for ((node = 1; node <= nodes; node++)); do
    echo "NodeName=n$node NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + node))" \
      "CPUs=$cpus CoresPerSocket=$cpus RealMemory=1000 Gres=gpu:fake:$gpus State=UNKNOWN" >> "$SLURM_CONF"
  done
  echo "PartitionName=all Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP" >> "$SLURM_CONF"
}

up() {
  mkdir -p "$dir"/{run,log,state,dev,spool/n1,spool/n2}
  chmod 755 "$dir" "$dir/run"
  write_configuration
  if ! running munged; then
    [[ -s $dir/munge.key ]] || (umask 077 && head -c 1024 /dev/urandom > "$dir/munge.key")
    # --force: munged dislikes that its folders lie below a world-writable one
    munged --force --key-file="$dir/munge.key" --socket="$dir/run/munge.socket" --pid-file="$dir/run/munged.pid" \
      --log-file="$dir/log/munged.log" --seed-file="$dir/run/munge.seed"
  fi
  running slurmctld || slurmctld -f "$SLURM_CONF"
  for ((node = 1; node <= nodes; node++)); do
    running "slurmd.n$node" || slurmd -f "$SLURM_CONF" -N "n$node"
  done
  wait_until 200 nodes_usable || {
    echo "slurm_sim: expected $nodes usable nodes after 20 s; last lines of the logs in $dir/log:" >&2
    tail -n 5 "$dir"/log/*.log >&2
    exit 1
  }
  echo "export SLURM_CONF=$SLURM_CONF"
}

down() {
  local name pid pids=()
  if running slurmctld; then  # jobs would outlive the daemons
    timeout 10 scancel --user="$(id -un)" || true
    wait_until 100 queue_empty || echo "slurm_sim: jobs are still there" >&2
  fi
  # Each takes two seconds to end: ask all of them, then wait.
  for name in slurmd.n1 slurmd.n2 slurmctld munged; do
    if running "$name"; then pids+=("$(pid_of "$name")"); fi
  done
  (( ${#pids[@]} )) || return 0
  kill "${pids[@]}"
  for pid in "${pids[@]}"; do wait_until 50 gone "$pid" || kill -KILL "$pid"; done
}

case $action in
  up) up ;;
  down) down ;;
  status) sinfo --Node --long; squeue ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
