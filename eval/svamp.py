"""SVAMP: elementary word problems varied so that shallow patterns fail (Patel et al. 2021).

A row: {"Body": "There are 87 oranges and 290 bananas in …", "Question": "How big is each group?", "Answer": "145.0"}

Zero-shot in the chat template, greedy, read by GSM8K's two rules (gsm8k.py).
"""

from sftmix_jax.evaluation import numbers

TASK = numbers.task("svamp", default_data="hf:ChilleD/SVAMP:test")
