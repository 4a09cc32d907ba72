"""What a study, a plan, a round, an update or a ledger looks like where a notebook shows a value.

The layers below know nothing of notebooks; :mod:`fedpriv.widgets.registering` tells IPython of these functions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fedpriv.domain.ledger import Entry, Ledger
from fedpriv.domain.ledger_export import words_of
from fedpriv.domain.summary import in_bytes, in_time
from fedpriv.errors import FedprivError
from fedpriv.researcher.events import RoundFinished
from fedpriv.researcher.study import Study
from fedpriv.study import Plan, SignedUpdate, UpdateHeader
from fedpriv.study.averaging import IN_WORDS as AVERAGING
from fedpriv.study.protection_choice import QUANTISED, WHO_SEES, ProtectionChoice, ProtectionLevel
from fedpriv.widgets.sheet import Facts, Folded, Sheet, Table, to_html, to_text
from fedpriv.widgets.study_state import RoundState, StudyState, replayed

MOST_ENTRIES = 20
MOST_ROUNDS = 20
_PLAIN_BYTES = 4
"""Of one parameter as fp32, which an update is compared with."""


def plan_sheet(plan: Plan) -> Sheet:
    """Return a plan in the words that data owners read, with its text folded away."""
    training = plan.training
    rows = {
        "task": plan.task.in_words(),
        "base model": f"{plan.base_model.name}, with a LoRA adapter of rank {plan.lora.rank}",
        "rounds": f"{training.rounds} of {training.steps} steps; {plan.schedule.in_words()}",
        "protection": plan.protection.in_words(),
        "privacy": plan.privacy.in_words() if plan.privacy else "no differential privacy",
        "weights": plan.aggregation.in_words(),
        "averaging": f"{plan.averaging}. {AVERAGING[plan.averaging]}".rstrip(". "),
        "mean": plan.aggregation.server.in_words(),
        "numbers that leave": ", ".join(plan.leaving_metrics),
        "domains": ", ".join(plan.emails),
        "researcher": plan.researcher.email,
    }
    return Sheet(
        title=f"Plan: {plan.title}",
        parts=(
            Facts(rows=tuple((name, words) for name, words in rows.items() if words)),
            Folded(caption="plan.yaml", text=plan.to_yaml()),
        ),
    )


def protection_sheet(choice: ProtectionChoice) -> Sheet:
    """Return a plan's protection: which tensors have which level, and who sees what of them."""
    rows: list[tuple[str, ProtectionLevel, int | None]] = [
        (_of_rule(rule.in_words()), rule.level, rule.bits) for rule in choice.rules
    ]
    rows.append(("every other tensor" if choice.rules else "every tensor", choice.level, None))
    bits = f"{min(choice.bits_choices)} to {max(choice.bits_choices)}" if choice.bits_choices else str(choice.bits)
    table = Table(
        caption="The first line that is about a tensor counts.",
        head=("tensors", "level", "who sees what", "bits"),
        rows=tuple(
            (words, level, WHO_SEES[level], str(own or bits) if level in QUANTISED else "")
            for words, level, own in rows
        ),
        numbers=1,
    )
    facts = Facts(
        rows=(
            ("largest update", f"L2 norm {choice.max_update_norm:g}; the gatekeeper refuses a larger one"),
            ("encryption", f"{choice.security.removeprefix('tc')} bits against classical attacks (level sealed)"),
        )
    )
    return Sheet(title="Protection of an update", parts=(table, facts))


def _of_rule(words: str) -> str:
    return words if words.startswith("tensors") else f"tensors of {words}"


def round_sheet(finished: RoundState | RoundFinished) -> Sheet:
    """Return one round that was summed: losses, who counted how much, bytes and time."""
    losses = [("held-out loss of the adapter that it began with", f"{finished.heldout_loss:.4f}")]
    if finished.train_loss is not None:
        losses.append(("training loss", f"{finished.train_loss:.4f}"))
    losses += [(name.replace("_", " "), f"{value:.4g}") for name, value in finished.quality.items()]
    plain = _PLAIN_BYTES * finished.parameters
    cost = [
        ("an update", f"{in_bytes(finished.bytes_up)} sealed, {in_bytes(plain)} as plain fp32"),
        ("the sum", f"{in_bytes(finished.bytes_down)} to each domain"),
        ("time", ", ".join(f"{part} {in_time(value)}" for part, value in finished.seconds.items())),
    ]
    shares = [(email, f"{share:.1%}") for email, share in sorted(finished.weights.items())]
    head, rows = ("domain", "share of the sum"), [*shares]
    if isinstance(finished, RoundState):  # an event holds no losses by domain
        head = ("domain", "held-out loss", "training loss", "share of the sum")
        heldout, train = finished.heldout, finished.train
        rows = [(email, _number(heldout.get(email)), _number(train.get(email)), share) for email, share in shares]
    table = Table(caption="What each domain's update counted", head=head, rows=tuple(rows), numbers=len(head) - 1)
    return Sheet(title=f"Round {finished.round}", parts=(Facts(rows=(*losses, *cost)), table))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def header_sheet(header: UpdateHeader) -> Sheet:
    """Return what a sealed update says about itself; of its values it says nothing."""
    rows = (
        ("from", header.member),
        ("round", f"{header.round}, attempt {header.attempt}"),
        ("level", f"{header.level}: {WHO_SEES[header.level]}"),
        ("bits of a value", str(header.bits)),
        ("parameters", f"{header.parameters:,} ({in_bytes(_PLAIN_BYTES * header.parameters)} as plain fp32)"),
        ("factor", f"{header.weight:g}: what it was multiplied by before it was sealed"),
        ("study", header.study),
        ("study key", header.key_id),
        ("masked for the cohort", header.cohort),
        ("layout, scales", f"{header.layout}, {header.scales}"),
        ("nonce", header.nonce),
    )
    return Sheet(title="Header of a sealed update", parts=(Facts(rows=rows),))


