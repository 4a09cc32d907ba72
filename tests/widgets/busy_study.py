"""A large study as its history tells it: every event that the orchestrator emits in a round, for any cohort."""

import random

from fedpriv.researcher import events as ev
from fedpriv.study import Progress

STUDY = "a" * 64


def emails(domains):
    return tuple(f"unit{number:02d}@h.example" for number in range(domains))


def opening(members, rounds):
    """The events before the first round."""
    yield ev.StudyStarted(study=STUDY, domains=members, rounds=rounds, resumed=False)
    for email in members:
        yield ev.Decided(study=STUDY, domain=email, decision="approved", reason="a person decided", checked=())
        yield ev.DomainJoined(study=STUDY, domain=email)


def one_round(members, number, seed=0):
    """The events of one round that is summed."""
    draw = random.Random(f"{seed} {number}")
    yield ev.RoundStarted(study=STUDY, round=number, attempt=1, domains=members, steps={})
    for email in members:
        yield ev.TicketSent(study=STUDY, domain=email, kind="train", round=number)
    for email in members:
        loss = 3.0 / number**0.2 + draw.random() / 10
        metrics = {"heldout_loss": loss, "train_loss": loss - 0.2, "heldout_tokens": 100.0, "examples": 50.0}
        yield ev.ResultReceived(
            study=STUDY, domain=email, kind="train", round=number, metrics=metrics, seconds={"train": 1.0}
        )
        yield ev.LinkMeasured(study=STUDY, domain=email, up_mbps=draw.uniform(5, 50), down_mbps=40.0, latency_s=0.02)
        yield ev.UpdateReceived(study=STUDY, domain=email, round=number, size_bytes=740_000, seconds=0.1)
    shares = {email: 1 / len(members) for email in members}
    yield ev.Weighed(
        study=STUDY,
        round=number,
        rule="paper",
        alpha=0.5,
        shares=shares,
        bandwidths={email: draw.uniform(0.5, 2) for email in members},
        staleness={},
    )
    yield ev.RoundFinished(
        study=STUDY,
        round=number,
        attempt=1,
        train_loss=3.0 / number**0.2 - 0.2,
        heldout_loss=3.0 / number**0.2,
        weights=shares,
        bytes_up=740_000,
        bytes_down=760_000,
        parameters=460_800,
        seconds={
            "train": 8.0,
            "seal": 0.2,
            "confirm": 0.5,
            "transfer": 0.4,
            "aggregate": 0.1,
            "open": 0.1,
            "wall": 9.3,
        },
    )


def progress(email, number, step, steps, time_s):
    told = Progress(study=STUDY, round=number, state="training", step=step, steps=steps)
    return ev.DomainProgress(study=STUDY, time_s=time_s, domain=email, progress=told)
