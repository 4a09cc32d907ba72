"""An attack on the mechanism itself: can one patient, the canary, be told to be there better than epsilon allows?

The attacker sees the noisy sums and knows the canary's gradient. What they find is a lower bound on epsilon, with
confidence; it must not be above what the accountant says. With too little noise it is: the check can fail.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from fedpriv.domain.accountant import Mechanism, epsilon_of
from fedpriv.training import noise
from fedpriv.training.examples import encode_patients
from fedpriv.training.model import adapter_parameters, load_model, put_adapter
from fedpriv.training.private_round import PrivateSteps, clipped_sum, noisy_mean, per_note_gradients
from tests.training.conftest import note

PATIENTS, TRIALS, DELTA, CONFIDENCE = 12, 3000, 0.02, 0.999
CLIP = 0.1


@pytest.fixture(scope="module")
def gradients(tiny):
    """Clipped gradients of twelve patients and of the canary (the last), as rows, from the real clipping."""
    from fedpriv.training import initial_adapter, lora_layout
    from tests.training.conftest import LORA

    draw = np.random.Generator(np.random.Philox(5))
    texts = [[note(draw)] for _ in range(PATIENTS)] + [["zyx qwv 77 ujk plo 31 mnb"]]
    patients = encode_patients(tiny.folder, texts, max_tokens=64)
    model = load_model(tiny.folder, LORA)
    put_adapter(model, initial_adapter(lora_layout(tiny.folder, LORA), seed=0))
    trained = {name: p for name, p in adapter_parameters(model).items() if name.endswith("lora_B.weight")}
    with per_note_gradients(model, trained):
        sums = [clipped_sum(model, trained, [patient], clip=CLIP, most=1) for patient in patients]
    rows = np.stack([np.concatenate([s[name].ravel().numpy() for name in sorted(s)]) for s in sums])
    # In coordinates of the space that they span: lengths and products stay, and the noise is alike in every direction,
    # so what lies outside of that space can neither help nor hinder an attacker who projects on one of them.
    coordinates = np.linalg.qr(rows.T, mode="r").T
    assert np.allclose(coordinates @ coordinates.T, rows @ rows.T, atol=1e-9)
    return coordinates


def scores(gradients, mechanism, *, noise_multiplier, with_canary):
    """What the attacker computes in each trial: all steps' sums, projected on the canary's gradient."""
    canary = gradients[-1] / np.linalg.norm(gradients[-1])
    shard = gradients if with_canary else gradients[:-1]
    private = PrivateSteps(
        noise_multiplier=noise_multiplier,
        sampling=mechanism.sampling,
        patients=PATIENTS,
        clip=CLIP,
        notes_per_patient=1,
    )
    found = np.zeros(TRIALS)
    for trial in range(TRIALS):
        for _ in range(mechanism.steps):
            drawn = shard[noise.sampled(len(shard), mechanism.sampling)]
            noisy = noisy_mean({"all": torch.from_numpy(drawn.sum(axis=0))}, private)
            found[trial] += float(noisy["all"].numpy() @ canary)
    return found


def lower_bound(present, absent):
    """The largest epsilon that the attack proves: ln((TPR - delta) / FPR) with Clopper and Pearson's intervals."""
    thresholds = np.quantile(np.concatenate([present, absent]), np.linspace(0.02, 0.98, 49))
    error = (1 - CONFIDENCE) / len(thresholds) / 2  # Bonferroni: the best of all thresholds is taken
    best = 0.0
    for threshold in thresholds:
        hits, alarms = int((present > threshold).sum()), int((absent > threshold).sum())
        least = stats.beta.ppf(error, hits, TRIALS - hits + 1) if hits else 0.0
        most = stats.beta.ppf(1 - error, alarms + 1, TRIALS - alarms) if alarms < TRIALS else 1.0
        if least > DELTA:
            best = max(best, math.log((least - DELTA) / most))
    return best


@pytest.mark.parametrize(
    "mechanism",
    [
        Mechanism(noise_multiplier=1.2, sampling=1.0, steps=1),
        Mechanism(noise_multiplier=0.8, sampling=0.4, steps=3),
    ],
    ids=str,
)
def test_the_attack_proves_no_more_than_the_accountant_says(gradients, mechanism):
    promised = epsilon_of([mechanism], DELTA)
    sigma = mechanism.noise_multiplier
    proved = SimpleNamespace(
        **{
            name: lower_bound(
                scores(gradients, mechanism, noise_multiplier=level, with_canary=True),
                scores(gradients, mechanism, noise_multiplier=level, with_canary=False),
            )
            for name, level in (("real", sigma), ("little", sigma / 10), ("none", 0.0))
        }
    )
    assert 0.2 < proved.real <= promised, "the attack works, and stays within what is promised"
    if mechanism.sampling == 1:  # sampling alone hides the canary in some trials
        assert proved.little > promised
        assert proved.none > promised
    else:
        assert proved.none > proved.real
