from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpriv.errors import GatekeeperError, ProtectionError, UntrustedError
from fedpriv.protection import first_scales, needs_unlock, opener_for, scales_digest, sealer_for
from fedpriv.study.protection_choice import LevelRule, ProtectionChoice
from tests.protection.helpers import CLIP, Cohort, make_cohort

ROOT = Path(__file__).parents[2]
TENSORS = {"a": 3000, "b.x": 1, "b.y": 4999, "c": 700}
TOLERANCE = {"sealed": 2e-8, "masked": 2e-8, "plain": 2e-8, "ckks": 1e-7, "ckks-tuned": 5e-4}
HYBRID = (
    LevelRule(tensors=("a",), level="masked", bits=6),
    LevelRule(tensors=("b.*",), level="sealed", bits=12),
    LevelRule(tensors=("c",), level="plain"),
)


def round_trip(cohort: Cohort, tolerance: float, **changes) -> None:
    parts = list(cohort.seal_all(size=CLIP / 4, **changes).values())
    path, digest = cohort.add(parts)
    opened = cohort.open(path, cohort.manifest(parts, digest))
    assert (opened.sum.dtype, opened.sum.shape) == (np.float32, (cohort.size,))
    np.testing.assert_allclose(opened.sum, sum(part.sent for part in parts), atol=tolerance)
    assert len(opened.next_scales) == len(cohort.scales)


@pytest.mark.parametrize("level", list(TOLERANCE))
@pytest.mark.parametrize("clients", [2, 5])
def test_every_level_opens_to_the_sum_of_what_was_sent(tmp_path, level, clients):
    cohort = make_cohort(tmp_path, level, clients=clients, tensors=TENSORS)
    assert needs_unlock(cohort.protection) == (level in ("sealed", "masked"))
    round_trip(cohort, TOLERANCE[level])


@pytest.mark.parametrize("security", ["tc192", "tc256"])
def test_a_hybrid_plan_opens_to_the_sum_of_what_was_sent(tmp_path, security):
    cohort = make_cohort(tmp_path, "plain", tensors={**TENSORS, "d": 7}, rules=HYBRID, security=security)
    assert [group.level for group in cohort.key.parameters.groups] == ["sealed", "masked", "plain"]
    round_trip(cohort, 2e-8)


def test_all_levels_live_in_one_container(tmp_path):
    rules = tuple(LevelRule(tensors=(name,), level=level) for name, level in zip("abcde", TOLERANCE, strict=True))
    cohort = make_cohort(tmp_path, "sealed", tensors=dict.fromkeys("abcdef", 300), rules=rules, bits=8)
    round_trip(cohort, 5e-4)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=4),
    levels=st.lists(st.sampled_from(["sealed", "masked", "plain"]), min_size=4, max_size=4),
    bits=st.integers(4, 16),
    clients=st.integers(2, 4),
    weight=st.floats(0.01, 1),
)
def test_any_plan_opens_to_the_sum_of_what_was_sent(tmp_path_factory, **drawn):
    tensors = {f"t{number}": size for number, size in enumerate(drawn["sizes"])}
    rules = tuple(
        LevelRule(tensors=(name,), level=level) for name, level in zip(tensors, drawn["levels"], strict=False)
    )
    cohort = make_cohort(
        tmp_path_factory.mktemp("any"), clients=drawn["clients"], bits=drawn["bits"], tensors=tensors, rules=rules
    )
    round_trip(cohort, 5e-8, weight=drawn["weight"])


def test_weights_are_applied_and_the_residual_is_what_is_left(tmp_path):
    cohort = make_cohort(tmp_path, "masked", bits=8, tensors=TENSORS)
    update = np.random.default_rng(1).normal(0, CLIP, cohort.size).astype(np.float32)
    step = CLIP / 127
    for weight in (1.0, 0.25):
        part = cohort.seal(cohort.members[0], update, weight=weight)
        levels = part.sent / step
        assert np.abs(levels - np.rint(levels)).max() < 1e-3
        assert np.abs(levels).max() <= 127.001
        inside = np.abs(weight * update) <= CLIP
        assert np.abs(part.residual[inside]).max() <= step * 1.001
        assert part.clipped == np.count_nonzero(~inside)
        sign = np.sign(update[~inside])
        np.testing.assert_allclose(part.residual[~inside], weight * update[~inside] - sign * CLIP, atol=1e-7)


