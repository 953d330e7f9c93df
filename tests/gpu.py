"""`make test-gpu`: the example and its kills on CUDA and NCCL. Says what it skipped, and why.

    python tests/gpu.py [--on-cpu]

Under --deterministic-mode and a fixed NCCL algorithm a killed and resumed run must be the undisturbed one to the bit;
otherwise within the spread of two undisturbed runs. --on-cpu runs one variant on the stand-in: to try this file itself.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import torch

from support.gpu_runs import KILLS, VARIANTS, JobFailed, Variant, compare


def main() -> int:
    """0 when nothing differs, or nothing could be run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--on-cpu", action="store_true", help="try this file without a GPU: one variant, one kill")
    options = parser.parse_args()
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not num_gpus and not options.on_cpu:
        print("make test-gpu: skipped, all of it: torch finds no GPU here (torch.cuda.is_available() is False)")
        return 0
    variants, kills = (VARIANTS[:1], KILLS[:1]) if options.on_cpu else (VARIANTS, KILLS)
    folder = Path(tempfile.mkdtemp(prefix="megatron_resume_gpu_"))
    results = [_try(folder, variant, 2 if options.on_cpu else min(num_gpus, 2), kills) for variant in variants]
    if not all(results):
        print(f"make test-gpu: failed, see DIFFERS and FAILED above; everything is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    print("make test-gpu: nothing differs")
    return 0


def _try(folder: Path, variant: Variant, num_ranks: int, kills: object) -> bool:
    """Print what came of one variant; False where something differs."""
    why = variant.missing(num_ranks)
    if why:
        print(f"skipped    {variant.name}: {why}")
        return True
    try:
        found = compare(folder / variant.name.replace(" ", "_").replace(",", ""), variant, num_ranks, kills)
    except JobFailed as error:
        print(f"FAILED     {variant.name}: {error}")
        return False
    for what, said in found:
        print(
            f"{'DIFFERS ' if said else 'ok      '}   {variant.name}, {num_ranks} ranks, {what}{': ' * bool(said)}{said}"
        )
    return not any(said for _, said in found)


if __name__ == "__main__":
    sys.exit(main())
