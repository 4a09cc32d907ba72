"""An audit as a page for a privacy officer: one self-contained HTML file, light or dark as the reader's screen is.

The bars are drawn in the table that has their numbers, so that nobody depends on the picture.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from fedpriv.audit.result import GUESSING, LeakageAudit, Measure
from fedpriv.audit.words import ASKS, PARTIES, WHO, between, headline, holds, percent, tone, verdict
from fedpriv.files import write_atomic

_TEMPLATE = Path(__file__).with_name("page.html")
_LEAST = {"tokens": -0.1, "text": -0.1, "membership": 0.0}
_UNRELEASED = (
    "What the trained adapter tells about a patient after its release was not measured: there is none here yet. Audit "
    "again when the study has had a round."
)
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


def write_page(audit: LeakageAudit, path: Path) -> Path:
    """Write the page to ``path``, readable by its owner only, and return the path."""
    alone = [m for m in audit.measures if m.scene == "alone" and m.epsilon is None]
    page = Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(audit.title),
        study=escape(audit.study[:12]),
        domain=escape(audit.domain),
        made=time.strftime("%Y-%m-%d %H:%M", time.gmtime(audit.made_s)),
        state=tone(audit),
        headline=escape(headline(audit)),
        missing="".join(f'<p class="missing"><b>Not measured:</b> {escape(text)}</p>' for text in audit.not_measured),
        advice=_advice(audit),
        tokens=_table([m for m in alone if m.attack == "tokens"], "one note in each update"),
        text=_text([m for m in alone if m.attack == "text"]),
        membership=_table([m for m in alone if m.attack == "membership"], "one note in each update"),
        round=_round(audit),
        adapter=_adapter(audit),
        unreleased="" if _released(audit) else f"<li>{_UNRELEASED}</li>",
        curve=_curve(audit),
        parties="".join(
            f"<dt>{escape(WHO[name])}</dt><dd>{escape(holds(audit, name))}</dd>" for name in PARTIES if audit.of(name)
        ),
        drawn=escape(
            f"{audit.passages} passages of up to {audit.tokens} word pieces were drawn at random from the notes "
            "that you prepared for this request, as far as possible each of another patient."
        ),
        steps=escape(audit.steps),
        common=audit.common,
        passages=audit.passages,
        notes="".join(f"<li>{escape(note)}</li>" for note in audit.notes),
        facts=_facts(audit),
        version=escape(audit.fedpriv_version),
    )
    write_atomic(path, page.encode())
    return path


def _advice(audit: LeakageAudit) -> str:
    if not audit.advice:
        return "<p>No advice follows from these numbers.</p>"
    return f'<ol class="advice">{"".join(f"<li>{escape(advice.text)}</li>" for advice in audit.advice)}</ol>'


def _text(measures: Sequence[Measure]) -> str:
    if not measures:
        return ""
    most = max(measure.trials for measure in measures)
    return (
        f"<h2>{ASKS['text']}</h2><p>The attack read {most} of the passages from the first word to the last. Given is "
        "the share of the text that it has right and in order (ROUGE-L), minus the same of what it read from an update "
        "of another note. Notes are alike: some words come right in any case.</p>"
        + _table(measures, "one note in each update")
    )


def _table(measures: Sequence[Measure], what: str, labels: Sequence[str] = ()) -> str:
    """Return a table of measures by one attack, each with its bar."""
    if not measures:
        return ""
    ordered = measures if labels else sorted(measures, key=lambda m: PARTIES.index(m.party))
    names = labels or [WHO[m.party] for m in ordered]
    rows = "".join(_row(name, measure) for name, measure in zip(names, ordered, strict=True))
    attack = ordered[0].attack
    return (
        f'<table class="bars"><caption>{escape(what[0].upper() + what[1:])}</caption><thead><tr><th scope="col">'
        f"{'Epsilon' if ordered[0].epsilon is not None else 'Who looks'}</th>"
        f'<th scope="col" class="picture"><span class="unseen">Bar</span>{_scale(attack)}</th>'
        f'<th scope="col">Found</th><th scope="col">95 % interval</th><th scope="col">That is</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _row(name: str, measure: Measure) -> str:
    domains = f"<small>{measure.domains} domains</small>" if measure.party in ("sum", "sum-of-all", "collusion") else ""
    head = f'<tr><th scope="row">{escape(name)}{domains}</th>'
    if measure.found is None:
        why = f"<small>{escape(measure.why_not)}</small>"
        return f'{head}<td class="picture"></td><td class="none" colspan="3">not measured{why}</td></tr>'
    colour = "leaks" if measure.leaks else "calm"
    return (
        f'{head}<td class="picture">{_bar(measure)}</td><td class="number">{percent(measure.found.value)}</td>'
        f'<td class="interval">{between(measure.found.low, measure.found.high)}</td>'
        f'<td class="verdict"><span class="{colour}">{verdict(measure)}</span></td></tr>'
    )


def _place(value: float, attack: str) -> float:
    """Return where a value lies on the scale, in percent of its width."""
    least = _LEAST[attack]
    return round(100 * (min(max(value, least), 1.0) - least) / (1.0 - least), 2)


def _scale(attack: str) -> str:
    marks = "".join(f'<span style="left:{_place(tick, attack)}%">{percent(tick)}</span>' for tick in _TICKS)
    return f'<div class="scale" aria-hidden="true">{marks}</div>'


def _bar(measure: Measure) -> str:
    """Draw a bar from guessing to what was found, with its interval; the numbers stand beside it."""
    found = measure.found
    if found is None:
        return ""
    attack, base = measure.attack, GUESSING[measure.attack]
    left, right = sorted((_place(base, attack), _place(found.value, attack)))
    low, high, zero = (_place(value, attack) for value in (found.low, found.high, base))
    grid = "".join(
        f'<line x1="{_place(tick, attack)}%" x2="{_place(tick, attack)}%" y1="0" y2="100%" stroke="var(--grid)"/>'
        for tick in _TICKS
    )
    ends = "".join(
        f'<line x1="{x}%" x2="{x}%" y1="32%" y2="68%" stroke="var(--ink)" stroke-width="2"/>' for x in (low, high)
    )
    return (
        f'<svg aria-hidden="true">{grid}'
        f'<rect class="{"leaks" if measure.leaks else "calm"}" x="{left}%" width="{max(right - left, 0.6):.2f}%" '
        f'y="18%" height="64%" rx="2" fill-opacity=".75"/>'
        f'<line x1="{low}%" x2="{high}%" y1="50%" y2="50%" stroke="var(--ink)" stroke-width="2"/>{ends}'
        f'<line x1="{zero}%" x2="{zero}%" y1="0" y2="100%" stroke="var(--grey)" stroke-width="2"/>'
        "</svg>"
    )


def _round(audit: LeakageAudit) -> str:
    measures = [m for m in audit.measures if m.scene == "round"]
    if not measures:
        return ""
    parts = [_table([m for m in measures if m.attack == attack], words) for attack, words in ASKS.items()]
    return (
        f"<h2>The same, of whole rounds</h2><p>Here each update is of {audit.round_notes} notes, as many as one round "
        "of the plan reads or the shard has. Fewer rounds than passages were measured, so that the intervals are "
        "wide.</p>" + "".join(parts)
    )


def _released(audit: LeakageAudit) -> list[Measure]:
    return [measure for measure in audit.measures if measure.scene == "adapter"]


def _adapter(audit: LeakageAudit) -> str:
    measures = _released(audit)
    if not measures:
        return ""
    return (
        "<h2>What the adapter itself tells</h2><p>The study's newest adapter foretells notes that it was trained on "
        "better than others, the more so the longer it was trained. How often that tells rightly which of two notes "
        "was trained on, one of yours and one of your held-out patients: 50 % is a coin's toss. Held-out patients are "
        "your latest; if your notes have changed with time, that shows here too.</p>"
        + _table(measures, ASKS["membership"], [WHO["released"]])
    )


def _curve(audit: LeakageAudit) -> str:
    tried = [m for m in audit.measures if m.epsilon is not None]
    if not tried:
        return ""
    parts = []
    for attack, words in ASKS.items():
        mine = sorted((m for m in tried if m.attack == attack), key=lambda m: m.epsilon or 0.0)
        if not mine:
            continue
        now = audit.of("unprotected", attack=attack)
        labels = [f"{m.epsilon:g}" for m in mine] + (["the plan as it is"] if now else [])
        parts.append(_table([*mine, *([now] if now else [])], words, labels))
    return (
        "<h2>What differential privacy would do</h2><p>Differential privacy adds noise at your domain, so that no "
        "patient's part can be told; a smaller epsilon is more noise. Here nothing else protects the update. How much "
        "the adapter loses by the noise is another question, which this page does not answer.</p>" + "".join(parts)
    )


def _facts(audit: LeakageAudit) -> str:
    rows: Iterable[tuple[str, str]] = (
        ("Request", audit.study),
        ("Base model", audit.model),
        ("Protection", audit.protection),
        ("Differential privacy", audit.privacy or "none"),
        ("Domains", f"{audit.cohort} in the plan; a sum has at least {audit.members}"),
        ("Code", _code(audit)),
        ("Time", f"{audit.seconds:.0f} s"),
    )
    return "".join(f'<tr><th scope="row">{escape(k)}</th><td>{escape(v)}</td></tr>' for k, v in rows)


def _code(audit: LeakageAudit) -> str:
    if audit.stock_recipe:
        return "the stock recipe"
    return f"the researcher's own, run here within {audit.walls}" if audit.walls else "the researcher's own; not run"
