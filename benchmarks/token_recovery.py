"""How much of a note comes back out of a plain update? Prints JSON, a line for each kind of work at a client.

    python benchmarks/token_recovery.py                                    the tiny model, a minute
    python benchmarks/token_recovery.py --model smollm2-135m-instruct --common 300 --passages 1x32 4x32

Made-up notes of one seed are public, those of another are attacked. ``4x32`` is a batch of four passages of 32 tokens.
The work is one plain gradient, a step of gradient descent on each of four batches, or fedpriv's own local round: AdamW.

Reported, as means over trials: the number of distinct tokens; the share that the attack names within as many guesses,
of all and of those outside the most common ones (``telling``); the same for guesses by frequency; seconds of an attack.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import numpy as np

from fedpriv.clinical.mock import write_mock
from fedpriv.leakage import (
    ADAPTIVE_NOISE,
    View,
    gradient_of,
    read_tokens,
    recover_tokens,
    sgd_update,
    token_dictionary,
)
from fedpriv.study.plan import LoraChoice, TrainingChoice
from fedpriv.training import LocalContext, ensure_model, starting_adapter, train_local
from fedpriv.training.adapter import AdapterState
from fedpriv.training.examples import Encoder, Example, encode, read_lines

LORA = LoraChoice()
PUBLIC, PRIVATE = 1, 2
BATCHES = 4


def notes_of(work: Path, seed: int) -> Path:
    folder = work / f"notes-{seed}"
    folder.mkdir()
    write_mock(folder, seed=seed)
    return folder / "examples.jsonl"


class Client:
    """A client that starts from an adapter which was trained on public notes for a round."""

    def __init__(self, model: str, work: Path) -> None:
        self.folder, self._work = ensure_model(model).folder, work
        self.encoder = Encoder(self.folder, 512)
        public, private = notes_of(work, PUBLIC), notes_of(work, PRIVATE)
        self.public, self.private = (
            encode(self.folder, read_lines(path), max_tokens=512) for path in (public, private)
        )
        self.adapter = starting_adapter(self.folder, LORA, 0)
        self.adapter = self._trained(public, steps=8, batch_size=4)

    def passages(self, draw: random.Random, count: int, length: int) -> list[Example]:
        """Return passages of about ``length`` tokens: cut out, and tokenised again as training does."""
        found = []
        while len(found) < count:
            note = draw.choice([note for note in self.private if len(note) > length])
            start = draw.randrange(len(note) - length)
            found += self.encoder.encode([self.encoder.decode(note.ids[start : start + length])])
        return found

    def adamw(self, batch: list[Example], *, steps: int, batch_size: int) -> AdapterState:
        """Return the update of fedpriv's own local round on these passages."""
        path = self._work / "passages.jsonl"
        path.write_text("".join(json.dumps({"text": self.encoder.decode(note.ids)}) + "\n" for note in batch))
        after = self._trained(path, steps=steps, batch_size=batch_size)
        return {name: after[name] - before for name, before in self.adapter.items()}

    def _trained(self, notes: Path, *, steps: int, batch_size: int) -> AdapterState:
        context = LocalContext(
            model_folder=self.folder,
            adapter=self.adapter,
            trained=tuple(self.adapter),
            train=notes,
            heldout=notes,
            lora=LORA,
            training=TrainingChoice(steps=steps, batch_size=batch_size, precision="float32"),
            round=1,
            seed=0,
            threads=1,
        )
        return train_local(context).adapter_after


def named(tokens: frozenset[int], guesses: tuple[int, ...] | list[int]) -> float:
    return len(tokens & set(guesses)) / len(tokens) if tokens else float("nan")


def measured(client: Client, options: argparse.Namespace, count: int, length: int) -> dict[str, list[list[float]]]:
    """Return for each kind of work a row of numbers for each trial."""
    plain = token_dictionary(client.folder, LORA, client.public)
    adaptive = token_dictionary(client.folder, LORA, client.public, noise=ADAPTIVE_NOISE, adapter=client.adapter)
    common, frequent = plain.common(options.common), plain.by_frequency
    folder, adapter, draw = client.folder, client.adapter, random.Random(options.seed)
    rows: dict[str, list[list[float]]] = {}
    for _ in range(options.trials):
        batches = [client.passages(draw, count, length) for _ in range(BATCHES)]
        first, joined = batches[0], [note for batch in batches for note in batch]
        work = {
            "one gradient": (first, plain, gradient_of(folder, LORA, adapter, first)),
            "4 SGD steps, four batches": (joined, plain, sgd_update(folder, LORA, adapter, batches, rate=0.1)),
            "1 AdamW step": (first, adaptive, client.adamw(first, steps=1, batch_size=count)),
            "4 AdamW steps, same batch": (first, adaptive, client.adamw(first, steps=4, batch_size=count)),
            "4 AdamW steps, four batches": (joined, adaptive, client.adamw(joined, steps=4, batch_size=count)),
        }
        for name, (notes, dictionary, update) in work.items():
            secret = read_tokens(notes)
            view = View(party="all", levels={}, tensors={key: value.astype(float) for key, value in update.items()})
            started = time.perf_counter()
            guesses, by_frequency = recover_tokens(view, dictionary, len(secret)), frequent[: len(secret)]
            seconds = time.perf_counter() - started
            shares = [named(some, of) for of in (guesses, by_frequency) for some in (secret, secret - common)]
            rows.setdefault(name, []).append([len(secret), *shares, seconds])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--passages", nargs="+", default=["1x24", "2x24"], help="batch x tokens")
    parser.add_argument("--common", type=int, default=60)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of passages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        client = Client(options.model, Path(folder))
        for passages in options.passages:
            count, length = map(int, passages.split("x"))
            for name, trials in measured(client, options, count, length).items():
                tokens, every, telling, every_by, telling_by, seconds = np.mean(trials, axis=0).round(3).tolist()
                line = {"model": options.model, "passages": passages, "work": name, "tokens": tokens}
                line |= {"all": every, "telling": telling, "all_by_frequency": every_by}
                line |= {"telling_by_frequency": telling_by, "seconds": seconds, "trials": options.trials}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
