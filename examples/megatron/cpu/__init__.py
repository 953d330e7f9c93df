"""A stand-in for CUDA, so that real Megatron trains on a machine without a GPU (tests and the demo)."""
