import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedpriv.domain.accountant import Mechanism, epsilon_of, noise_multiplier_for
from fedpriv.errors import ConfigError

GRID = [  # sigma, q, steps, delta
    (0.575, 16 / 62, 12, 1 / 62),
    (0.704, 16 / 38, 12, 1 / 38),
    (1.5, 1.0, 12, 1e-2),
    (0.6, 0.05, 100, 1e-4),
    (1.0, 0.01, 1000, 1e-5),
    (0.8, 0.001, 5000, 1e-6),
    (5.0, 0.01, 10_000, 1e-5),
    (2.0, 0.2, 300, 1e-3),
    (1.0, 1e-3, 20_000, 1e-6),
    (30.0, 1.0, 50, 1e-5),
]


def mechanism(sigma, q=1.0, steps=1):
    return Mechanism(noise_multiplier=sigma, sampling=q, steps=steps)


@pytest.mark.parametrize(("sigma", "q", "steps", "delta"), GRID)
def test_epsilon_is_that_of_an_independent_accountant(sigma, q, steps, delta):
    """opacus computes privacy random variables (Gopi et al. 2021), not privacy loss distributions."""
    from opacus.accountants import PRVAccountant

    ours = epsilon_of([mechanism(sigma, q, steps)], delta)
    theirs = PRVAccountant()
    theirs.history = [(sigma, q, steps)]
    error = 2e-3 * ours
    upper = float(theirs.get_epsilon(delta=delta, eps_error=error, delta_error=delta / 1000))
    assert ours == pytest.approx(upper, rel=0.01)


def analytic_delta(sigma, epsilon):
    """delta of one Gaussian mechanism, exactly (Balle and Wang 2018)."""

    def phi(x):
        return math.erfc(-x / math.sqrt(2)) / 2

    return phi(0.5 / sigma - epsilon * sigma) - math.exp(epsilon) * phi(-0.5 / sigma - epsilon * sigma)


@given(st.floats(0.4, 20), st.sampled_from([1e-5, 1e-3, 1e-2]), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_the_gaussian_mechanism_is_the_exact_one_from_above(sigma, delta, steps):
    epsilon = epsilon_of([mechanism(sigma * math.sqrt(steps), steps=steps)], delta)
    assert analytic_delta(sigma, epsilon) <= delta * (1 + 1e-6)
    if epsilon > 0.01:
        assert analytic_delta(sigma, epsilon * 0.997) > delta


@given(st.floats(0.5, 3), st.floats(0.05, 1), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_more_noise_costs_less_and_more_steps_cost_more(sigma, q, steps):
    epsilon = epsilon_of([mechanism(sigma, q, steps)], 0.01)
    assert epsilon_of([mechanism(sigma * 1.2, q, steps)], 0.01) <= epsilon
    assert epsilon_of([mechanism(sigma, q, steps + 5)], 0.01) >= epsilon
    assert epsilon_of([mechanism(sigma, q, steps)], 0.02) <= epsilon


def test_order_and_grouping_do_not_matter():
    first, second = mechanism(1.0, 0.2, 4), mechanism(1.5, 0.5, 2)
    assert epsilon_of([first, second], 0.01) == epsilon_of([second, first], 0.01)
    assert epsilon_of([first, first], 0.01) == epsilon_of([mechanism(1.0, 0.2, 8)], 0.01)
    assert epsilon_of([first, second], 0.01) > max(epsilon_of([first], 0.01), epsilon_of([second], 0.01))
    assert epsilon_of([first, second], 0.01) < epsilon_of([first], 0.005) + epsilon_of([second], 0.005)


@given(st.floats(0.5, 20), st.floats(0.05, 1), st.integers(1, 50))
@example(0.5, 0.5, 48)  # where a finer grid gives more than a coarser one
@settings(max_examples=10, deadline=None)
def test_the_noise_found_is_enough_and_hardly_more(epsilon, q, steps):
    sigma = noise_multiplier_for(epsilon, 0.01, sampling=q, steps=steps)
    assert 0.99 * epsilon <= epsilon_of([mechanism(sigma, q, steps)], 0.01) <= epsilon


def test_what_was_spent_leaves_less():
    spent = (mechanism(1.0, 0.3, 4),)
    sigma = noise_multiplier_for(8.0, 0.01, sampling=0.3, steps=8, spent=spent)
    assert sigma > noise_multiplier_for(8.0, 0.01, sampling=0.3, steps=8)
    assert epsilon_of([*spent, mechanism(sigma, 0.3, 8)], 0.01) <= 8
    assert math.isinf(noise_multiplier_for(epsilon_of(spent, 0.01) - 0.01, 0.01, sampling=0.3, steps=8, spent=spent))


def test_nothing_costs_nothing_and_no_noise_everything():
    assert epsilon_of([], 0.01) == 0
    assert epsilon_of([mechanism(1.0, 0.5, 0)], 0.01) == 0
    assert epsilon_of([mechanism(0.0)], 0.01) == math.inf


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, 2.0])
def test_a_delta_that_is_no_probability_is_refused(delta):
    with pytest.raises(ConfigError, match="delta"):
        epsilon_of([mechanism(1.0)], delta)


def test_the_domain_stays_light():
    import subprocess
    import sys

    code = "import sys, fedpriv.domain.accountant, fedpriv.domain.privacy_budget, fedpriv.domain.tickets as t; "
    code += "import dp_accounting; print(*{'torch', 'opacus', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"