def test_over_many_rounds_the_sum_of_what_was_sent_tracks_the_sum_of_the_updates(tmp_path):
    """With error feedback the distance stays below one step a member; without, it grows with every round."""
    cohort = make_cohort(tmp_path, "masked", clients=2, bits=4, tensors={"a": 2000})
    rng = np.random.default_rng(5)
    distance = {}
    for feedback in (True, False):
        wanted, sent = np.zeros(cohort.size), np.zeros(cohort.size)
        left: dict[str, Path | None] = dict.fromkeys(cohort.members)
        for number in range(1, 41):
            parts = []
            for member in cohort.members:
                update = rng.normal(0.002, CLIP / 2, cohort.size).astype(np.float32)
                wanted += update / 2
                name = f"{member}.{number % 2}"
                part = cohort.seal(
                    member, update, name=f"{name}.fedpriv", residual=left[member], round=number, seed=(number,)
                )
                left[member] = part.path.with_suffix(".residual") if feedback else None
                parts.append(part)
            path, digest = cohort.add(parts)
            sent += cohort.open(path, cohort.manifest(parts, digest)).sum
        distance[feedback] = np.abs(wanted - sent).max()
    assert distance[True] < 2 * CLIP / 7 * 1.1
    assert distance[False] > 3 * distance[True]


def test_what_was_clipped_comes_in_later_rounds(tmp_path):
    cohort = make_cohort(tmp_path, "masked", clients=2, tensors={"a": 10})
    member, sent = cohort.members[0], np.zeros(10)
    update, left = np.full(10, 4 * CLIP, np.float32), None
    for number in range(1, 7):
        part = cohort.seal(member, update, name=f"{number}.fedpriv", residual=left, round=number, weight=1.0)
        previous = 0 if left is None else np.fromfile(left, "<f4")
        sent += part.sent + previous
        left, update = part.path.with_suffix(".residual"), np.zeros(10, np.float32)
    np.testing.assert_allclose(sent, 4 * CLIP, rtol=1e-6)


@pytest.mark.parametrize("level", ["sealed", "masked", "plain", "ckks", "ckks-tuned"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_nothing_is_written(tmp_path, level, value):
    cohort = make_cohort(tmp_path, level, clients=2, tensors={"a": 5000})
    update = np.zeros(cohort.size, np.float32)
    update[4321] = value
    with pytest.raises(GatekeeperError, match="not finite"):
        cohort.seal(cohort.members[0], update)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "update",
    [
        np.full(1000, 3e38, np.float32),
        np.zeros(1000, np.float64),
        np.zeros(1000, np.int32),
        np.zeros(999, np.float32),
        np.zeros(1001, np.float32),
        np.zeros((10, 100), np.float32),
        np.zeros(0, np.float32),
    ],
)
def test_overflows_and_wrong_types_and_shapes_are_refused_and_nothing_is_written(tmp_path, update):
    cohort = make_cohort(tmp_path, "masked", clients=2)
    with pytest.raises(GatekeeperError):
        cohort.seal(cohort.members[0], update, weight=1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_residual_that_is_not_finite_missing_or_of_another_size_is_refused(tmp_path):
    cohort = make_cohort(tmp_path / "x", "masked", clients=2)
    (tmp_path / "x").mkdir()
    update, residual = np.zeros(cohort.size, np.float32), tmp_path / "residual"
    with pytest.raises(ProtectionError, match="not there"):
        cohort.seal(cohort.members[0], update, residual=residual)
    residual.write_bytes(bytes(4 * cohort.size - 4))
    with pytest.raises(ProtectionError, match="does not hold"):
        cohort.seal(cohort.members[0], update, residual=residual)
    np.full(cohort.size, np.inf, "<f4").tofile(residual)
    with pytest.raises(GatekeeperError, match="not finite"):
        cohort.seal(cohort.members[0], update, residual=residual)
    assert list((tmp_path / "x").iterdir()) == []


def test_files_are_private_and_of_the_size_that_was_said(tmp_path):
    cohort = make_cohort(tmp_path)
    part = cohort.seal(cohort.members[0], np.zeros(cohort.size, np.float32))
    assert part.path.stat().st_size == part.signed.container_bytes
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"key_id": "0" * 64}, "another study key"),
        ({"scales": "0" * 64}, "other scales"),
        ({"parameters": 999}, "for 1000 parameters"),
        ({"cohort": "0" * 64}, "cohort"),
        ({"member": "d01@example.org"}, "another member"),
    ],
)
def test_headers_that_do_not_fit_are_refused(tmp_path, change, words):
    cohort = make_cohort(tmp_path)
    header = cohort.header(cohort.members[0], **change)
    with pytest.raises(ProtectionError, match=words):
        cohort.sealer(cohort.members[0]).seal(
            header, np.zeros(cohort.size, np.float32), tmp_path / "x", scales=cohort.scales
        )
    assert list(tmp_path.iterdir()) == []


