#!/usr/bin/env bash
# Start the PPO example on one of the llama sizes; run with --help for every flag.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
ENTRY="$HERE/../entry/train_rlhf.py"
ROOT="$(cd "$HERE/../../.." && pwd)"

usage() {
    cat <<'EOF'
usage: [model_size=SIZE] train_rlhf_llama.sh [flags] [flags of train_rlhf.py] [flags of Megatron]

PPO on four Megatron llama models: policy and value are trained, reference and reward are frozen.
Run the same command again after a failure: it resumes from the newest complete resume point. With
--policy it does so by itself, also after a hang.

What to run (flag, or the environment variable in brackets)
  --model-size SIZE      [model_size]  tiny, llama2-7B, llama2-13B, llama2-70B or llama3-8B
                         (default: tiny without a GPU, llama2-7B with one)
  --output DIR           [output]      folder of everything the run writes: checkpoints/{policy,value,
                         reference,reward}, data_checkpoint, tensorboard, trace.jsonl (default: ./rlhf_output)
  --tp N                 [tp]          tensor-parallel size (table below)
  --pp N                 [pp]          pipeline-parallel size (table below)
  --nproc N              [nproc]       processes on this node (default: its GPUs; 2 for tiny on the CPU)
  --nnodes N             [WORLD_SIZE, as DLC sets it]       number of nodes (default: 1)
  --node-rank N          [RANK, as DLC sets it]             this node's number (default: 0)
  --master-addr HOST     [MASTER_ADDR]                      first node (default: localhost)
  --master-port PORT     [MASTER_PORT]                      its port (default on one node: a free one)
  --policy FILE          [policy]      restart after failures and hangs as FILE says, by `megatron-resume launch`;
                         examples/megatron/configs/fault_tolerance.yaml is one (default: torchrun, no restarts)
  --job-id NAME          [DLC_JOB_ID, SLURM_JOB_ID]  with --policy on several nodes: a name of this submission
  --dry-run              print the command and stop
  --help                 this text

Sizes                    layers  hidden    ffn  heads  kv heads  rotary base   tp  pp   GPUs
  tiny                        2      64    128      4         4        10000    1   1   none needed
  llama2-7B                  32    4096  11008     32        32        10000    4   1   4 or more
  llama2-13B                 40    5120  13824     40        40        10000    8   1   8 or more
  llama2-70B                 80    8192  28672     64         8        10000    8   4   32 or more
  llama3-8B                  32    4096  14336     32         8       500000    4   1   4 or more
  What is left of the GPUs is data parallel. tiny is byte-level, fp32, and makes its own reference and
  reward checkpoints; the others are bf16 and need --reference-load, --reward-load, --tokenizer-model.

Flags of train_rlhf.py
  --reference-load DIR   Megatron checkpoint of the reference model, from which policy starts
                         (default: OUTPUT/checkpoints/reference)
  --reward-load DIR      Megatron checkpoint of the reward model, from which value starts
                         (default: OUTPUT/checkpoints/reward)
  --make-checkpoints     make those two with random weights where they do not exist (on for tiny)
  --num-episodes N       episodes to train (16)
  --save-episode-interval N   save every N episodes, and after the last (1)
  --prompt-file FILE     JSON lines with the prompts, each once in an epoch (default: the example's own)
  --no-shuffle-prompts   draw them in file order, not in one that --seed decides for each epoch
  --prompt-index-dir DIR where the index of the prompt file is kept ($XDG_CACHE_HOME/megatron_resume/prompts)
  --prompt-key KEY       key of the prompt in each line (default: the first of prompt, question,
                         instruction, text that the first line has)
  --samples-per-episode N     prompts of one episode, over all ranks (32)
  --response-length N    most tokens of a response (16); prompts get the rest of --seq-length
  --rollout-batch-size N samples of one forward pass without gradients, per rank (16)
  --ppo-epochs N         times that each episode's samples are trained on (2)
  --value-lr X           learning rate of value (default: --lr)
  --clip-ratio X         PPO's ratio clip (0.2)
  --clip-value X         PPO's value clip (0.2)
  --discount X           discount of the advantages (1.0)
  --gae-lambda X         lambda of the advantages (0.95)
  --init-kl-coef X       KL penalty against the reference at the start (0.05)
  --kl-target X          KL per response that the adaptive penalty aims at (2.0)
  --kl-horizon N         samples over which the penalty adapts (2000)
  --trace-file FILE      one JSON line per iteration is appended here (OUTPUT/trace.jsonl)
  --final-state-file FILE     write SHA-256 digests of the final weights and optimizer states here

Flags of megatron_resume
  --data-checkpoint-path DIR  where resume points are kept (OUTPUT/data_checkpoint)
  --enable-resume-training, --no-enable-resume-training
                         continue from a resume point when there is one (on), or leave every argument alone
  --load-data-checkpoint-iteration N   resume from this iteration, not the newest
  --max-data-ckpt-nums N      how many resume points to keep
  --on-dataset-change append  go on although rows were added at the end of the prompt file
  --resume-role ROLE     the role of a process with one model; here each model has its own
  --trained-roles LIST   the roles that commit together (policy,value)
  --resume-config FILE   read these settings from the runtime: section of an rlhf.yaml

Every other flag goes to Megatron, e.g. --lr 1e-6 --seed 7 --global-batch-size 64 --async-save
--use-persistent-ckpt-worker. A flag given here overrides what the script sets.
`python examples/megatron/entry/train_rlhf.py --help` lists all of Megatron's own.
EOF
}

die() {
    echo "train_rlhf_llama.sh: $*" >&2
    exit 78
}

has_gpu() {
    [[ -n "${CUDA_VISIBLE_DEVICES-all}" ]] || return 1  # set and empty: they are hidden
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU
}

parse() {
    nnodes="${WORLD_SIZE:-1}" node_rank="${RANK:-0}"
    master_addr="${MASTER_ADDR:-}" master_port="${MASTER_PORT:-}"
    output="${output:-./rlhf_output}" dry_run=
    model_size="${model_size:-}" tp="${tp:-}" pp="${pp:-}" nproc="${nproc:-}"
    policy="${policy:-}" job_id="${DLC_JOB_ID:-${SLURM_JOB_ID:-}}"
    rest=()
    while (($#)); do
        local flag="$1" name value
        case "$flag" in
            --help | -h) usage; exit 0 ;;
            --dry-run) dry_run=1; shift; continue ;;
            --model-size* | --output* | --tp | --tp=* | --pp | --pp=* | --nproc | --nproc=* | \
            --nnodes* | --node-rank* | --master-addr* | --master-port* | --policy | --policy=* | --job-id*) ;;
            *) rest+=("$flag"); shift; continue ;;
        esac
        if [[ "$flag" == *=* ]]; then
            name="${flag%%=*}" value="${flag#*=}"; shift
        else
            (($# > 1)) || die "$flag needs a value; see --help"
            name="$flag" value="$2"; shift 2
        fi
        name="${name#--}"
        printf -v "${name//-/_}" %s "$value"
    done
}

# Sets layers, hidden, ffn, heads, kv_heads, rotary_base, padding, and the default parallel sizes.
choose_architecture() {
    case "$1" in
        tiny)       arch 2 64 128 4 4 10000 1 1 1 ;;
        llama2-7B)  arch 32 4096 11008 32 32 10000 128 4 1 ;;
        llama2-13B) arch 40 5120 13824 40 40 10000 128 8 1 ;;
        llama2-70B) arch 80 8192 28672 64 8 10000 128 8 4 ;;
        llama3-8B)  arch 32 4096 14336 32 8 500000 128 4 1 ;;
        *) die "model_size is '$1'; use tiny, llama2-7B, llama2-13B, llama2-70B or llama3-8B" ;;
    esac
}

