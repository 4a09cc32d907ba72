"""Honest recipes, as researchers write them: a static check must find nothing in them that is more than information."""

_HEAD = '''"""A recipe of our own."""

import itertools
import math
import time

import torch

from fedpriv.training import LocalContext, LocalOutcome
from fedpriv.training.examples import IGNORED, collate, encode, example_order, read_texts
from fedpriv.training.model import load_model, next_token_loss, put_adapter, take_adapter

'''

_BODY = '''

def train(context: LocalContext) -> LocalOutcome:
    """Train the adapter."""
    started = time.monotonic()
    torch.manual_seed(context.seed + context.round)
    torch.set_num_threads(context.threads)
    choice = context.training
    examples = encode(context.model_folder, read_texts(context.train), max_tokens=choice.max_tokens)
    model = load_model(context.model_folder, context.lora)
    put_adapter(model, context.adapter)
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, choice)
    order = example_order(len(examples), context.seed, 0)
    loss_sum, tokens = 0.0, 0
    for step in range(1, choice.steps + 1):
        batch = [examples[i] for i in itertools.islice(order, choice.batch_size)]
        inputs, labels = collate(batch)
        count = int((labels != IGNORED).sum())
        loss = next_token_loss(model, inputs, labels)
        optimizer.zero_grad(set_to_none=True)
        (loss / max(count, 1)).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        loss_sum += float(loss.detach())
        tokens += count
        context.report(step, choice.steps)
        if time.monotonic() - started > choice.max_seconds:
            break
    metrics = {
        "train_loss": loss_sum / tokens,
        "train_tokens": float(tokens),
        "examples": float(len(examples)),
    }
    return LocalOutcome(adapter_after=take_adapter(model), metrics=metrics)
'''


def _with(optimizer):
    return f"{_HEAD}\ndef make_optimizer(parameters, choice):\n{optimizer}\n{_BODY}"


_ADAMW = "    return torch.optim.AdamW(parameters, lr=choice.learning_rate)"

