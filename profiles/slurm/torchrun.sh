#!/usr/bin/env bash
# Stands in for `python` in a training rule: one torchrun per task of this SLURM job, a process per GPU in each.
# The tasks meet at the job's first node, on a port that follows from the job's number.
set -euo pipefail
# The executor hides most of SLURM's variables from the rule: the job itself is asked.
job="$(scontrol show job --oneliner "$SLURM_JOB_ID")"
field() { sed -n "s|.* $1=\([^ ]*\).*|\1|p" <<<"$job"; }
agents="$(field NumTasks)"
# Without a GPU (a trial on a CPU partition) one process per task.
processes="${PROCESSES_PER_TASK:-$(python -c 'import torch; print(max(torch.cuda.device_count(), 1))')}"
if [ "${agents:-1}" -le 1 ]; then
    exec torchrun --standalone --nproc-per-node="$processes" "$@"
fi
# The node's address rather than its name, which need not be a host's.
head="$(scontrol show node --oneliner "$(field BatchHost)" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')"
# Since SLURM 22.05 a step does not take over the job's cores per task by itself.
exec srun --ntasks="$agents" --cpus-per-task="$(field CPUs/Task)" --kill-on-bad-exit=1 torchrun \
    --nnodes="$agents" --nproc-per-node="$processes" --max-restarts=0 \
    --rdzv-id="$SLURM_JOB_ID" --rdzv-backend=c10d --rdzv-endpoint="$head:$((20000 + SLURM_JOB_ID % 20000))" "$@"
