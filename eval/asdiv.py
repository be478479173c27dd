"""ASDiv: elementary word problems of many kinds (Miao et al. 2020).

A row: {"body": "Seven red apples and two green apples are in the basket.", "question": "How many …?", "answer":
"9 (apples)"}

Zero-shot in the chat template, greedy, read by GSM8K's two rules (gsm8k.py). Where the answer is a ratio (3:2), a time
(7:30 p.m.) or several numbers (2 (hours); 30 (minutes)), all of its numbers are asked for, in their order. Rows that
are answered in words are left out.
"""

from sftmix_jax.evaluation import numbers

TASK = numbers.task("asdiv", default_data="hf:EleutherAI/asdiv:validation")
