"""MAWPS: elementary word problems from several collections (Koncel-Kedziorski et al. 2016).

A row: {"sQuestion": "Joan found 70 seashells on the beach …", "lSolutions": [27.0]}, or input and target

No source of it is kept under one name: --data mawps=FILE

Zero-shot in the chat template, greedy, read by GSM8K's two rules (gsm8k.py).
"""

from sftmix_jax.evaluation import numbers

TASK = numbers.task("mawps", default_data="")
