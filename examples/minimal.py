"""A whole RLHF loop of one's own that resumes: policy, value, prompts and a KL controller. Megatron 0.18 or newer.

    torchrun --nproc-per-node 8 examples/minimal.py \
        --save /shared/run1 --data-checkpoint-path /shared/run1/data_checkpoint

Kill it whenever you like and type the same command again: prompts, losses and the controller go on as if nothing had
been. Flags of Megatron may follow, for the model and its data and tensor parallel sizes. Rollouts, rewards and
advantages are left out: both models learn to continue the prompts.
"""

import copy
import functools
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import torch
from megatron.core import mpu
from megatron.core.distributed import finalize_model_grads
from megatron.core.enums import ModelType
from megatron.core.models.gpt import GPTModel, gpt_layer_specs
from megatron.core.num_microbatches_calculator import get_num_microbatches
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.rerun_state_machine import RerunDataIterator
from megatron.core.utils import get_model_config
from megatron.training import arguments, get_args
from megatron.training.checkpointing import save_checkpoint
from megatron.training.global_vars import set_args
from megatron.training.initialize import initialize_megatron
from megatron.training.training import setup_model_and_optimizer, train_step

import megatron_resume.auto  # noqa: F401  (hooks Megatron)
from megatron_resume import advance, progress, role_args, should_stop, track
from megatron_resume.data import EpisodeSampler, JsonlPrompts

PROMPTS = Path(__file__).with_name("megatron") / "data" / "prompts.jsonl"
SAMPLES_PER_EPISODE = 128
MODEL = {"num_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "seq_length": 64, "max_position_embeddings": 64}
MODEL |= {"tokenizer_type": "NullTokenizer", "vocab_size": 255, "micro_batch_size": 4}
TRAINING = {"lr": 1e-3, "train_iters": 100, "save_interval": 10}


class KLController(SimpleNamespace):
    """Whatever has these two methods can be tracked."""

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


def model_provider(pre_process=True, post_process=True, **_):
    args = get_args()
    if args.transformer_impl == "transformer_engine":
        spec = gpt_layer_specs.get_gpt_layer_with_transformer_engine_spec()
    else:
        spec = gpt_layer_specs.get_gpt_layer_local_spec(normalization=args.normalization)
    config = arguments.core_transformer_config_from_args(args)
    sizes, ends = (args.padded_vocab_size, args.max_position_embeddings), (pre_process, post_process)
    return GPTModel(config, spec, *sizes, *ends, position_embedding_type=args.position_embedding_type)


def build(role, args):
    """Build `role` and load it: from its resume point, or on the first start as the command says."""
    args = copy.copy(args)
    args.save = f"{args.save}/{role}"  # a folder of its own
    args = role_args(role, args)
    set_args(args)
    model, optimizer, scheduler = setup_model_and_optimizer(
        model_type=ModelType.encoder_or_decoder, model_provider_func=model_provider
    )
    config = get_model_config(model[0])
    config.grad_scale_func = optimizer.scale_loss
    config.finalize_model_grads_func = finalize_model_grads  # else no gradient is summed over data parallel ranks
    return SimpleNamespace(args=args, built=(model, optimizer, scheduler), config=config)


def forward(loss_of, micro_batches, model):
    """What Megatron calls for each micro batch; `loss_of` makes a loss of the tokens' negative log probabilities."""
    length = get_args().seq_length
    rows = [list((prompt.encode() * length)[:length]) for prompt in next(micro_batches)]
    tokens = torch.tensor(rows).clamp(max=254).cuda()
    positions = torch.arange(length, device=tokens.device).expand_as(tokens)

    def loss_func(nll):
        loss = loss_of(nll.float())
        return loss, {"loss": torch.stack([loss.detach(), torch.ones_like(loss)])}  # a sum, and of how many

    return model(tokens, positions, None, labels=tokens.roll(-1, dims=1)), loss_func


def train(role, loss_of, prompts, iteration):
    """One step of Megatron's; the loss over all data parallel ranks."""
    set_args(role.args)
    step, data = functools.partial(forward, loss_of), RerunDataIterator(iter(prompts))
    report, *_ = train_step(step, data, *role.built, role.config, get_forward_backward_func(), iteration=iteration)
    return float(report["loss"])


def save(role, iteration):
    set_args(role.args)
    save_checkpoint(iteration, *role.built, num_floating_point_operations_so_far=0)


def main():
    args = arguments.parse_and_validate_args(args_defaults=MODEL | TRAINING)
    initialize_megatron()
    kl, prompts = KLController(coefficient=0.1), JsonlPrompts(PROMPTS)
    sampler = EpisodeSampler(len(prompts), samples_per_episode=SAMPLES_PER_EPISODE, seed=args.seed, datasets=prompts)
    track("kl", kl)  # on a resumed start it has its saved state from here on
    track("prompts", sampler)
    rank, num_ranks = mpu.get_data_parallel_rank(), mpu.get_data_parallel_world_size()
    batches = sampler.for_rank(rank, num_ranks, args.micro_batch_size)
    drawn = iter(torch.utils.data.DataLoader(prompts, batch_sampler=batches))  # draws a random number: before loads
    policy, value = build("policy", args), build("value", args)

    steps, rest = divmod(SAMPLES_PER_EPISODE, args.global_batch_size)
    assert rest == 0, f"an episode of {SAMPLES_PER_EPISODE} samples is no multiple of {args.global_batch_size=}"
    num_episodes = args.train_iters // steps
    saved = iteration = progress().iteration
    for episode in range(progress().episode, num_episodes):
        for _ in range(steps):
            texts = list(itertools.islice(drawn, get_num_microbatches()))
            policy_loss = train(policy, lambda nll: nll.mean() + kl.coefficient * nll.var(), texts, iteration)
            value_loss = train(value, lambda nll: nll.mean(), texts, iteration)
            kl.coefficient *= 1 + 0.01 * (policy_loss - 3)
            iteration += 1
            said = {"policy": policy_loss, "value": value_loss, "kl": kl.coefficient, "prompts": texts}
            print(json.dumps({"iteration": iteration, "rank": rank, "episode": episode} | said), flush=True)
        advance(samples=SAMPLES_PER_EPISODE)  # this episode and its prompts are done
        if should_stop() or iteration - saved >= args.save_interval or episode + 1 == num_episodes:
            save(policy, iteration)
            save(value, iteration)  # both and the data are one resume point
            saved = iteration


if __name__ == "__main__":
    main()
