"""Supervised fine-tuning by data composition: stages, mixtures and DMT for LLaMA in JAX."""

__version__ = "0.1.0"
