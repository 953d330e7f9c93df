"""What an actor does: set up, draw prompts, save."""

from chatlearn.checkpoint.checkpoint_manager import CheckpointManager


class BaseModule:
    def __init__(self, name, args, replica_id=0):
        self.name, self.global_args, self.replica_id = name, args, replica_id
        self.runtime_args, self.trainable = args.runtime_args, args.models[name].trainable
        self._data_ckpt_manager = None
        self._resume_training = False
        self._prompts = []

    @property
    def data_ckpt_manager(self):
        return self._data_ckpt_manager

    @property
    def resume_training(self):
        return self._resume_training

    def init(self):
        """Megatron is initialised here."""

    def setup(self):
        """The model is built and loaded here."""

    def model_setup(self):
        runtime = self.runtime_args
        self._data_ckpt_manager = CheckpointManager(
            self, runtime.data_checkpoint_path, runtime.max_data_ckpt_nums, runtime.load_data_checkpoint_iteration
        )
        if runtime.enable_resume_training and self._data_ckpt_manager.resume():
            self._resume_training = runtime.consumed_samples > 0
        self.setup()

    def _build_dataloader(self, data, batch_size, dynamic_batch_size_flag=False, is_eval=False):
        self._prompts = data

    def rollout(self):
        """The prompts of this episode; all replicas count alike, and each would generate for its share."""
        first = self.runtime_args.consumed_samples
        self.runtime_args.consumed_samples += self.runtime_args.sample_per_episode
        wanted = range(first, self.runtime_args.consumed_samples)
        return [self._prompts[i % len(self._prompts)] for i in wanted]

    def save_data_checkpoint(self, replica_id, iteration, episode_id):
        self.data_ckpt_manager.save_checkpoint(replica_id, iteration, episode_id, self.runtime_args.consumed_samples)
