"""Nash learning from human feedback in JAX."""
