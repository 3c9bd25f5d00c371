#!/usr/bin/env bash
# End the SLURM that tests/slurm/start.sh started; a cluster that it did not start is left alone.
set -euo pipefail

grep -qsF "# written by tests/slurm/start.sh" /etc/slurm/slurm.conf || { echo "no SLURM of ours here" >&2; exit 0; }
for file in /run/pipeline_slurmd.*.pid /run/slurmctld.pid; do
    # Each daemon removes its file when it has ended.
    if [ -s "$file" ] && kill -TERM "$(cat "$file")" 2>/dev/null; then
        for _ in $(seq 100); do
            [ -s "$file" ] && kill -0 "$(cat "$file" 2>/dev/null || echo 0)" 2>/dev/null || break
            sleep 0.1
        done
    fi
done
munged --stop >/dev/null 2>&1 || true
