"""The server optimiser against torch's, against arithmetic in plain Python, and against itself on other cuts."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.study.averaging import ServerChoice
from fedpriv.training.server import ServerState, server_step

ROUNDS, SIZE = 7, 40


def walk(choice, rate, start, updates):
    """Return the parameters after each round, for one tensor."""
    adapter, state, found = {"x": start}, ServerState(), []
    for update in updates:
        adapter, state = server_step(choice, rate, adapter, {"x": update}, state)
        found.append(adapter["x"])
    return found


def draws(seed=3, scale=3e-3):
    draw = np.random.default_rng(seed)
    return draw.normal(size=SIZE).astype(np.float32), draw.normal(0, scale, (ROUNDS, SIZE))


def rounded_to_float32(optimizer, parameter, updates, *, before_step=lambda: None):
    """Let torch take a step for each mean update, as a gradient with its sign turned, in float64."""
    found = []
    for update in updates:
        parameter.grad = torch.from_numpy(-update)
        before_step()
        optimizer.step()
        with torch.no_grad():  # between rounds parameters are float32
            parameter.copy_(parameter.float().double())
        found.append(parameter.detach().numpy().astype(np.float32))
    return found


def test_without_an_optimiser_the_parameters_move_by_the_mean():
    start, updates = draws()
    expected = start
    for found, update in zip(walk(ServerChoice(), 1.0, start, updates), updates, strict=True):
        expected = (expected + update).astype(np.float32)
        assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("rate", "beta1"), [(1.0, 0.9), (0.3, 0.5), (2.0, 0.0)])
def test_momentum_is_that_of_torch(rate, beta1):
    start, updates = draws()
    parameter = torch.nn.Parameter(torch.from_numpy(start).double())
    theirs = rounded_to_float32(torch.optim.SGD([parameter], lr=rate, momentum=beta1), parameter, updates)
    ours = walk(ServerChoice(optimizer="momentum", beta1=beta1), rate, start, updates)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-7)


@pytest.mark.parametrize(("beta1", "beta2", "tau"), [(0.9, 0.99, 1e-3), (0.0, 0.5, 1e-4), (0.5, 0.999, 0.1)])
def test_adam_is_that_of_torch_without_its_bias_correction(beta1, beta2, tau):
    """torch divides m by 1 - beta1^t and v by 1 - beta2^t; rate and epsilon are chosen so that both cancel."""
    rate, (start, updates) = 0.01, draws()
    parameter = torch.nn.Parameter(torch.from_numpy(start).double())
    optimizer = torch.optim.Adam([parameter], lr=rate, betas=(beta1, beta2))
    optimizer.state[parameter] = {
        "step": torch.tensor(0.0),
        "exp_avg": torch.zeros(SIZE, dtype=torch.float64),
        "exp_avg_sq": torch.full((SIZE,), tau**2, dtype=torch.float64),
    }

    def cancel():
        step = int(optimizer.state[parameter]["step"]) + 1
        root = math.sqrt(1 - beta2**step)
        optimizer.param_groups[0] |= {"lr": rate * (1 - beta1**step) / root, "eps": tau / root}

    theirs = rounded_to_float32(optimizer, parameter, updates, before_step=cancel)
    ours = walk(ServerChoice(optimizer="adam", beta1=beta1, beta2=beta2, tau=tau), rate, start, updates)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-7)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_every_bit_is_that_of_plain_arithmetic(optimizer):
    """Python's floats are IEEE doubles: the same operations in the same order give the same bits."""
    choice, rate, (start, updates) = ServerChoice(optimizer=optimizer), 0.7, draws()
    found = walk(choice, rate, start, updates)
    for place in range(SIZE):
        x, m, v = float(start[place]), 0.0, choice.tau * choice.tau
        for number, update in enumerate(updates):
            d = float(update[place])
            if optimizer == "momentum":
                m = choice.beta1 * m + d
                x = float(np.float32(x + rate * m))
            else:
                m = choice.beta1 * m + (1 - choice.beta1) * d
                v = choice.beta2 * v + (1 - choice.beta2) * (d * d)
                x = float(np.float32(x + rate * m / (math.sqrt(v) + choice.tau)))
            assert float(found[number][place]) == x


@settings(deadline=None)
@given(st.sampled_from(["none", "momentum", "adam"]), st.integers(1, SIZE - 1), st.integers(0, 99))
def test_the_bits_do_not_depend_on_how_the_parameters_are_cut_into_tensors(optimizer, cut, seed):
    choice, (start, updates) = ServerChoice(optimizer=optimizer), draws(seed)
    whole = walk(choice, 0.5, start, updates)
    parts = [walk(choice, 0.5, start[span], updates[:, span]) for span in (slice(cut), slice(cut, None))]
    assert np.concatenate([np.stack(part) for part in parts], axis=1).tobytes() == np.stack(whole).tobytes()


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_what_was_not_sent_stays_and_its_memory_waits(optimizer):
    choice, (start, updates) = ServerChoice(optimizer=optimizer), draws()
    adapter, state = {"a": start, "b": start}, ServerState()
    for number, update in enumerate(updates):
        name = "ba"[number % 2]
        other = adapter["ab"[number % 2]]
        adapter, state = server_step(choice, 0.5, adapter, {name: update}, state)
        assert adapter["ab"[number % 2]] is other
        assert set(state.mean) == ({"b"} if number == 0 else {"a", "b"})
    assert adapter["b"].tobytes() == walk(choice, 0.5, start, updates[0::2])[-1].tobytes()
    assert adapter["a"].tobytes() == walk(choice, 0.5, start, updates[1::2])[-1].tobytes()
