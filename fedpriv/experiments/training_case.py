"""One measured run of ``fedpriv bench training``, in a process of its own: ``python -m`` this module, a case as JSON.

``fedpriv`` is the stock recipe's local round. ``trainer`` is what one writes without fedpriv: ``transformers.Trainer``
with peft, dynamic padding, and its defaults wherever both need not be alike.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fedpriv.study.plan import LoraChoice, Precision, TrainingChoice
from fedpriv.study.section import Section
from fedpriv.training import LocalContext, evaluate_local, load_state, save_state, starting_adapter
from fedpriv.training.device import DeviceChoice, choose_device, training_device
from fedpriv.training.examples import Encoder, example_order, read_lines

LORA = LoraChoice()


class Case(Section):
    """What one process measures.

    ``fedpriv`` and ``trainer`` train and write the adapter to ``out``; ``evaluate`` measures the held-out loss of the
    one in ``out``, in float32.
    """

    side: Literal["fedpriv", "trainer", "evaluate"]
    precision: Precision = "float32"
    model: str
    train: str
    heldout: str
    out: str
    batch_size: int = Field(ge=1)
    steps: int = Field(ge=2)
    max_tokens: int = Field(ge=8)
    learning_rate: float
    threads: int = Field(ge=1)
    device: DeviceChoice = "cpu"
    checkpointing: bool = False

    def context(self) -> LocalContext:
        """Return what the local round of this case gets."""
        adapter = starting_adapter(Path(self.model), LORA, 0)
        return LocalContext(
            model_folder=Path(self.model),
            adapter=adapter if self.side != "evaluate" else load_state(Path(self.out)),
            trained=tuple(adapter),
            train=Path(self.train),
            heldout=Path(self.heldout),
            lora=LORA,
            training=TrainingChoice(
                steps=self.steps,
                batch_size=self.batch_size,
                max_tokens=self.max_tokens,
                learning_rate=self.learning_rate,
                precision=self.precision,
                checkpointing=self.checkpointing,
                max_seconds=86_400,
            ),
            round=1,
            seed=0,
            threads=self.threads,
        )


def measure(case: Case) -> dict[str, float]:
    """Do a case's work; return what came of it, with the peak memory in bytes: of the process, on a GPU of torch."""
    import torch

    torch.set_num_threads(case.threads)
    device = choose_device(case.device)
    if case.side == "evaluate":
        found = {"heldout_loss": evaluate_local(case.context(), max_examples=1000)["heldout_loss"]}
    else:
        found = _fedpriv(case) if case.side == "fedpriv" else _trainer(case)
    peak = _peak_bytes() if device == "cpu" else torch.cuda.max_memory_allocated()
    return found | {"peak_bytes": float(peak)}


def _fedpriv(case: Case) -> dict[str, float]:
    from fedpriv.training import train_local
    from fedpriv.training.model import load_model

    context = case.context()
    load_model(context.model_folder, context.lora, context.training.precision)  # kept: the round finds it loaded
    started = time.perf_counter()
    outcome = train_local(context)  # with reading and encoding its examples
    seconds = time.perf_counter() - started
    save_state(outcome.adapter_after, Path(case.out))
    return {"seconds": seconds, "tokens": outcome.metrics["train_tokens"] + case.steps * case.batch_size}


def _trainer(case: Case) -> dict[str, float]:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
    )

    from fedpriv.training.model import put_adapter, take_adapter

    class InOrder(Trainer):
        """Takes the examples as they come, so that both sides see the same ones in the same order."""

        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            del train_dataset  # it is `drawn`
            return torch.utils.data.SequentialSampler(drawn)

    context = case.context()
    lines = read_lines(context.train)
    examples = [ids for ids in Encoder(context.model_folder, case.max_tokens).encode(lines) if len(ids) >= 2]
    order = itertools.islice(example_order(len(examples), context.seed, 0), case.steps * case.batch_size)
    drawn = [{"input_ids": list(examples[index])} for index in order]
    tokenizer = AutoTokenizer.from_pretrained(context.model_folder, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    base = AutoModelForCausalLM.from_pretrained(context.model_folder, dtype=torch.float32, local_files_only=True)
    targets = list(LORA.targets)
    config = LoraConfig(r=LORA.rank, lora_alpha=LORA.alpha, target_modules=targets, task_type="CAUSAL_LM")
    model: Any = get_peft_model(base, config)
    put_adapter(model, context.adapter)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=case.batch_size,
            max_steps=case.steps,
            learning_rate=case.learning_rate,
            lr_scheduler_type="constant",
            use_cpu=training_device().type == "cpu",
            bf16=case.precision == "bfloat16",
            gradient_checkpointing=case.checkpointing,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        trainer = InOrder(model=model, args=arguments, train_dataset=drawn, data_collator=collator)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    save_state(take_adapter(model), Path(case.out))
    return {"seconds": seconds, "tokens": float(sum(len(example["input_ids"]) for example in drawn))}


def _peak_bytes() -> int:
    """Return the most memory that this process had, as the kernel saw it; not that of the one that started it."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("the kernel does not say how much memory this process had")


if __name__ == "__main__":
    print(json.dumps(measure(Case.model_validate_json(sys.argv[1]))))  # noqa: T201 - that is its answer