def update_sheet(update: SignedUpdate) -> Sheet:
    """Return a sealed update as its domain signed it."""
    sheet = header_sheet(update.header)
    size, plain = update.container_bytes, _PLAIN_BYTES * update.header.parameters
    signed = Facts(
        rows=(
            ("size", f"{in_bytes(size)}, {size / plain:.2f} times plain fp32"),
            ("container", update.container_sha256),
            ("signature", update.signature),
        )
    )
    return Sheet(title="Sealed update", note="Only a sum of updates can be opened.", parts=(*sheet.parts, signed))


def ledger_sheet(ledger: Ledger) -> Sheet:
    """Return a ledger's newest entries, and whether every byte of it is as it was written."""
    entries = ledger.entries()
    try:
        whole = ledger.verify()
        note = f"Whole: {whole} entries, each chained to the one before and signed."
    except FedprivError as error:
        note = f"NOT whole. {error}"
    newest = entries[-MOST_ENTRIES:]
    table = Table(
        caption=f"The newest {len(newest)} of {len(entries)} (times in UTC, on the domain's clock)",
        head=("no.", "time", "what happened", "details"),
        rows=tuple(_entry_row(entry) for entry in reversed(newest)),
    )
    return Sheet(title="Ledger", note=note, parts=(table,) if entries else ())


def _entry_row(entry: Entry) -> tuple[str, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time_s))
    facts = "; ".join(f"{name.replace('_', ' ')} {_brief(value)}" for name, value in entry.facts.items())
    return str(entry.number), when, words_of(entry.kind), facts


def _brief(value: Any) -> str:
    """Return a fact in a few characters; a digest by its beginning, as people compare it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 48 else f"{text[:16]}…"


def study_sheet(study: Study) -> Sheet:
    """Return where a study stands: who decided what, and its rounds so far."""
    status = study.status()
    state = replayed(study.history.events(lambda sentence: None))
    decisions = status["decisions"] if status["submitted"] else {}
    facts = (
        ("title", study.plan.title),
        ("id", status["study"]),
        ("base model", study.plan.base_model.name),
        ("protection", study.plan.protection.in_words()),
        ("folder", str(study.folder.root)),
    )
    domains = _without_empty(
        Table(
            caption="Domains",
            head=("domain", "request", "said of its data", "held-out loss"),
            rows=tuple(
                (
                    email,
                    _standing(email, status, decisions),
                    status["shards"].get(email, ""),
                    _number(state.domains[email].heldout_loss if email in state.domains else None),
                )
                for email in study.plan.emails
            ),
        )
    )
    rounds = (_rounds(state),) if state.rounds else ()
    return Sheet(
        title=f"Study {status['name']}", note=_where(status, state), parts=(Facts(rows=facts), domains, *rounds)
    )


def _without_empty(table: Table) -> Table:
    """Return a table without the columns in which nothing stands."""
    kept = [place for place in range(len(table.head)) if any(row[place] for row in table.rows)]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    return Table(caption=table.caption, head=tuple(table.head[place] for place in kept), rows=rows)


def _standing(email: str, status: dict[str, Any], decisions: dict[str, str]) -> str:
    if email in status["excluded"]:
        return "excluded"
    return decisions.get(email, "waits for its data owner" if status["submitted"] else "not sent")


def _where(status: dict[str, Any], state: StudyState) -> str:
    done = f"{status['finished_rounds']} of {status['rounds']} rounds are done"
    if state.released is not None:
        return f"{done}; the adapter is in {state.released.folder}."
    if state.finished is not None:
        losses = f"held-out loss {state.finished.loss_before:.4f} before, {state.finished.loss_after:.4f} after"
        return f"Finished: {losses}. The data owners can be asked for the adapter."
    if not status["submitted"]:
        return "A draft: nothing was sent yet."
    if status["interrupted"]:
        return f"{done}; its last run was killed, and it can go on."
    return f"{done}; {'it runs' if status['running'] else 'nothing runs'}."


def _rounds(state: StudyState) -> Table:
    newest = state.rounds[-MOST_ROUNDS:]
    return Table(
        caption=f"The newest {len(newest)} of {len(state.rounds)} rounds",
        head=("round", "held-out loss at its start", "training loss", "an update", "as plain fp32", "time"),
        rows=tuple(
            (
                str(one.round),
                _number(one.heldout_loss),
                _number(one.train_loss),
                in_bytes(one.bytes_up),
                in_bytes(_PLAIN_BYTES * one.parameters),
                in_time(one.seconds.get("wall", 0.0)),
            )
            for one in newest
        ),
        numbers=5,
    )


SHEETS: dict[type, Callable[[Any], Sheet]] = {
    Plan: plan_sheet,
    ProtectionChoice: protection_sheet,
    UpdateHeader: header_sheet,
    SignedUpdate: update_sheet,
    RoundFinished: round_sheet,
    RoundState: round_sheet,
    Study: study_sheet,
    Ledger: ledger_sheet,
}
"""What is shown how."""


def display(value: Any) -> dict[str, str]:
    """Return a value of one of the types in :data:`SHEETS` as a bundle of ``text/plain`` and ``text/html``.

    What cannot be read, such as a study whose plan is being edited, is shown as the sentence that says so.
    """
    kind = next(kind for kind in type(value).__mro__ if kind in SHEETS)
    try:
        sheet = SHEETS[kind](value)
    except (FedprivError, OSError) as error:
        sheet = Sheet(title=kind.__name__, note=str(error))
    return {"text/plain": to_text(sheet), "text/html": to_html(sheet)}
