"""The PPO example on real Megatron models: one file per step of the loop, `job` puts them together."""
