"""The driver: sets all models up, resumes, synchronises, then rolls out, trains and saves, episode by episode."""

from chatlearn.checkpoint.checkpoint_manager import CheckpointManager


class Engine:
    """`models`: handles of the environment's models first, then of the trained ones, each with its actors."""

    def __init__(self, runtime_args, rollout_models, trained_models, prompts):
        self.runtime_args, self.models, self.trained = runtime_args, [*rollout_models, *trained_models], trained_models
        self.named_models = {model.name: model for model in self.models}
        self._param_sync_pairs, self._start_episode, self._prompts, self.iteration = [], 0, prompts, 0

    def set_parameter_sync(self, source, copy):
        self._param_sync_pairs.append((source, copy))

    def learn(self):
        for model in self.models:
            model.call("init")
        for model in self.models:  # one after the other, as concurrent_setup: False has it
            model.call("model_setup")
        self.models[0].call("_build_dataloader", self._prompts, 1)
        self._resume_from_data_checkpoint()
        self._sync()
        for episode in range(self._start_episode, self.runtime_args.num_episode):
            self._train(self.models[0].call("rollout")[0])
            self.iteration += 1
            self._sync()
            if (episode + 1) % self.runtime_args.save_episode_interval == 0:
                self.save_checkpoint(episode)

    def _train(self, prompts):
        return [model.call("train_step", prompts)[0] for model in self.trained]

    def _sync(self):
        for source, copy in self._param_sync_pairs:
            copy.call("take_weights", source.call("weights")[0])

    def _resume_from_data_checkpoint(self):
        runtime = self.runtime_args
        manager = CheckpointManager(
            self.models[0], runtime.data_checkpoint_path, runtime.max_data_ckpt_nums,
            runtime.load_data_checkpoint_iteration,
        )  # fmt: skip
        meta = manager.resume_meta() if runtime.enable_resume_training else None
        if meta:
            self._start_episode, self.iteration = meta["episode"] + 1, meta["train_iteration"]

    def save_checkpoint(self, episode):
        for model in self.trained:
            model.call("save_checkpoint", self.iteration)
        for replica, actor in enumerate(self.models[0].all_actors):
            actor.call("save_data_checkpoint", replica, self.iteration, episode)