arch() {
    layers=$1 hidden=$2 ffn=$3 heads=$4 kv_heads=$5 rotary_base=$6 padding=$7
    tp="${tp:-$8}" pp="${pp:-$9}"
}

model_flags() {
    flags=(
        --num-layers "$layers" --hidden-size "$hidden" --ffn-hidden-size "$ffn" --num-attention-heads "$heads"
        --normalization RMSNorm --swiglu --disable-bias-linear --untie-embeddings-and-output-weights
        --position-embedding-type rope --rotary-base "$rotary_base" --make-vocab-size-divisible-by "$padding"
        --attention-dropout 0.1 --hidden-dropout 0.1
        --tensor-model-parallel-size "$tp" --pipeline-model-parallel-size "$pp"
    )
    if ((kv_heads != heads)); then
        flags+=(--group-query-attention --num-query-groups "$kv_heads")
    fi
    # Saves memory. tiny runs without Transformer Engine, where Megatron's norm refuses it.
    if ((tp > 1)) && [[ "$1" != tiny ]]; then
        flags+=(--sequence-parallel)
    fi
}

size_flags() {
    if [[ "$1" == tiny ]]; then
        flags+=(
            --make-checkpoints --tokenizer-type NullTokenizer --vocab-size 256
            --seq-length 48 --max-position-embeddings 48 --response-length 8
            --micro-batch-size 8 --global-batch-size 32 --samples-per-episode 64 --rollout-batch-size 64
            --lr 1e-2 --min-lr 1e-3 --value-lr 3e-3 --lr-decay-style cosine --clip-grad 1.0 --weight-decay 0.01
            --gae-lambda 0.8 --init-kl-coef 0.02 --kl-target 6
            --transformer-impl local --no-gradient-accumulation-fusion --no-masked-softmax-fusion
            --no-bias-gelu-fusion --no-bias-dropout-fusion --no-bias-swiglu-fusion --no-rope-fusion
            --no-persist-layer-norm
        )
    else
        local length=2048
        [[ "$1" == llama3-* ]] && length=4096
        flags+=(
            --tokenizer-type HuggingFaceTokenizer --bf16
            --seq-length "$length" --max-position-embeddings "$length" --response-length 512
            --micro-batch-size 1 --global-batch-size 128 --samples-per-episode 512 --rollout-batch-size 4
            --ppo-epochs 1 --lr 1e-6 --min-lr 1e-7 --value-lr 5e-6 --lr-decay-style cosine --clip-grad 1.0
            --weight-decay 0.01 --recompute-granularity full --recompute-method uniform --recompute-num-layers 1
            --use-distributed-optimizer
        )
    fi
}

