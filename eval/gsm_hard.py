"""GSM-Hard: GSM8K's questions with large numbers in them (Gao et al. 2023).

A row: {"input": "A robe takes 2287720 bolts of blue fiber and half that much white …", "target": 3431580.0}

Zero-shot in the chat template, greedy, read by GSM8K's two rules (gsm8k.py).
"""

from sftmix_jax.evaluation import numbers

TASK = numbers.task("gsm_hard", default_data="hf:reasoning-machines/gsm-hard:train")
