#!/usr/bin/env bash
# Start a real SLURM on this machine alone: munged, slurmctld and a slurmd per node, all as root.
#
#   tests/slurm/start.sh          install (Debian or Ubuntu, with apt) and start; does nothing if one runs already
#   tests/slurm/stop.sh           end what this started
#
# Environment:
#   PIPELINE_SLURM_NODES      nodes, each a slurmd with a port and a spool of its own (default 2)
#   PIPELINE_SLURM_CPUS       CPUs that each node offers (default: the machine's share, at least 2 whatever it has)
#   PIPELINE_SLURM_KILL_WAIT  seconds between SIGTERM and SIGKILL at a time limit (default 10; sites use 30)
#
# Exit status: 0 SLURM answers; 3 it cannot be had here (no root, or no packages): not a failure of the project.
set -euo pipefail

MARKER="# written by tests/slurm/start.sh"
CONFIGURATION=/etc/slurm/slurm.conf
SPOOL=/var/spool/pipeline_slurm
HOST="$(hostname -s)"

unavailable() { echo "no SLURM here: $1" >&2; exit 3; }

# Whether there are nodes and all of them can be used.
answers() {
    local states
    command -v sinfo >/dev/null && states="$(timeout 10 sinfo --noheader --Node --format=%T 2>/dev/null)" &&
        [ -n "$states" ] && ! grep -qvE '^(idle|mixed|allocated|completing)$' <<<"$states"
}

if answers; then
    echo "SLURM answers already"
    exit 0
fi
[ "$(id -u)" = 0 ] || unavailable "installing and starting it needs root"
if [ -e "$CONFIGURATION" ] && ! grep -qF "$MARKER" "$CONFIGURATION"; then
    unavailable "$CONFIGURATION belongs to a cluster that does not answer; it is left alone"
fi

if ! command -v slurmctld >/dev/null || ! command -v slurmd >/dev/null || ! command -v munged >/dev/null; then
    command -v apt-get >/dev/null || unavailable "slurm-wlm and munge are not installed and there is no apt-get"
    log="$(mktemp)"
    export DEBIAN_FRONTEND=noninteractive
    # A mirror that does not answer, or another apt at work, shall cost minutes at most.
    patience=(-o Acquire::Retries=2 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o DPkg::Lock::Timeout=60)
    install=(timeout 300 apt-get "${patience[@]}" install --yes --quiet --no-install-recommends slurm-wlm munge)
    # The package lists of a fresh container are empty or old: fetched only when the first try fails.
    if ! "${install[@]}" >"$log" 2>&1; then
        if ! { timeout 120 apt-get "${patience[@]}" update --quiet && "${install[@]}"; } >>"$log" 2>&1; then
            tail -n 20 "$log" >&2
            unavailable "apt-get could not install slurm-wlm and munge"
        fi
    fi
    rm -f "$log"
fi

mkdir -p "$SPOOL/state" /var/log/slurm /run/munge /etc/munge /var/lib/munge /var/log/munge
chown -R root:root /run/munge /etc/munge /var/lib/munge /var/log/munge
chmod 755 /run/munge
chmod 700 /etc/munge /var/lib/munge /var/log/munge
if [ ! -s /etc/munge/munge.key ]; then
    (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
fi
chmod 600 /etc/munge/munge.key
# The socket of a munged that was killed stays behind, hence the question to the daemon itself.
if ! munge -n </dev/null >/dev/null 2>&1; then
    munged --force
fi

nodes="${PIPELINE_SLURM_NODES:-2}"
cpus="${PIPELINE_SLURM_CPUS:-$(($(nproc) / nodes))}"
if [ -z "${PIPELINE_SLURM_CPUS:-}" ] && [ "$cpus" -lt 2 ]; then cpus=2; fi
# As with the CPUs: enough for one job of the tests on each node, whatever the machine has.
memory_mb="$(awk -v nodes="$nodes" '/^MemTotal/ {mb = int($2 / 1024 * 0.9 / nodes); print mb < 6000 ? 6000 : mb}' /proc/meminfo)"

mkdir -p "$(dirname "$CONFIGURATION")"
# config_overrides: a node offers the CPUs and the memory written here even where the machine has less.
# OverMemoryKill: without cgroups this is what ends a job that takes more memory than it asked for.
# A MinJobAge as large as this keeps ended jobs in squeue, where the executor looks for them without accounting.
cat >"$CONFIGURATION" <<END
$MARKER
ClusterName=pipeline
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,requeue_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
GresTypes=gpu
StateSaveLocation=$SPOOL/state
SlurmdSpoolDir=$SPOOL/slurmd.%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/pipeline_slurmd.%n.pid
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmdLogFile=/var/log/slurm/slurmd.%n.log
SlurmdParameters=config_overrides
JobRequeue=1
MinJobAge=3600
KillWait=${PIPELINE_SLURM_KILL_WAIT:-10}
BatchStartTimeout=60
SlurmdTimeout=60
ReturnToService=2
InactiveLimit=0
Waittime=0
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
END
# Several nodes on one machine: each has a port (Debian builds SLURM for that), and the names are SLURM's alone.
# One GPU each, in name only: SLURM wants a device file, and nothing here confines a job to its devices. What is tested
# is that the jobs ask for them.
: >/etc/slurm/gres.conf
for index in $(seq "$nodes"); do
    echo "NodeName=pipeline$index NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((17000 + index)) CPUs=$cpus" \
        "RealMemory=$memory_mb Gres=gpu:1 State=UNKNOWN" >>"$CONFIGURATION"
    echo "NodeName=pipeline$index Name=gpu File=/dev/null" >>/etc/slurm/gres.conf
done
# No cgroups: containers seldom let a daemon make them. From 23.02 on they can be switched off by name; before, the
# plugin for version 1 is the one that starts without touching anything.
case "$(slurmd -V)" in
    *" "1*|*" "20.*|*" "21.*|*" "22.*) echo "CgroupPlugin=cgroup/v1" >/etc/slurm/cgroup.conf ;;
    *) echo "CgroupPlugin=disabled" >/etc/slurm/cgroup.conf ;;
esac

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }
# -c: nothing of an earlier run is taken over.
running /run/slurmctld.pid || slurmctld -c
for index in $(seq "$nodes"); do
    running "/run/pipeline_slurmd.pipeline$index.pid" || slurmd -N "pipeline$index"
done

for _ in $(seq 60); do
    if answers; then
        sinfo
        exit 0
    fi
    # A node that was down when the controller stopped comes back as down.
    scontrol update nodename="pipeline[1-$nodes]" state=resume >/dev/null 2>&1 || true
    sleep 0.5
done
echo "slurmctld or slurmd did not come up; the ends of their logs:" >&2
tail -n 15 /var/log/slurm/slurmctld.log /var/log/slurm/slurmd.pipeline*.log >&2
exit 1
