#!/usr/bin/env bash
# A vistool command in several processes, one per GPU, on one machine or more.
#
#   tools/dist_vis.sh TOOL GPUS [ARGUMENTS ...]
#   tools/dist_vis.sh vis_cam 8 @val work_dirs/exp --device cuda -o out
#
# On several machines, the same on each, with NNODES, NODE_RANK, MASTER_ADDR (of the first) and PORT set.
# DRY_RUN=1 prints the command instead of running it. Processes on the CPU: leave --device out.
set -euo pipefail
if (($# < 2)); then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
tool=$1 gpus=$2
shift 2
if [[ ! -f "$(dirname "$0")/$tool.py" ]]; then
    echo "error: TOOL: no tools/$tool.py; accepted: vis_cam, vis_attention, vis_featmap" >&2
    exit 2
fi
if [[ ! $gpus =~ ^([1-9][0-9]*|auto|cpu|gpu)$ ]]; then
    echo "error: GPUS: '$gpus' is not a number of processes; accepted: 1 or more" >&2
    exit 2
fi
${DRY_RUN:+echo} "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$gpus" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${PORT:-29500}" \
    "$(dirname "$0")/$tool.py" "$@" --launcher pytorch
