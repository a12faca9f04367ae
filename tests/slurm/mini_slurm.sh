#!/usr/bin/env bash
# A real SLURM on one machine: one controller and NODES daemons that call
# themselves n1, n2, ... Debian's slurm-wlm and munge; as root; no systemd, no
# cgroups, no database.
#   mini_slurm.sh start DIR [NODES] | stop DIR
# `start` prints the path of the configuration for SLURM_CONF.
set -euo pipefail

usage="usage: $0 start DIR [NODES] | stop DIR"
step=${1:?$usage}
dir=$(realpath -m "${2:?$usage}")
nodes=${3:-2}
mark="# mini_slurm"

start_munge() {
  if [[ -S /run/munge/munge.socket.2 ]]; then return; fi
  install -d -o munge -g munge -m 755 /run/munge
  if [[ ! -f /etc/munge/munge.key ]]; then
    (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
    chown munge: /etc/munge/munge.key
  fi
  setpriv --reuid=munge --regid=munge --clear-groups \
    munged --pid-file=/run/munge/munged.pid
  cp /run/munge/munged.pid "$dir/run/munged.pid"
}

# cred_expire: how long SLURM keeps a requeued job waiting, 120 s if not given.
configure() {
  local host
  host=$(hostname -s)
  cat >"$dir/slurm.conf" <<CONF
ClusterName=mini
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=cred_expire=5
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/run/slurmctld.pid
SlurmdPidFile=$dir/run/slurmd.%n.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=5
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17001-$((17000 + nodes))] CPUs=4 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP
CONF
}

start() {
  mkdir -p "$dir"/{state,spool,log,run}
  start_munge
  local i
  # JAX's coordinator is the name of the first node: it has to resolve.
  for ((i = 1; i <= nodes; i++)); do
    echo "127.0.0.1 n$i $mark" >>/etc/hosts
  done
  configure
  export SLURM_CONF=$dir/slurm.conf
  slurmctld -f "$SLURM_CONF"
  for ((i = 1; i <= nodes; i++)); do
    slurmd -f "$SLURM_CONF" -N "n$i"
  done
  for ((i = 0; i < 80; i++)); do
    if [[ $(sinfo -h -t idle -o %D) == "$nodes" ]]; then
      echo "$SLURM_CONF"
      return
    fi
    sleep 0.25
  done
  sinfo >&2
  return 1
}

# /etc/hosts may be mounted, so that it can be written but not replaced.
stop() {
  local file rest
  for file in "$dir"/run/*.pid; do
    if [[ -e $file ]]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
  rest=$(grep -v "$mark\$" /etc/hosts)
  echo "$rest" >/etc/hosts
}

case $step in
start) start ;;
stop) stop ;;
*)
  echo "$usage" >&2
  exit 2
  ;;
esac
