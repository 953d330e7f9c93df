"""Train policy and value with PPO on four Megatron models; start it with ../scripts/train_rlhf_llama.sh."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
for folder in (HERE, HERE.parent, HERE.parents[2]):  # rlhf, cpu, and megatron_resume of a checkout
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

import torch  # noqa: E402

NO_GPU = not torch.cuda.is_available()
if NO_GPU:
    from cpu import stand_in

    # Also in Megatron's checkpoint helpers, which are new processes that import this file again.
    stand_in.install()

import megatron_resume.auto  # noqa: E402, F401  (the one line that makes the job resumable)

if __name__ == "__main__":
    if NO_GPU:
        from cpu import megatron_gaps

        megatron_gaps.fill()
        megatron_gaps.fork_the_result_queue()
    # Not at the top: the helper processes need none of it, and it takes seconds to import.
    from rlhf.job import main

    sys.exit(main())