HONEST = {
    "AdamW": _with(_ADAMW),
    "SGD with momentum": _with("    return torch.optim.SGD(parameters, lr=choice.learning_rate, momentum=0.9)"),
    "an optimiser of our own": _with("    return SignSgd(parameters, lr=choice.learning_rate)").replace(
        "\ndef make_optimizer",
        '''
class SignSgd(torch.optim.Optimizer):
    """Steps by the sign of the gradient."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(torch.sign(p.grad), alpha=-group["lr"])


def make_optimizer''',
        1,
    ),
    "a cosine schedule": _with(_ADAMW).replace(
        "        optimizer.step()\n",
        "        for group in optimizer.param_groups:\n"
        '            group["lr"] = choice.learning_rate * 0.5 * (1 + math.cos(math.pi * step / choice.steps))\n'
        "        optimizer.step()\n",
    ),
    "a scheduler of transformers": _with(_ADAMW)
    .replace("import torch\n", "import torch\nfrom transformers import get_linear_schedule_with_warmup\n", 1)
    .replace(
        "    order =",
        "    scheduler = get_linear_schedule_with_warmup(optimizer, 2, context.training.steps)\n    order =",
        1,
    )
    .replace("        optimizer.step()\n", "        optimizer.step()\n        scheduler.step()\n"),
    "a curriculum": _with(_ADAMW).replace(
        "    order = example_order(len(examples), context.seed, 0)\n",
        "    examples.sort(key=len)  # short notes first\n    order = itertools.cycle(range(len(examples)))\n",
    ),
    "FedProx": _with(_ADAMW)
    .replace(
        "    parameters = [",
        "    start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}\n"
        "    parameters = [",
    )
    .replace(
        "        optimizer.zero_grad",
        "        μ = 0.01\n"
        "        proximal = sum(((p - start[n]) ** 2).sum() for n, p in model.named_parameters() if n in start)\n"
        "        loss = loss + 0.5 * μ * proximal\n"
        "        optimizer.zero_grad",
    ),
    "a loss of our own": _with(_ADAMW).replace(
        "        loss = next_token_loss(model, inputs, labels)\n",
        "        logits = model(input_ids=inputs).logits[:, :-1]\n"
        "        targets = labels[:, 1:]\n"
        "        loss = torch.nn.functional.cross_entropy(\n"
        "            logits.reshape(-1, logits.size(-1)), targets.reshape(-1), ignore_index=IGNORED,\n"
        "            label_smoothing=0.1, reduction='sum',\n"
        "        )\n",
    ),
    "gradient accumulation": _with(_ADAMW).replace(
        "        optimizer.step()\n",
        "        if step % 4 == 0 or step == choice.steps:\n            optimizer.step()\n",
    ),
    "evaluation before and after": """
from fedpriv.training import LocalContext, LocalOutcome, evaluate_local, train_local


def train(context: LocalContext) -> LocalOutcome:
    before = evaluate_local(context)
    outcome = train_local(context)
    metrics = {**outcome.metrics, "heldout_loss": before["heldout_loss"]}
    return LocalOutcome(adapter_after=outcome.adapter_after, metrics=metrics)
""",
    "a smaller step": '''import numpy as np

from fedpriv.training import LocalOutcome, train_local


def train(context):
    """Go only half of the way."""
    outcome = train_local(context)
    after = {
        name: np.float32(0.5) * (before + outcome.adapter_after[name])
        for name, before in context.adapter.items()
    }
    return LocalOutcome(adapter_after=after, metrics=dict(outcome.metrics))
''',
    "a rounded metric": """from fedpriv.training import LocalOutcome, train_local


def train(context):
    outcome = train_local(context)
    metrics = {name: round(value, 3) for name, value in outcome.metrics.items()}
    return LocalOutcome(adapter_after=outcome.adapter_after, metrics=metrics)
""",
    "more steps in later rounds": """import dataclasses

from fedpriv.training import train_local


def train(context):
    steps = min(context.training.steps, 2 * context.round)
    return train_local(dataclasses.replace(context, training=context.training.model_copy(update={"steps": steps})))
""",
    "reading the examples itself": '''import json
import random
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from fedpriv.training import LocalContext, LocalOutcome, train_local


class Notes(Dataset):
    """The domain's texts as tokens."""

    def __init__(self, path: Path, tokenizer, length: int) -> None:
        with path.open(encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line in lines]
        self.tokens = [tokenizer.encode(text)[:length] for text in texts]

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int):
        return torch.tensor(self.tokens[index])


def count_lines(path) -> int:
    with open(path, encoding="utf-8") as lines:
        return sum(1 for _ in lines)


def train(context: LocalContext) -> LocalOutcome:
    tokenizer = AutoTokenizer.from_pretrained(context.model_folder)
    model = AutoModelForCausalLM.from_pretrained(str(context.model_folder), dtype=torch.float32)
    config = json.loads((context.model_folder / "config.json").read_text())
    config.update(json.loads(context.model_folder.joinpath("config.json").read_text()))
    notes = Notes(context.train, tokenizer, context.training.max_tokens)
    loader = DataLoader(notes, batch_size=1, shuffle=True, num_workers=0)
    random.seed(context.seed)
    assert count_lines(context.train) == len(notes)
    texts = Path(context.heldout).read_text(encoding="utf-8").splitlines()
    return train_local(context)
''',
    "dropout of words": _with(_ADAMW).replace(
        "        inputs, labels = collate(batch)\n",
        "        batch = [[t for t in tokens if torch.rand(()) > 0.05] for tokens in batch]\n"
        "        inputs, labels = collate(batch)\n",
    ),
    "mixed precision": _with(_ADAMW).replace(
        "        loss = next_token_loss(model, inputs, labels)\n",
        '        with torch.autocast("cpu", dtype=torch.bfloat16):\n'
        "            loss = next_token_loss(model, inputs, labels)\n",
    ),
    "a settings class": '''from dataclasses import dataclass
from functools import cached_property

from fedpriv.training import train_local


@dataclass(frozen=True)
class Settings:
    """What we vary."""

    warm_up: int = 2

    @property
    def label(self) -> str:
        return f"warm-up {self.warm_up}"

    @cached_property
    def doubled(self) -> int:
        return 2 * self.warm_up


SETTINGS = Settings()


def train(context):
    return train_local(context)


if __name__ == "__main__":
    raise SystemExit("this file is run by fedpriv")
''',
    "a helper module": "from helper import half\n\nfrom fedpriv.training import train_local\n\n\ndef train(context):\n"
    "    half(1.0)\n    return train_local(context)\n",
    "averaged weights": """import copy

import numpy as np

from fedpriv.training import LocalOutcome, train_local


def train(context):
    outcome = train_local(context)
    average = copy.deepcopy(outcome.adapter_after)
    for name, after in outcome.adapter_after.items():
        input = context.adapter[name]
        average[name] = (0.9 * after + 0.1 * input).astype(np.float32)
    return LocalOutcome(adapter_after=average, metrics=outcome.metrics)
""",
}
"""Name -> train.py."""
