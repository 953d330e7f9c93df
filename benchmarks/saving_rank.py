"""One rank that saves one model with real Megatron, with our hooks and without them in turn.

saving_rank.py ROUNDS REPORT MEGATRON-FLAGS...    rank r writes its times in ms to REPORT<r>, as JSON
"""

import functools
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import megatron.core.datasets.utils
import torch.distributed as dist
from megatron.core.enums import ModelType
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.training import get_args
from megatron.training.arguments import core_transformer_config_from_args, parse_and_validate_args
from megatron.training.async_utils import maybe_finalize_async_save
from megatron.training.checkpointing import save_checkpoint
from megatron.training.initialize import initialize_megatron
from megatron.training.training import preprocess_common_state_dict, setup_model_and_optimizer

import megatron_resume.auto  # noqa: F401
from megatron_resume.adapter import saving
from megatron_resume.adapter.versions import HOOKS, hook_set
from megatron_resume.checkpoint.layout import model_folder
from megatron_resume.checkpoint.model_files import record_files
from megatron_resume.hooks import Hook, HookSet

# The helpers are built in the wheel; Megatron would run `make` for them, and the wheel has no Makefile.
megatron.core.datasets.utils.compile_helpers = lambda: None

WARM_UP = 3  # rounds that are not counted


class Stopwatch:
    """Adds up how long our wrappers ran, without the functions that they wrap."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.seconds = self.cpu_seconds = 0.0

    def on(self, hook: Hook) -> Hook:
        """`hook` with its wrapper timed from outside and what it calls from inside."""
        return Hook(hook.module, hook.function, hook.needs, self._wrap(hook.wrap), hook.optional)

    def _wrap(self, wrap: Callable[..., Any]) -> Callable[..., Any]:
        return lambda original: self._add(wrap(self._add(original, -1)), +1)

    def _add(self, function: Callable[..., Any], sign: int) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begin, cpu_begin = time.perf_counter(), time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += sign * (time.perf_counter() - begin)
                self.cpu_seconds += sign * (time.thread_time() - cpu_begin)

        return timed


class Saver:
    """Saves the same model again and again, each time alone: nothing is left to be written from before."""

    def __init__(self) -> None:
        self.args = get_args()
        self.model, self.optimizer, self.scheduler = setup_model_and_optimizer(ModelType.encoder_or_decoder, build)
        for parameter in self.model[0].parameters():
            parameter.main_grad.zero_()
        self.optimizer.step()  # from here on there are optimizer states to save
        self.watch = Stopwatch()
        self.ours = HookSet(map(self.watch.on, HOOKS))
        self.iteration = self.checkpoint_bytes = 0
        hook_set.uninstall()

    def save(self, *, hooked: bool) -> tuple[float, float, float]:
        """What a save takes until training goes on; what our wrappers take; and how much CPU time. All in ms.

        For an asynchronous save the wrappers' time includes its finalization later on.
        """
        self.iteration += 1
        self.watch.reset()
        if hooked:
            self.ours.install()
        dist.barrier()
        begin = time.perf_counter()
        save_checkpoint(
            self.iteration,
            self.model,
            self.optimizer,
            self.scheduler,
            0,
            preprocess_common_state_dict_fn=preprocess_common_state_dict,
        )
        if not self.args.async_save:
            dist.barrier()
        seconds = time.perf_counter() - begin
        maybe_finalize_async_save(blocking=True)
        self.ours.uninstall()
        self._settle()
        return 1e3 * seconds, 1e3 * self.watch.seconds, 1e3 * self.watch.cpu_seconds

    def _settle(self) -> None:
        """Wait until this save is committed and on disk, and remove it."""
        if dist.get_rank() == 0:
            if saving._saves.writer is not None:
                saving._saves.writer.wait()
            model = Path(self.args.save, model_folder(self.iteration))
            self.checkpoint_bytes = sum(file.size for file in record_files(model))  # this fsyncs them, too
            shutil.rmtree(model)
        dist.barrier()


def build(pre_process: bool = True, post_process: bool = True, **_: Any) -> GPTModel:
    args = get_args()
    return GPTModel(
        core_transformer_config_from_args(args),
        get_gpt_layer_local_spec(normalization=args.normalization),
        vocab_size=args.padded_vocab_size,
        max_sequence_length=args.max_position_embeddings,
        pre_process=pre_process,
        post_process=post_process,
        position_embedding_type=args.position_embedding_type,
    )


def main() -> None:
    rounds, report = int(sys.argv[1]), sys.argv[2]
    del sys.argv[1:3]
    parse_and_validate_args()
    initialize_megatron()
    saver = Saver()
    times: dict[str, list[float]] = {"stock": [], "hooked": [], "ours": [], "ours_cpu": []}
    for number in range(WARM_UP + rounds):
        # In turn, since the second of a pair may find the machine otherwise than the first.
        pair = {hooked: saver.save(hooked=hooked) for hooked in ((False, True) if number % 2 else (True, False))}
        if number >= WARM_UP:
            for kind, ms in zip(times, (pair[False][0], *pair[True]), strict=True):
                times[kind].append(ms)
    committed = len(list(Path(get_args().data_checkpoint_path).glob("iter_*/COMMITTED")))
    found = {**times, "committed": committed, "checkpoint_bytes": saver.checkpoint_bytes}
    Path(f"{report}{dist.get_rank()}").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