# Sets python: the interpreter to use, or nothing where there is only what PATH has.
find_python() {
    python="${PYTHON:-}"
    if [[ -z "$python" && -x "$ROOT/.venv/bin/python" ]]; then
        python="$ROOT/.venv/bin/python"
    fi
}

launch_command() {
    find_python
    command=("${python:-python}" -m megatron_resume launch --policy "$policy" --nproc-per-node "$nproc")
    if ((nnodes > 1)); then
        [[ -n "$job_id" ]] || die "$nnodes nodes need a name of this submission that they share: --job-id NAME"
        command+=(--nnodes "$nnodes" --rdzv-endpoint "${master_addr:-localhost}:${master_port:-29500}" --rdzv-id "$job_id")
    fi
    command+=(--)
}

torchrun_command() {
    find_python
    if [[ -n "$python" ]]; then
        command=("$python" -m torch.distributed.run)
    else
        command -v torchrun >/dev/null || die "no $ROOT/.venv and no torchrun on PATH; run 'make demo' once, or install torch"
        command=(torchrun)
    fi
    command+=(--nproc-per-node "$nproc" --nnodes "$nnodes")
    if ((nnodes > 1)); then
        command+=(--node-rank "$node_rank" --master-addr "${master_addr:-localhost}" --master-port "${master_port:-29500}")
    elif [[ -n "$master_port" ]]; then
        command+=(--master-addr "${master_addr:-localhost}" --master-port "$master_port")
    else
        command+=(--rdzv-backend c10d --rdzv-endpoint localhost:0)
    fi
}

main() {
    parse "$@"
    local backend=nccl
    if has_gpu; then
        model_size="${model_size:-llama2-7B}"
        nproc="${nproc:-$(nvidia-smi -L | wc -l)}"
    else
        model_size="${model_size:-tiny}" backend=gloo
        nproc="${nproc:-2}"
    fi
    choose_architecture "$model_size"
    if [[ "$model_size" != tiny && " ${rest[*]-} " != *" --tokenizer-model"* ]]; then
        die "$model_size needs the folder of its Hugging Face tokenizer: --tokenizer-model DIR"
    fi
    model_flags "$model_size"
    size_flags "$model_size"
    if [[ -n "$policy" ]]; then
        launch_command
    else
        torchrun_command
    fi
    flags+=(
        --distributed-backend "$backend" --rerun-mode disabled --ckpt-format torch_dist --seed 1234
        --output "$output" --save "$output/checkpoints" --tensorboard-dir "$output/tensorboard"
        --data-checkpoint-path "$output/data_checkpoint"
    )
    command+=("$ENTRY" "${flags[@]}" "${rest[@]+"${rest[@]}"}")
    if [[ -n "$dry_run" ]]; then
        printf '%q ' "${command[@]}"; echo
        exit 0
    fi
    mkdir -p "$output"
    # torchrun sets these for each rank itself; the job's own would name nodes, not ranks.
    unset RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT
    # Megatron needs it for tensor parallelism before Blackwell, and one thread keeps CPU sums in order.
    export CUDA_DEVICE_MAX_CONNECTIONS="${CUDA_DEVICE_MAX_CONNECTIONS:-1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    exec "${command[@]}"
}

main "$@"
