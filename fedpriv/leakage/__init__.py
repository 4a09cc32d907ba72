"""What an attacker could recover: views of what each party holds, attacks on them, and the leakage rate."""

from fedpriv.leakage.gradients import gradient_of, read_tokens, sgd_update
from fedpriv.leakage.intervals import Interval
from fedpriv.leakage.membership import Membership, membership, membership_score
from fedpriv.leakage.rate import LeakageRate, Trial, leakage_rate
from fedpriv.leakage.rehearsal import Published, Rehearsal
from fedpriv.leakage.screening import recover_likely_tokens
from fedpriv.leakage.tokens import ADAPTIVE_NOISE, Dictionary, recover_tokens, token_dictionary
from fedpriv.leakage.views import View, aggregator_view, sum_view

__all__ = [
    "ADAPTIVE_NOISE",
    "Dictionary",
    "Interval",
    "LeakageRate",
    "Membership",
    "Published",
    "Rehearsal",
    "Trial",
    "View",
    "aggregator_view",
    "gradient_of",
    "leakage_rate",
    "membership",
    "membership_score",
    "read_tokens",
    "recover_likely_tokens",
    "recover_tokens",
    "sgd_update",
    "sum_view",
    "token_dictionary",
]
