"""LLaMA in Flax NNX, its attention, cache and Hugging Face names."""
