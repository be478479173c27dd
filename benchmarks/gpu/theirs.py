"""The same with transformers, and with TRL."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import sftmix_jax
from benchmarks.gpu.measuring import Line, seconds
from benchmarks.gpu.sizes import Size, packed_rows
from sftmix_jax.models.lora import LoraConfig

_BASE = Path(sftmix_jax.__file__).parent / "tiny" / "base"
_STEPS = 4  # of TRL's trainer; the first is not counted


def _torch_model(size: Size, name: str) -> Any:
    import torch
    import transformers

    from sftmix_jax.models import families, hf_config

    device = "cuda" if torch.cuda.is_available() else "cpu"
    special = hf_config.Special(1, hf_config.Ends((2,)))
    config = transformers.LlamaConfig(**hf_config.fields(families.preset(name), special, size.dtype))
    with torch.device(device):
        return transformers.LlamaForCausalLM(config).to(getattr(torch, size.dtype)), device


def torch_training(size: Size, name: str, checkpointing: bool, rows: int) -> Line:
    """The same rows with weights and AdamW in the compute dtype, documents told apart by nothing (its fastest way)."""
    import torch

    model, device = _torch_model(size, name)
    if checkpointing:
        model.gradient_checkpointing_enable()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    batch = packed_rows(size, rows, model.config.vocab_size)
    labels = np.where(batch["loss_weights"] == 1, batch["tokens"], -100).astype(np.int64)
    inputs = {"input_ids": batch["tokens"].astype(np.int64), "labels": labels}
    on_device = {key: torch.from_numpy(value).to(device) for key, value in inputs.items()}

    def step() -> None:
        model(**on_device).loss.backward()
        adamw.step()
        adamw.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    model.train()
    rate = int((batch["segment_ids"] > 0).sum()) / seconds(step)[1]
    return {"tokens": rate, "peak": torch.cuda.max_memory_allocated() if device == "cuda" else 0}


def trl_training(size: Size, name: str, checkpointing: bool, rows: int, rank: int = 0) -> Line:
    """TRL's SFTTrainer on the same documents: it packs them, and its loss never makes all logits at once.

    At a rank above 0 it trains PEFT's adapters beside all linear weights of the layers.
    """
    import datasets
    import torch
    import transformers
    import trl

    model, device = _torch_model(size, name)
    tokenizer = transformers.PreTrainedTokenizerFast(  # of the bundled base: the trainer wants one
        tokenizer_file=str(_BASE / "tokenizer.json"), pad_token="<unk>", eos_token="</s>"
    )
    times: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints a summary
        settings = trl.SFTConfig(
            folder,
            packing=True,
            max_length=size.length,
            per_device_train_batch_size=rows,
            max_steps=_STEPS,
            gradient_checkpointing=checkpointing,
            learning_rate=1e-5,
            use_cpu=device == "cpu",
            bf16=False,
            optim="adamw_torch_fused" if device == "cuda" else "adamw_torch",
            report_to="none",
            save_strategy="no",
            use_liger_kernel=device == "cuda" and importlib.util.find_spec("liger_kernel") is not None,
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_pin_memory=False,
        )
        documents = datasets.Dataset.from_list(_documents(size, rows * (_STEPS + 1), model.config.vocab_size))
        trainer = trl.SFTTrainer(
            model,
            settings,
            train_dataset=documents,
            processing_class=tokenizer,
            callbacks=[Clock()],
            peft_config=_adapters(rank) if rank else None,
        )
        trainer.train()
        packed = trainer.train_dataset["input_ids"]
    tokens = rows * sum(map(len, packed)) / len(packed)
    loss = "Liger's loss" if settings.use_liger_kernel else "its loss in chunks"
    return {
        "tokens": tokens / float(np.median(np.diff(times))),
        "peak": torch.cuda.max_memory_allocated() if device == "cuda" else 0,
        "note": f"trl {trl.__version__}, {loss}, {model.config._attn_implementation}",
    }


def _adapters(rank: int) -> Any:
    import peft

    linear = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
    return peft.LoraConfig(r=rank, lora_alpha=LoraConfig().alpha, target_modules=linear, task_type="CAUSAL_LM")


def _documents(size: Size, rows: int, vocabulary: int) -> list[dict[str, list[int]]]:
    """The documents of so many packed rows, each by itself; -100: not trained on."""
    batch, documents = packed_rows(size, rows, vocabulary), []
    for tokens, segments, weights in zip(batch["tokens"], batch["segment_ids"], batch["loss_weights"], strict=True):
        for document in range(1, int(segments.max()) + 1):
            own = segments == document
            labels = np.where(weights[own] == 1, tokens[own], -100)
            documents.append({"input_ids": tokens[own].tolist(), "labels": labels.tolist()})
    return documents


def torch_generation(size: Size, batch: int) -> Line:
    import torch

    model, device = _torch_model(size, size.large)
    prompts = torch.ones((batch, size.place), dtype=torch.long, device=device)

    def run(new: int) -> None:
        model.generate(prompts, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=0)

    # Reading the prompts is not counted.
    long, short = seconds(lambda: run(34), 2)[1], seconds(lambda: run(2), 2)[1]
    return {"tokens": batch * 32 / max(long - short, 1e-9)}
