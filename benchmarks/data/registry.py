"""All orders that are compared, by the names that a table shows; each is imported only where it is measured."""

import importlib
from dataclasses import dataclass

from order import Order


@dataclass(frozen=True)
class Entry:
    """What is known of an order before it is imported."""

    where: str  # module:class
    about: str  # what is done to begin in the midst
    largest: int = 1 << 62  # samples that it can do


ORDERS = {
    "EpisodeSampler": Entry("our_orders:Ours", "computed"),
    "EpisodeSampler, 3 data sets": Entry("our_orders:OursMixed", "computed; mixed 5 : 3 : 2"),
    "torch RandomSampler": Entry("torch_orders:TorchRandomSampler", "replayed"),
    "torchdata StatefulDataLoader": Entry("torch_orders:TorchdataLoader", "its state is loaded, and it replays"),
    "grain MapDataset.shuffle": Entry("grain_orders:GrainDataset", "computed, one by one"),
    "grain index_shuffle": Entry("grain_orders:GrainIndexShuffle", "computed, one by one", (1 << 32) - 1),
    "Mosaic Streaming py1s": Entry("mosaic_orders:MosaicPy1s", "the epoch is built"),
    "Mosaic Streaming py1e": Entry("mosaic_orders:MosaicPy1e", "the epoch is built"),
    "Megatron random sampler": Entry("megatron_orders:MegatronRandom", "the epoch is built"),
    "Megatron sampler": Entry("megatron_orders:MegatronSequential", "counted; not shuffled, one epoch"),
    "as ChatLearn main": Entry("chatlearn_orders:ChatLearnMain", "the epoch is built"),
    "as ChatLearn 1.0": Entry("chatlearn_orders:ChatLearnEpisodes", "counted; not shuffled"),
}
PROMISED = ("EpisodeSampler",)


def order_named(name: str) -> type[Order]:
    module, order = ORDERS[name].where.split(":")
    found: type[Order] = getattr(importlib.import_module(module), order)
    return found
