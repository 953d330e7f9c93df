"""The double of ChatLearn's engine with real Megatron trainers, each in processes of its own; run by the job server.

Appends iteration, prompts, losses and the digest of the weights that the inference copy rolled out with of each episode
to `trace.txt` in OUTPUT. REPLICAS, and the process that DIES at which CRASH point, are of this life.
"""

import hashlib
import os
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

TESTS = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TESTS / "chatlearn_double"), str(TESTS)]

import torch  # noqa: E402
from chatlearn.models.base_module import BaseModule  # noqa: E402
from chatlearn.runtime.dist_actor import Actor, DistActor  # noqa: E402
from chatlearn.runtime.engine import Engine  # noqa: E402
from megatron.core import parallel_state  # noqa: E402
from megatron.core.distributed import finalize_model_grads  # noqa: E402
from megatron.core.enums import ModelType  # noqa: E402
from megatron.core.pipeline_parallel import get_forward_backward_func  # noqa: E402
from megatron.core.utils import get_model_config  # noqa: E402
from megatron.training import arguments, checkpointing, get_args, initialize, training  # noqa: E402

from megatron_resume import chatlearn  # noqa: E402
from megatron_resume.crash import arm  # noqa: E402
from support.programs.stock_pretrain import model_provider  # noqa: E402

chatlearn.install()

OUTPUT = Path(os.environ["OUTPUT"])
PROMPTS = [f"prompt {row}" for row in range(100)]
SAMPLES, MICRO_BATCH = 4, 2
RANKS = {"ppo_policy": 2, "ppo_value": 1}


class Trainer(BaseModule):
    """What ChatLearn's trainers do, in so far as it matters to a resume."""

    def init(self):
        arguments.parse_and_validate_args()
        initialize.initialize_megatron()

    def setup(self):
        args = get_args()
        args.save = f"{OUTPUT}/save_model/{self.name}/"
        if self.resume_training and self.name == "ppo_policy":  # as ChatLearn's documents say; not needed
            args.load = args.save
            args.load_iteration = -1
            args.no_load_optim = args.no_load_rng = args.no_load_args = args.no_load_scheduler = args.finetune = False
        built = training.setup_model_and_optimizer(ModelType.encoder_or_decoder, model_provider)
        self.model, self.optimizer, self.scheduler = built
        self.config = get_model_config(self.model[0])
        self.config.grad_scale_func = self.optimizer.scale_loss
        self.config.finalize_model_grads_func = finalize_model_grads

    def train_step(self, prompts):
        args = get_args()
        args.curr_iteration = args.iteration
        mine = prompts[parallel_state.get_data_parallel_rank() :: parallel_state.get_data_parallel_world_size()]
        batches = [mine[first : first + MICRO_BATCH] for first in range(0, len(mine), MICRO_BATCH)]
        reduced, *_ = training.train_step(
            _forward_step,
            iter(batches),
            self.model,
            self.optimizer,
            self.scheduler,
            self.config,
            get_forward_backward_func(),
            iteration=args.iteration,
        )
        args.iteration += 1
        args.consumed_train_samples += SAMPLES
        return reduced["lm loss"].item().hex()

    def save_checkpoint(self, iteration):
        checkpointing.save_checkpoint(
            iteration,
            self.model,
            self.optimizer,
            self.scheduler,
            num_floating_point_operations_so_far=0,
            preprocess_common_state_dict_fn=training.preprocess_common_state_dict,
        )

    def weights(self):
        digest = hashlib.sha256()
        for parameter in self.model[0].parameters():
            digest.update(parameter.detach().float().numpy().tobytes())
        return digest.hexdigest()


class Copy(BaseModule):
    """An inference copy: its weights are those that it was last given."""

    def take_weights(self, digest):
        self.weights = digest

    def rollout_with(self):
        return self.weights


def seed_of(prompt):
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:4], "big")


def _forward_step(batches, model):
    length = get_args().seq_length
    seeds = [torch.Generator().manual_seed(seed_of(prompt)) for prompt in next(batches)]
    tokens = torch.stack([torch.randint(0, 255, (length + 1,), generator=seed) for seed in seeds])
    positions = torch.arange(length).expand(len(seeds), length)
    labels = tokens[:, 1:].contiguous()
    return model(tokens[:, :-1], positions, None, labels=labels), _mean


def _mean(losses):
    mean = losses.float().mean()
    return mean, {"lm loss": torch.stack([mean.detach(), torch.ones(())])}


class Traced(Engine):
    """Writes down what each step was trained on."""

    def _train(self, prompts):
        copy = self.models[0].call("rollout_with")[0]
        losses = super()._train(prompts)
        with open(OUTPUT / "trace.txt", "a") as file:
            file.write(f"{self.iteration + 1} {prompts} {losses} {copy}\n")


def configuration():
    runtime = {
        "data_checkpoint_path": str(OUTPUT / "data"),
        "max_data_ckpt_nums": None,
        "load_data_checkpoint_iteration": None,
        "enable_resume_training": True,
        "sample_per_episode": SAMPLES,
        "data_ratio": None,
        "consumed_samples": 0,
        "num_episode": 3,
        "save_episode_interval": 1,
    }
    names = {"policy": False, "value": False, "ppo_policy": True, "ppo_value": True}
    models = {name: SimpleNamespace(trainable=trained) for name, trained in names.items()}
    return SimpleNamespace(models=models, runtime_args=SimpleNamespace(**runtime))


def handle(name, kind, port, replicas=1):
    """The processes of one model: its replicas, each alone, or its ranks where it is trained."""
    ranks = RANKS.get(name, 1)

    def make(process):
        if name == os.environ.get("DIES") and process == 0:
            arm(os.environ["CRASH"])
        return kind(name, configuration(), process if ranks == 1 else 0)

    def environment(process):
        rank, size = str(process % ranks), str(ranks)
        return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": str(port)}

    actors = [Actor(partial(make, process), environment(process)) for process in range(replicas * ranks)]
    return DistActor(kind(name, configuration()), actors)


def main():
    port = int(os.environ["MASTER_PORT"])
    del os.environ["TORCHELASTIC_RUN_ID"], os.environ["LOCAL_WORLD_SIZE"]  # of a launcher that Ray's actors do not have
    policy = handle("policy", Copy, port, int(os.environ["REPLICAS"]))
    value = handle("value", Copy, port)
    trained = [handle(name, Trainer, port + number) for number, name in enumerate(RANKS, start=1)]
    engine = Traced(configuration().runtime_args, [policy, value], trained, PROMPTS)
    engine.set_parameter_sync(trained[0], policy)
    engine.set_parameter_sync(trained[1], value)
    engine.learn()
    ends = [actor.end() for model in engine.models for actor in model.all_actors]
    return max(ends)


if __name__ == "__main__":
    sys.exit(main())
