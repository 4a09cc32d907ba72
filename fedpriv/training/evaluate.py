"""How good an adapter is at one domain: numbers over many texts, never one a patient."""

from __future__ import annotations

import numpy as np

from fedpriv.errors import TrainingError
from fedpriv.training.answering import yes_probabilities
from fedpriv.training.examples import IGNORED, Encoder, labels_of, read_lines
from fedpriv.training.local_round import LocalContext
from fedpriv.training.task_metrics import answer_metrics

BATCH = 8


def evaluate_local(context: LocalContext, max_examples: int = 32) -> dict[str, float]:
    """Return the loss of ``context.adapter`` on the first ``max_examples`` held-out texts.

    Returns
    -------
    dict[str, float]
        ``heldout_loss`` (mean over all predicted tokens, nats), ``heldout_tokens`` (how many those are) and
        ``heldout_examples``. Where the texts are asked questions, the tokens are the answers, and there are the metrics
        of :func:`fedpriv.training.task_metrics.answer_metrics`, too.

    Raises
    ------
    TrainingError
        If there is no usable held-out text.
    """
    import torch

    from fedpriv.training.model import batch_loss, load_model, put_adapter

    torch.set_num_threads(context.threads)
    encoder = Encoder(context.model_folder, context.training.max_tokens)
    read = encoder.encode(read_lines(context.heldout, limit=max_examples))
    examples = sorted((example for example in read if len(example) >= 2), key=len)
    if not examples:
        raise TrainingError("There is no held-out example of two tokens or more", todo="prepare the shard again")
    model = load_model(context.model_folder, context.lora, context.training.precision)
    put_adapter(model, context.adapter)
    model.eval()
    loss_sum, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            with batch_loss(model, batch) as loss:
                loss_sum += float(loss)
            tokens += sum(label != IGNORED for example in batch for label in labels_of(example))
    asked = [example for example in examples if example.answers]
    answered: dict[str, float] = {}
    if asked:
        yes, _ = encoder.answer_tokens
        truth = np.array([[example.ids[position] == yes for position in example.answers] for example in asked])
        answered = answer_metrics(yes_probabilities(model, asked, encoder.answer_tokens), truth)
    return answered | {
        "heldout_loss": loss_sum / tokens,
        "heldout_tokens": float(tokens),
        "heldout_examples": float(len(examples)),
    }
