"""How much of a passage's text comes back, in order, out of a plain update? Prints JSON, a line for each kind of work.

    python benchmarks/sequence_recovery.py                                    the tiny model, a minute
    python benchmarks/sequence_recovery.py --model smollm2-135m-instruct --passages 1x32 --hidden 5 --trials 2

Notes, adapter and kinds of work are those of token_recovery.py. With ``--hidden 5`` the attack is tried again without
the tensors of the first five blocks. It is told the passages' length, and tries the tokens that the attack on tokens
names where that sees the first block. Limit BLAS to the cores that are free (``OPENBLAS_NUM_THREADS=1``).

Reported, as means over trials: ROUGE-L and ROUGE-1 over token ids, the share of positions that are exactly right, and
seconds of an attack. Of a batch the first passage that is found is compared with the one of the batch that is nearest.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from token_recovery import LORA, Client

from fedpriv.leakage import (
    ADAPTIVE_NOISE,
    Dictionary,
    Reader,
    View,
    exact_positions,
    gradient_of,
    read_tokens,
    recover_sequences,
    recover_tokens,
    rouge_l,
    rouge_n,
    sequence_reader,
    sgd_update,
    token_dictionary,
)
from fedpriv.training.adapter import Float32
from fedpriv.training.examples import Example


def seen(update: Mapping[str, Float32], hidden: int) -> View:
    """Return the view of somebody who sees all tensors but those of the first ``hidden`` blocks."""
    block = {name: int(found[1]) if (found := re.search(r"\.layers\.(\d+)\.", name)) else 0 for name in update}
    shown = {name: value.astype(np.float64) for name, value in update.items() if block[name] >= hidden}
    return View(party="all", levels={}, tensors=shown)


def attacked(reader: Reader, dictionary: Dictionary, view: View, notes: Sequence[Example]) -> list[float]:
    texts = [note.ids[:-1] for note in notes]
    started = time.perf_counter()
    inside = any(name in view.tensors for name in dictionary.tensors)
    named = recover_tokens(view, dictionary, 2 * len(read_tokens(notes))) if inside else ()
    found = recover_sequences(view, reader, length=max(map(len, texts)), candidates=named)[0]
    seconds = time.perf_counter() - started
    nearest = max(texts, key=lambda text: rouge_l(found, text))
    measures = [rouge_l(found, nearest), rouge_n(found, nearest, 1), exact_positions(found, nearest)]
    return [len(nearest), *measures, seconds]


def measured(client: Client, options: argparse.Namespace, count: int, length: int) -> dict[str, list[list[float]]]:
    """Return for each kind of work a row of numbers for each trial."""
    folder, adapter, draw = client.folder, client.adapter, random.Random(options.seed)
    readers, dictionaries = {}, {}
    for noise in (0.0, ADAPTIVE_NOISE):
        readers[noise] = sequence_reader(folder, LORA, adapter, client.public, noise=noise)
        dictionaries[noise] = token_dictionary(folder, LORA, client.public, noise=noise, adapter=adapter)
    rows: dict[str, list[list[float]]] = {}
    for _ in range(options.trials):
        batch = client.passages(draw, count, length)
        gradient = gradient_of(folder, LORA, adapter, batch)
        work = {
            "one gradient": (0.0, 0, gradient),
            "4 SGD steps, same batch": (0.0, 0, sgd_update(folder, LORA, adapter, [batch] * 4, rate=0.1)),
            "1 AdamW step": (ADAPTIVE_NOISE, 0, client.adamw(batch, steps=1, batch_size=count)),
            "4 AdamW steps, same batch": (ADAPTIVE_NOISE, 0, client.adamw(batch, steps=4, batch_size=count)),
        }
        if options.hidden:
            work[f"one gradient, first {options.hidden} blocks hidden"] = (0.0, options.hidden, gradient)
        for name, (noise, hidden, update) in work.items():
            if not options.only or any(part in name for part in options.only):
                rows.setdefault(name, []).append(
                    attacked(readers[noise], dictionaries[noise], seen(update, hidden), batch)
                )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--passages", nargs="+", default=["1x24"], help="batch x tokens")
    parser.add_argument("--hidden", type=int, default=1, help="blocks that are hidden, tried in addition")
    parser.add_argument("--only", nargs="*", help="kinds of work, or parts of their names")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the choice of passages")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        client = Client(options.model, Path(folder))
        for passages in options.passages:
            count, length = map(int, passages.split("x"))
            for name, trials in measured(client, options, count, length).items():
                tokens, *measures, seconds = np.mean(trials, axis=0).round(3).tolist()
                line = {"model": options.model, "passages": passages, "work": name, "tokens": tokens}
                line |= dict(zip(("rouge_l", "rouge_1", "exact"), measures, strict=True))
                print(json.dumps(line | {"seconds": seconds, "trials": len(trials)}), flush=True)


if __name__ == "__main__":
    main()
