"""ChatLearn's own manager, which nobody may reach once ours is installed."""


class CheckpointManager:
    def __init__(self, model, path, max_ckpt_nums, load_iteration=None, config_to_check=None):
        raise AssertionError("ChatLearn's own checkpoint manager was made")

    def save_checkpoint(self, replica_id, train_iter, episode, consumed_samples):
        raise AssertionError("ChatLearn's own checkpoint manager saves")

    def resume_meta(self):
        raise AssertionError("ChatLearn's own checkpoint manager resumes")

    def resume(self):
        raise AssertionError("ChatLearn's own checkpoint manager resumes")
