"""Tasks, their scores with intervals, and a sandbox for model-written code."""
