"""What transformers answers with the bundled base: greedy tokens and log-likelihoods, in float64.

python tests/generations.py    stores them in tests/reference/generations.json; needs torch
"""

from __future__ import annotations

import json
from pathlib import Path

TINY = Path(__file__).parent.parent / "sftmix_jax" / "tiny" / "base"
REFERENCE = Path(__file__).parent / "reference" / "generations.json"
NAMES = "Lily Tom Ben Anna Max Sue Tim Sam Mia Bob".split()
PROMPTS = [f"<s>Once there was {'a big dog and ' * (i % 7)}a child named {name}." for i, name in enumerate(NAMES * 3)]
COMPLETION = " And they were happy."
GREEDY, SCORED, NEW_TOKENS = PROMPTS[:8], PROMPTS[:7], 40


def main() -> None:
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TINY)
    model = LlamaForCausalLM.from_pretrained(TINY).double()

    def ids(text: str) -> torch.Tensor:
        return torch.tensor([tokenizer.encode(text, add_special_tokens=False)])

    greedy = []
    for prompt in GREEDY:
        asked = ids(prompt)
        whole = model.generate(asked, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
        answer = whole[0, asked.shape[1] :].tolist()
        greedy.append(answer[:-1] if answer[-1] == tokenizer.eos_token_id else answer)
    scores = []
    for prompt in SCORED:
        asked, completion = ids(prompt), ids(COMPLETION)
        with torch.no_grad():
            log_p = model(torch.cat([asked, completion], dim=1)).logits.log_softmax(-1)[0, asked.shape[1] - 1 : -1]
        scores.append(float(log_p.gather(1, completion[0, :, None]).sum()))
    REFERENCE.write_text(json.dumps({"greedy": greedy, "log_likelihoods": scores}) + "\n")


if __name__ == "__main__":
    main()
