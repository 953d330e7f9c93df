"""The order of the data: which sample comes when, a pure function that resumes anywhere at once."""

from .batches import RankBatches
from .episode_sampler import EpisodeSampler
from .fingerprint import Dataset
from .jsonl import JsonlPrompts

__all__ = ["Dataset", "EpisodeSampler", "JsonlPrompts", "RankBatches"]
