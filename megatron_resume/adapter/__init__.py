"""Everything that touches Megatron or torch."""
