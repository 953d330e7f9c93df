"""The order of the data: which sample comes when, a pure function that resumes anywhere at once."""

from .batches import RankBatches
from .episode_sampler import EpisodeSampler
from .fingerprint import Dataset

__all__ = ["Dataset", "EpisodeSampler", "RankBatches"]
