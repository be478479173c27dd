"""The dtypes that a model can be run in."""

COMPUTE_DTYPES = ("auto", "float32", "bfloat16")
