"""Rows to packed batches: sources, chat, tokens, mixtures, packing, loading. Never imports models."""
