#!/usr/bin/env bash
# A vistool command on a Slurm cluster, one process per GPU.
#
#   tools/slurm_vis.sh PARTITION JOB_NAME TOOL [ARGUMENTS ...]
#   GPUS=16 tools/slurm_vis.sh gpu explain vis_cam @val work_dirs/exp --device cuda -o out
#
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS (more options of srun) come from the environment.
# DRY_RUN=1 prints the command instead of running it. Without GPUs: GPUS_PER_NODE=0 TASKS_PER_NODE=N, no --device.
set -euo pipefail
if (($# < 3)); then
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
partition=$1 job=$2 tool=$3
shift 3
if [[ ! -f "$(dirname "$0")/$tool.py" ]]; then
    echo "error: TOOL: no tools/$tool.py; accepted: vis_cam, vis_attention, vis_featmap" >&2
    exit 2
fi
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
devices=()
if ((per_node)); then
    devices=(--gres="gpu:$per_node")
fi
# shellcheck disable=SC2086  # SRUN_ARGS holds several words
${DRY_RUN:+echo} srun -p "$partition" --job-name="$job" "${devices[@]}" \
    --ntasks="$gpus" --ntasks-per-node="${TASKS_PER_NODE:-$per_node}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$(dirname "$0")/$tool.py" "$@" --launcher slurm
