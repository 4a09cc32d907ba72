"""The model card of a released adapter: what it was trained on, how that was protected, and who agreed to what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from fedpriv.study import CodeRequest

if TYPE_CHECKING:
    from fedpriv.researcher.orchestrator import Release


def model_card(
    request: CodeRequest,
    release: Release,
    *,
    finished: Mapping[str, Any],
    base_model: str,
    members: Sequence[str] = (),
) -> str:
    """Return the text of the adapter's README.md, in the form that model hubs read.

    Parameters
    ----------
    finished : mapping
        The record of :class:`fedpriv.researcher.events.StudyFinished`.
    base_model : str
        The hub's id of the base model.
    members : sequence of str
        Every domain whose update is in a sum; who of them was not asked for the release is named, too.
    """
    front = {"base_model": base_model, "library_name": "peft", "tags": ["lora", "federated", "fedpriv", "clinical"]}
    head = yaml.safe_dump(front, sort_keys=False)
    return f"---\n{head}---\n" + "\n".join(_sections(request, release, finished, base_model, members)) + "\n"


def _sections(
    request: CodeRequest, release: Release, finished: Mapping[str, Any], base_model: str, members: Sequence[str]
) -> Iterator[str]:
    plan, training = request.plan, request.plan.training
    yield f"\n# {_plain(plan.title)}\n"
    yield (
        f"A LoRA adapter (rank {plan.lora.rank}, alpha {plan.lora.alpha}, on {', '.join(plan.lora.targets)}) of "
        f"{base_model}, trained at {len(plan.cohort)} domains on notes that never left them.\n"
    )
    yield "## What it was trained on\n"
    yield f"- the dataset `{plan.dataset}` of each domain: {', '.join(plan.emails)}"
    yield (
        f"- {training.rounds} rounds of {training.steps} steps, {training.batch_size} examples a step, "
        f"at most {training.max_tokens} tokens an example, learning rate {training.learning_rate:g}"
    )
    yield f"- code with the digest `{request.code}`\n"
    if finished:
        yield "## How well it does\n"
        yield "Mean loss of a token over the domains' held-out patients, in nats:\n"
        yield "| | before | after |\n| --- | --- | --- |"
        yield f"| all domains | {finished['loss_before']:.4f} | {finished['loss_after']:.4f} |\n"
    yield "## How it was protected\n"
    yield f"- updates: {plan.protection.in_words()}"
    if plan.privacy is None:
        yield (
            "- differential privacy: none. What the adapter remembers of a single patient has no bound; treat it as "
            "you would treat the notes\n"
        )
    else:
        yield f"- {plan.privacy.in_words()}\n"
    yield "## Who agreed to the release\n"
    yield "| domain | rounds it joined | epsilon it came to | newest entry of its ledger |\n| --- | --- | --- | --- |"
    for email, consent in sorted(release.consents.items()):
        spent = "none" if consent.epsilon is None else f"{consent.epsilon:.3g} (delta {consent.delta:.2g})"
        joined = f"{consent.rounds_joined} of {training.rounds}"
        yield f"| {email} | {joined} | {spent} | `{consent.ledger_sha256}` |"
    for email, reason in sorted(release.refused.items()):
        yield f"\n{email} did not hand it over: {_plain(reason)}"
    for email in sorted(set(members) - release.consents.keys() - release.refused.keys()):
        yield f"\n{email} was not asked, though its updates are in the adapter: it was excluded from the study."
    yield f"\nStudy `{request.study}`; adapter `{release.adapter_sha256}`.\n"
    yield "## How to use it\n"
    yield (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{base_model}")\n'
        'model = PeftModel.from_pretrained(base, "this folder")\n```\n'
    )
    yield "It was made for research. It is no medical device, and nobody has shown that what it writes is true."


def _plain(text: str) -> str:
    """Return text of another party on one line, with nothing in it that Markdown or HTML would obey."""
    line = " ".join(text.split())
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-.!|~&" else c for c in line)
