#!/bin/bash
# One suite as a SLURM array, a whole GPU for each shard: sbatch docs/ci/slurm.sh
# Put in your suite, and in --array as many shards as SHARDS. A shard that was cut off goes on where it was:
# sbatch --array=5 docs/ci/slurm.sh
#SBATCH --job-name=archbench
#SBATCH --array=1-16
#SBATCH --gpus=1
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
SUITE=${SUITE:-suites/imagenet_backbones.yaml}
SHARDS=${SHARDS:-16} # not SLURM_ARRAY_TASK_COUNT, which is 1 where one shard is submitted again
RUNS=${RUNS:-results/slurm} # on a disk that all nodes have

code=0
# In the background, so that the signal two minutes before the end reaches archbench: what is finished is kept.
archbench run "$SUITE" --shard "$SLURM_ARRAY_TASK_ID/$SHARDS" --out "$RUNS/shard-$SLURM_ARRAY_TASK_ID" &
trap 'kill -TERM $!' TERM
wait $! || code=$?
[[ $code -eq 143 ]] && { code=0; wait $! || code=$?; }
# 1: a network failed, which is a row like any other. Anything else is for whoever submitted it.
[[ $code -le 1 ]] || exit "$code"

# Whoever comes last unites them: archbench refuses as long as a shard is missing or unfinished.
archbench merge "$RUNS"/shard-* --out "$RUNS/merged" || [[ $? -eq 2 ]]
