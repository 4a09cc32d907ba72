"""What an attacker could recover: views of what each party holds, attacks on them, and the leakage rate."""

from fedpriv.leakage.attributes import Attribute, AttributeInference, Question, attribute_inference, guesses, questions
from fedpriv.leakage.canaries import CanaryFormat, Exposure, exposure, exposures
from fedpriv.leakage.gradients import gradient_of, read_tokens, sgd_update
from fedpriv.leakage.intervals import Interval
from fedpriv.leakage.membership import Membership, membership, membership_score
from fedpriv.leakage.overfit import overfitted
from fedpriv.leakage.rate import LeakageRate, Trial, leakage_rate
from fedpriv.leakage.rehearsal import Published, Rehearsal
from fedpriv.leakage.released import ReleasedMembership, calibrated_scores, loss_scores, released_membership
from fedpriv.leakage.rouge import exact_positions, rouge_l, rouge_n
from fedpriv.leakage.screening import recover_likely_tokens
from fedpriv.leakage.sequence_rate import SequenceRate, SequenceTrial, sequence_rate
from fedpriv.leakage.sequences import Reader, recover_sequences, sequence_reader
from fedpriv.leakage.tokens import ADAPTIVE_NOISE, Dictionary, recover_tokens, token_dictionary
from fedpriv.leakage.views import View, aggregator_view, domain_view, sum_view

__all__ = [
    "ADAPTIVE_NOISE",
    "Attribute",
    "AttributeInference",
    "CanaryFormat",
    "Dictionary",
    "Exposure",
    "Interval",
    "LeakageRate",
    "Membership",
    "Published",
    "Question",
    "Reader",
    "Rehearsal",
    "ReleasedMembership",
    "SequenceRate",
    "SequenceTrial",
    "Trial",
    "View",
    "aggregator_view",
    "attribute_inference",
    "calibrated_scores",
    "domain_view",
    "exact_positions",
    "exposure",
    "exposures",
    "gradient_of",
    "guesses",
    "leakage_rate",
    "loss_scores",
    "membership",
    "membership_score",
    "overfitted",
    "questions",
    "read_tokens",
    "recover_likely_tokens",
    "recover_sequences",
    "recover_tokens",
    "released_membership",
    "rouge_l",
    "rouge_n",
    "sequence_rate",
    "sequence_reader",
    "sgd_update",
    "sum_view",
    "token_dictionary",
]
