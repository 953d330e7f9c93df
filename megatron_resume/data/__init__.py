"""The order of the data: which prompt comes when, a pure function that resumes anywhere at once; and the prompts."""

from .batches import RankBatches
from .episode_sampler import EpisodeSampler
from .fingerprint import Dataset
from .jsonl import JsonlPrompts

__all__ = ["Dataset", "EpisodeSampler", "JsonlPrompts", "RankBatches"]
