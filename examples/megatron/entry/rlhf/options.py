"""The flags of the example, and the Megatron arguments that follow from them."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .refuse import refuse

EXAMPLE = Path(__file__).resolve().parents[2]


def add_options(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the example's flags to `parser`; this is the `extra_args_provider` that Megatron calls."""
    _add_run(parser.add_argument_group("example: run and output"))
    _add_prompts(parser.add_argument_group("example: prompts and rollouts"))
    _add_ppo(parser.add_argument_group("example: PPO"))
    _use_an_async_writer_that_exists(parser)
    return parser


def _use_an_async_writer_that_exists(parser: argparse.ArgumentParser) -> None:
    # Megatron's default writer is in a package of its own; without it, its built-in one does the same.
    if parser.get_default("async_strategy") == "nvrx" and find_spec("nvidia_resiliency_ext") is None:
        parser.set_defaults(async_strategy="mcore")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        default="./rlhf_output",
        help="folder of everything that the run writes: checkpoints/{policy,value,reference,reward}, "
        "data_checkpoint, tensorboard, trace.jsonl (default: %(default)s)",
    )
    group.add_argument(
        "--reference-load",
        help="Megatron checkpoint of the reference model, from which policy "
        "starts (default: OUTPUT/checkpoints/reference)",
    )
    group.add_argument(
        "--reward-load",
        help="Megatron checkpoint of the reward model, from which value starts (default: OUTPUT/checkpoints/reward)",
    )
    group.add_argument(
        "--make-checkpoints",
        action="store_true",
        help="make the default reference and reward checkpoints with random weights if they do not exist "
        "(what model_size=tiny does)",
    )
    group.add_argument("--num-episodes", type=int, default=16, help="episodes to train (default: %(default)s)")
    group.add_argument(
        "--save-episode-interval",
        type=int,
        default=1,
        help="save policy and value every so many episodes, and after the last (default: %(default)s)",
    )
    group.add_argument(
        "--trace-file", help="one JSON line per iteration is appended here (default: OUTPUT/trace.jsonl)"
    )
    group.add_argument(
        "--final-state-file",
        help="after the last iteration write the SHA-256 of every weight and "
        "optimizer state here, as JSON; rank r > 0 writes FILE.rank<r>",
    )


def _add_prompts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--prompt-file",
        default=str(EXAMPLE / "data" / "prompts.jsonl"),
        help="JSON lines with the prompts (default: the example's own)",
    )
    group.add_argument(
        "--shuffle-prompts",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw the prompts of each epoch in another order, which --seed decides; else in file order "
        "(default: shuffled)",
    )
    group.add_argument(
        "--prompt-index-dir",
        help="where the index of the prompt file's lines is kept (default: $XDG_CACHE_HOME/megatron_resume/prompts)",
    )
    group.add_argument(
        "--prompt-key",
        help="key of the prompt in each line (default: the first of prompt, "
        "question, instruction, text that the first line has)",
    )
    group.add_argument(
        "--samples-per-episode",
        type=int,
        default=32,
        help="prompts of one episode, over all ranks (default: %(default)s)",
    )
    group.add_argument(
        "--response-length",
        type=int,
        default=16,
        help="most tokens of a response; prompts get the rest of --seq-length (default: %(default)s)",
    )
    group.add_argument(
        "--rollout-batch-size",
        type=int,
        default=16,
        help="samples of one forward pass without gradients, per rank (default: %(default)s)",
    )


def _add_ppo(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ppo-epochs",
        type=int,
        default=2,
        help="times that each episode's samples are trained on (default: %(default)s)",
    )
    group.add_argument("--value-lr", type=float, help="learning rate of value (default: --lr)")
    group.add_argument("--clip-ratio", type=float, default=0.2, help="PPO's ratio clip (default: %(default)s)")
    group.add_argument("--clip-value", type=float, default=0.2, help="PPO's value clip (default: %(default)s)")
    group.add_argument("--discount", type=float, default=1.0, help="discount of GAE (default: %(default)s)")
    group.add_argument("--gae-lambda", type=float, default=0.95, help="lambda of GAE (default: %(default)s)")
    group.add_argument(
        "--init-kl-coef", type=float, default=0.05, help="KL penalty at the start (default: %(default)s)"
    )
    group.add_argument(
        "--kl-target",
        type=float,
        default=2.0,
        help="KL per response that the adaptive penalty aims at (default: %(default)s)",
    )
    group.add_argument(
        "--kl-horizon",
        type=int,
        default=2000,
        help="samples over which the penalty adapts (default: %(default)s)",
    )


_COUNTS = ("num_episodes", "save_episode_interval", "samples_per_episode", "response_length", "ppo_epochs")


def read_options(argv: list[str]) -> argparse.Namespace:
    """The example's own flags, checked, before Megatron parses the whole command line.

    Exits with 78 when the sizes of an episode do not fit together.
    """
    parser = add_options(argparse.ArgumentParser(add_help=False, allow_abbrev=False))
    parser.add_argument("--global-batch-size", type=int, default=1)
    parser.add_argument("--seq-length", type=int)
    options, _ = parser.parse_known_args(argv)
    for name in (
        "num_episodes",
        "save_episode_interval",
        "samples_per_episode",
        "response_length",
        "ppo_epochs",
    ):
        if getattr(options, name) < 1:
            refuse(f"--{name.replace('_', '-')} is {getattr(options, name)}; use 1 or more")
    if options.samples_per_episode % options.global_batch_size:
        refuse(
            f"--samples-per-episode is {options.samples_per_episode}; use a multiple of "
            f"--global-batch-size, which is {options.global_batch_size}"
        )
    if options.seq_length is not None and options.response_length >= options.seq_length:
        refuse(
            f"--response-length is {options.response_length}; use less than --seq-length, which is "
            f"{options.seq_length}, so that prompts have room"
        )
    return options


def megatron_defaults(options: argparse.Namespace) -> dict[str, Any]:
    """Megatron arguments that the example's flags decide, for those the command line leaves out."""
    per_episode = options.samples_per_episode * options.ppo_epochs // options.global_batch_size
    output = Path(options.output)
    return {
        "global_batch_size": options.global_batch_size,
        "train_iters": per_episode * options.num_episodes,
        "save_interval": per_episode * options.save_episode_interval,
        "save": str(output / "checkpoints"),
        "tensorboard_dir": str(output / "tensorboard"),
    }