def test_masks_are_needed_and_no_more_members_than_the_key_is_for(tmp_path):
    cohort = make_cohort(tmp_path)
    with pytest.raises(ProtectionError, match="need the masks"):
        sealer_for(cohort.protection, cohort.key, cohort.tensors)
    larger = make_cohort(tmp_path, clients=4)
    larger.key = cohort.key
    with pytest.raises(ProtectionError, match="more members seal"):
        larger.seal(larger.members[0], np.zeros(larger.size, np.float32))


def test_scales_of_another_number_are_refused(tmp_path):
    cohort = make_cohort(tmp_path)
    cohort.scales = (CLIP,)
    with pytest.raises(ProtectionError, match="one scale for each tensor"):
        cohort.seal(cohort.members[0], np.zeros(cohort.size, np.float32))


def test_scales_are_by_tensor_and_the_next_ones_follow_the_sum(tmp_path):
    cohort = make_cohort(tmp_path, "masked", tensors={"a": 5000, "b": 5000})
    cohort.scales = (CLIP, 1.0)
    rng = np.random.default_rng(1)
    parts = []
    for member in cohort.members:
        update = rng.normal(0, 1, cohort.size).astype(np.float32) * np.repeat([0.01, 0.2], 5000).astype(np.float32)
        parts.append(cohort.seal(member, update))
    path, digest = cohort.add(parts)
    opened = cohort.open(path, cohort.manifest(parts, digest))
    np.testing.assert_allclose(opened.sum, sum(part.sent for part in parts), atol=2e-7)
    ratio = opened.next_scales[1] / opened.next_scales[0]
    assert ratio == pytest.approx(20, rel=0.05)
    assert scales_digest(opened.next_scales) != scales_digest(cohort.scales)


def test_a_single_update_or_too_many_are_not_opened(tmp_path):
    cohort = make_cohort(tmp_path, "plain", clients=2)
    parts = list(cohort.seal_all().values())
    path, digest = cohort.add(parts[:1])
    with pytest.raises(ProtectionError, match="a sum of 1"):
        cohort.open(path, cohort.manifest(parts[:1], digest))
    header = parts[0].signed.header.model_copy(update={"member": "d02@example.org"})
    three = [*parts, dataclasses.replace(parts[0], signed=parts[0].signed.model_copy(update={"header": header}))]
    with pytest.raises(ProtectionError, match="for sums of 2"):
        cohort.add(three)
    with pytest.raises(ProtectionError, match="a sum of 3"):
        cohort.open(path, cohort.manifest(three, digest))


def test_a_sum_opens_only_with_the_scales_of_its_updates(tmp_path):
    cohort = make_cohort(tmp_path, "masked")
    parts = list(cohort.seal_all().values())
    path, digest = cohort.add(parts)
    opener = opener_for(cohort.protection, cohort.key, cohort.tensors)
    manifest = cohort.manifest(parts, digest)
    with pytest.raises(ProtectionError, match="other scales"):
        opener.open(path, manifest=manifest, scales=first_scales(CLIP * 2, cohort.tensors))


