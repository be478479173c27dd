"""Dense decoders in Flax NNX: the parameter table, attention, cache, families, Hugging Face folders."""
