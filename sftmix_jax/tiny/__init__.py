"""The embedded default: a tiny pretrained LLaMA, its tokenizer and three toy domains."""