def test_an_opener_is_for_its_plan(tmp_path):
    cohort = make_cohort(tmp_path)
    with pytest.raises(ProtectionError, match="another protection"):
        opener_for(ProtectionChoice(level="sealed", bits=9), cohort.key, cohort.tensors)


def test_nothing_is_added_of_nothing(tmp_path):
    with pytest.raises(UntrustedError, match="no update"):
        make_cohort(tmp_path).add([])


def run(script: str, folder: Path) -> list[float]:
    """Run a script in a process of its own, from the root of the repository, and return the numbers that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


_PEAK = """
import sys, threading, time
from pathlib import Path
import numpy as np
import psutil
from tests.protection.helpers import make_cohort

def growth(work):
    process, stop = psutil.Process(), threading.Event()
    base = peak = process.memory_info().rss
    def watch():
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.002)
    thread = threading.Thread(target=watch)
    thread.start()
    work()
    stop.set()
    thread.join()
    return max(peak, process.memory_info().rss) - base

def update_of(cohort):
    return np.random.default_rng(1).standard_normal(cohort.size, np.float32) * np.float32(0.01)
"""


def test_memory_does_not_grow_with_the_update(tmp_path):
    script = (
        _PEAK
        + """
small = make_cohort(Path(sys.argv[1]), tensors={"a": 100_000})
small.seal(small.members[0], update_of(small))
large = make_cohort(Path(sys.argv[1]), tensors={"a": 3_000_000})
update, sealer, header = update_of(large), large.sealer(large.members[0]), large.header(large.members[0])
out = Path(sys.argv[1]) / "x"
print(growth(lambda: sealer.seal(header, update, out, scales=large.scales, residual_out=out.with_suffix(".r"))))
hog = []
print(growth(lambda: hog.append(np.ones(15_000_000, np.float32))))
"""
    )
    sealing, hog = run(script, tmp_path)
    assert hog > 50e6  # it would have been seen
    assert sealing < 50e6


def test_memory_does_not_grow_with_the_number_of_updates(tmp_path):
    script = (
        _PEAK
        + """
cohort = make_cohort(Path(sys.argv[1]), clients=8, tensors={"a": 1_000_000})
parts = [cohort.seal(member, update_of(cohort)) for member in cohort.members]
cohort.add(parts[:2])
print(growth(lambda: cohort.add(parts[:2])), growth(lambda: cohort.add(parts)))
"""
    )
    two, eight = run(script, tmp_path)
    assert abs(eight - two) < 10e6


def test_a_kill_leaves_no_container_or_a_whole_one(tmp_path):
    script = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from fedpriv.files import file_sha256
from tests.protection.helpers import fixed_keys, make_cohort, with_fixed_key

folder = Path(sys.argv[1])
cohort = with_fixed_key(make_cohort(folder, "masked", clients=2, bits=4, tensors={"a": 1_000_000}, keys=fixed_keys))
update = np.random.default_rng(1).standard_normal(cohort.size, np.float32) * np.float32(0.01)
seal = lambda: cohort.seal(cohort.members[0], update, name="x.fedpriv")
seal()
start = time.perf_counter()
whole = seal().signed.container_sha256
took = time.perf_counter() - start
found = {"none": 0, "whole": 0, "torn": 0, "unfinished": 0}
for trial in range(16):
    for path in folder.iterdir():
        path.unlink()
    pid = os.fork()
    if pid == 0:
        seal()
        os._exit(0)
    if trial < 15:
        time.sleep(took * trial / 12)
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    path = folder / "x.fedpriv"
    found["unfinished"] += any(entry.name.startswith(".") for entry in folder.iterdir())
    found["none" if not path.exists() else "whole" if file_sha256(path) == whole else "torn"] += 1
print(*found.values())
"""
    none, whole, torn, unfinished = run(script, tmp_path)
    assert torn == 0
    assert none > 0
    assert whole > 0
    assert unfinished > 0  # some were killed in the middle
