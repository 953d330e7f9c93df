"""What is installed: Megatron as a checkout, an Adam of Transformer Engine or Apex."""

from importlib import metadata

from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer

from megatron_resume.adapter import formats


def megatron_is_a_checkout():
    """Its sources lie on PYTHONPATH, and no wheel of it is installed."""
    version = metadata.version

    def without_megatron(package):
        if package == "megatron-core":
            raise metadata.PackageNotFoundError(package)
        return version(package)

    metadata.version = without_megatron


def trusts_every_format():
    formats._has_fused_adam = lambda: True
    formats._is_sgd_in_shards = lambda args: False


def adam_without_step():
    """As with Transformer Engine or Apex, whose Adam keeps no step in the state of a parameter."""

    def set_with_step(self, param, tensors):
        set_states(self, param, {"step": None, **tensors})

    set_states = DistributedOptimizer._set_main_param_and_optimizer_states
    DistributedOptimizer._set_main_param_and_optimizer_states = set_with_step
    trusts_every_format()
