#!/bin/bash
# Both stages on two nodes of eight GPUs: sbatch deployment/slurm.sh, in a folder that all nodes see.
# A job that is preempted, or nears its time limit, ends after the step under way with a checkpoint and goes
# back into the queue. The same commands then continue: a finished stage is left as it is.
#SBATCH --job-name=medcare
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail

SETTINGS=${SETTINGS:-configs/14b.yaml}
LAUNCHER=${LAUNCHER:-configs/fsdp2.yaml}
OUT=${OUT:-runs/14b}

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
gpus=$((SLURM_NNODES * SLURM_GPUS_ON_NODE))

# USR1 comes five minutes before the time limit (--signal above). The SIGTERM of a preemption reaches the
# processes by itself, and Slurm puts the job back (--requeue).
again=
trap 'again=yes; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

train() {
    # One launcher a node; it starts a process for each of the node's GPUs.
    srun bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' launch \
        --config_file "$LAUNCHER" --num_machines "$SLURM_NNODES" --num_processes "$gpus" \
        --main_process_ip "$head" --main_process_port 29500 -m medcare train "$SETTINGS" "$@" &
    local step=$! code
    wait "$step"
    code=$?
    while kill -0 "$step" 2>/dev/null; do # a signal that is trapped ends a wait early
        wait "$step"
        code=$?
    done
    if [ -n "$again" ]; then
        scontrol requeue "$SLURM_JOB_ID"
        exit 0
    fi
    [ "$code" = 0 ] || exit "$code"
}

train --stage aggregate --out "$OUT/aggregate"
train --stage align --from "$OUT/aggregate" --out "$OUT/align"
