"""Examples a second of one epoch of RTE: through the lab, and the same network by transformers' Trainer, with batches of like
length, with its own random ones, and padded to 128. Interleaved; bf16.

    BENCH_DATA=DIR BENCH_MODELS=DIR python tests/benchmarks/bert.py [EXAMPLES] [REPETITIONS] [THREADS]

Time is of the whole call, what the lab stores included: by the clock, and of computing (all threads), which other programs on
the machine disturb less. The aims: not slower than like lengths, twice as fast as random batches.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch

from bench.config import settings
from bench.lab.lab import Lab
from bench.runner.jobs import open_task
from bench.storage.stages import Store

TRAINERS = {"like lengths": {"train_sampling_strategy": "group_by_length"}, "random": {}, "padded to 128": {}}


def through_the_lab(task) -> tuple[float, float]:
    """Seconds of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(task, "benchmark", 1, 0, Store(folder))
        start, masks = lab.start("init"), lab.ones()
        return seconds(lambda: lab.train(start, masks, until=task.steps_per_epoch))


def by_trainer(task, variant: str) -> tuple[float, float]:
    """Seconds of the same, by transformers' Trainer."""
    from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast, Trainer, TrainingArguments

    data, train = task.splits["train"], task.config["train"]
    rows = [
        {
            "input_ids": data.tokens[end - length : end].tolist(),
            "token_type_ids": data.segments[end - length : end].tolist(),
            "attention_mask": [1] * int(length),
            "labels": int(label),
        }
        for end, length, label in zip(data.ends, data.lengths, data.labels, strict=True)
    ]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=task.checkpoint.tokenizer, pad_token="[PAD]")
    padding = {"padding": "max_length", "max_length": 128} if variant == "padded to 128" else {"pad_to_multiple_of": 8}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=1,
            per_device_train_batch_size=task.batch_size,
            learning_rate=float(train["lr"]),
            max_grad_norm=task.clip_norm,
            bf16=True,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
            **TRAINERS[variant],
        )
        trainer = Trainer(task.build(0), arguments, DataCollatorWithPadding(tokenizer, **padding), rows)
        return seconds(trainer.train)


def seconds(work: Callable) -> tuple[float, float]:
    """What a call takes, by the clock and of computing."""
    clock, computing = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - computing


def main(examples: int | None = None, repetitions: int = 3, threads: int = 2) -> None:
    """Every variant in turn; the medians, and the medians of the ratios of each turn."""
    torch.set_num_threads(threads)
    limit = "null" if examples is None else examples
    task = open_task(settings("tasks/bert_glue", ["data=rte", f"data.train_limit={limit}"])[0])
    count, rows = len(task.splits["train"]), []
    for _ in range(repetitions):
        rows.append([through_the_lab(task), *(by_trainer(task, variant) for variant in TRAINERS)])
        print(
            "   ".join(
                f"{name} {clock:.1f} s, {computing:.1f} s of computing"
                for name, (clock, computing) in zip(("lab", *TRAINERS), rows[-1], strict=True)
            ),
            flush=True,
        )
    lab, *others = zip(*rows, strict=True)
    print(f"lab: {count / statistics.median(clock for clock, _ in lab):.1f} examples a second")
    for variant, times in zip(TRAINERS, others, strict=True):
        clock, computing = (statistics.median(other[i] / own[i] for own, other in zip(lab, times, strict=True)) for i in (0, 1))
        print(f"the Trainer, {variant}: {clock:.2f} times as long, {computing:.2f} times the computing")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
