"""Looks inside a trained model: what its domains' gradients agree on, and where their queries lie."""
