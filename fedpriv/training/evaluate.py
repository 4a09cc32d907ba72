"""The held-out loss of an adapter at one domain: one number over many texts, never one a patient."""

from __future__ import annotations

from fedpriv.errors import TrainingError
from fedpriv.training.examples import IGNORED, encode, labels_of, read_lines
from fedpriv.training.local_round import LocalContext

BATCH = 8


def evaluate_local(context: LocalContext, max_examples: int = 32) -> dict[str, float]:
    """Return the loss of ``context.adapter`` on the first ``max_examples`` held-out texts.

    Returns
    -------
    dict[str, float]
        ``heldout_loss`` (mean over all predicted tokens, nats), ``heldout_tokens`` (how many those are) and
        ``heldout_examples``.

    Raises
    ------
    TrainingError
        If there is no usable held-out text.
    """
    import torch

    from fedpriv.training.model import batch_loss, load_model, put_adapter

    torch.set_num_threads(context.threads)
    lines = read_lines(context.heldout, limit=max_examples)
    examples = sorted(encode(context.model_folder, lines, max_tokens=context.training.max_tokens), key=len)
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
    return {
        "heldout_loss": loss_sum / tokens,
        "heldout_tokens": float(tokens),
        "heldout_examples": float(len(examples)),
    }
