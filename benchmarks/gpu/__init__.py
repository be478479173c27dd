"""What one GPU gives: attention kernels, training and generation, against its own limits, transformers and TRL.

python -m benchmarks.gpu                   # random weights of 1B and 7B; nothing from a network; at most 10 minutes
python -m benchmarks.gpu --only attention  # lines whose name holds a word
python -m benchmarks.gpu --tiny            # small sizes, on a CPU too: only to see that all of it runs

It runs where grain, ml_collections, datasets, array_record and tensorflow-datasets are missing, as in images for GPUs.

Each line runs in a process of its own, the most telling first, and is printed when it is done; a line that does not
fit in memory says so, and is not begun where arithmetic says it. A line whose package is missing (torch, transformers,
trl with datasets, peft) says that it is skipped. Stops where there is no GPU.

Rows of 2,048 tokens are packed with documents as long as those of GSM8K, code and conversation (188 tokens on
average), half of their tokens trained on. LoRA trains adapters of rank 16 beside all linear weights of the layers,
which are frozen in bfloat16. The rate of training in FLOP/s counts each product once (none that remat does again, no
gradient of a frozen weight, and the head for trained tokens alone), and attention within documents alone. It is shown
as a part of what one large matrix product reaches. Generation is shown as a part of the time in which the copy rate of
the memory reads the weights and the cache once per token. "Expected" are estimates for one H100, made before anything
had run, and for attention what one H100 gave (docs/gpu.md); of an H200 those that wait for memory are larger, as its
memory is faster. Other cards have none.
"""
