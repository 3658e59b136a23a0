#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Starts workers as a Slurm job array, one per task:
#
#     sbatch --array=0-9 --cpus-per-task=4 --export=ALL,DROVER_BROKER=tcp://login1:5570 \
#         deploy/slurm/drover-workers.sh /path/to/your-worker ARGUMENT...
#
# The program dials DROVER_BROKER. A minute before the time limit, and when the job is cancelled, it gets SIGTERM and
# finishes what it has; a task that was preempted is queued again.
#SBATCH --job-name=drover-worker
#SBATCH --array=0-1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@60
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

if (($# == 0)); then
    echo "usage: sbatch [OPTION]... $0 PROGRAM [ARGUMENT]..." >&2
    exit 2
fi
if [[ -z "${DROVER_BROKER:-}" ]]; then
    echo "drover-workers: DROVER_BROKER is not set: export the broker's address, such as tcp://login1:5570" >&2
    exit 2
fi

printf 'drover-workers: job %s, task %s on %s serves %s\n' \
    "${SLURM_ARRAY_JOB_ID:-none}" "${SLURM_ARRAY_TASK_ID:-0}" "$(hostname)" "$DROVER_BROKER" >&2
# Handlers that use several threads by themselves shouldn't use more than the task has.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"
# The program takes the place of this shell, which is what Slurm signals.
exec "$@"
