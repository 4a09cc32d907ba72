"""How one domain trains in one round: the stock recipe.

It runs in a sandbox at the data owner's: it sees the prepared examples, the public base model and the current
adapter; it has no network and no keys. What it returns is checked and protected by the domain before anything leaves.

    context.train        the domain's training texts: a file, one JSON object {"text": ..., "patient": 0} a line
    context.heldout      texts that are never trained on, in the same form
    context.adapter      the LoRA parameters at the start of the round: name -> float32 array
    context.trained      which of these the round trains: their names; the others stay as they are, to the bit
    context.lora         rank, alpha, dropout and targets, as in plan.yaml
    context.training     steps, batch size, tokens, learning rate and time limit, as in plan.yaml
    context.report       call it with (step, steps) to show progress

An own recipe defines the same function: it takes the context and returns a ``LocalOutcome`` with the LoRA parameters
after training (same names and shapes; those that are not trained unchanged) and the metrics ``train_loss``,
``train_tokens`` and ``examples``.
"""

from fedpriv.training import LocalContext, LocalOutcome, train_local


def train(context: LocalContext) -> LocalOutcome:
    # AdamW on the trained LoRA parameters only, over batches drawn by the plan's seed; the base model stays frozen.
    return train_local(context)
