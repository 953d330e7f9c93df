"""What ChatLearn leaves on disk: its data checkpoints, as its checkpoint manager writes them, and models."""

import json
import pickle
from pathlib import Path

TRACKER = "latest_checkpointed_iteration.txt"
SAMPLES_PER_EPISODE = 16


class ChatLearnJob:
    """A job below `base`; the episodes of each save can be told from its step."""

    def __init__(self, base: Path, roles: tuple[str, ...] = ("policy", "value"), iterations_per_episode: int = 2):
        self.base, self.roles, self.iterations_per_episode = base, roles, iterations_per_episode
        self.data = base / "data_checkpoint_of_chatlearn"

    @property
    def models(self) -> dict[str, Path]:
        return {role: self.base / "checkpoints" / role for role in self.roles}

    def meta(self, step: int, **changes: object) -> dict[str, object]:
        """After the last iteration of an episode."""
        episodes = step // self.iterations_per_episode
        return {
            "episode": episodes - 1,
            "train_iteration": step,
            "consumed_samples": episodes * SAMPLES_PER_EPISODE,
            "sample_per_episode": SAMPLES_PER_EPISODE,
            "data_ratio": None,
            **changes,
        }

    def meta_file(self, replica: int, step: int) -> Path:
        return self.data / f"replica{replica}_step{step}" / "meta.pkl"

    def save_replica(self, replica: int, step: int, **changes: object) -> None:
        file = self.meta_file(replica, step)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as opened:
            pickle.dump(self.meta(step, **changes), opened)
        if replica == 0:
            (self.data / TRACKER).write_text(f"{step}")

    def save_data(self, step: int, replicas: int = 2) -> None:
        for replica in range(replicas):
            self.save_replica(replica, step)

    def save_model(self, role: str, iteration: int) -> Path:
        """In Megatron's format, in so far as nobody loads it."""
        folder = self.models[role] / f"iter_{iteration:07d}"
        folder.mkdir(parents=True)
        (folder / "__0_0.distcp").write_bytes(f"weights of {role} at {iteration}".encode())
        (folder / ".metadata").write_bytes(b"which tensor lies where")
        (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "torch_dist"}))
        (self.models[role] / TRACKER).write_text(str(iteration))
        return folder

    def save(self, step: int, replicas: int = 2) -> None:
        """All of it, in ChatLearn's order."""
        for role in self.roles:
            self.save_model(role, step)
        self.save_data(step, replicas)
