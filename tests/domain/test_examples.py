from pathlib import Path

import pytest

from fedpriv.clinical import load_mapping
from fedpriv.domain import DomainFolder

DOMAINS = Path(__file__).parents[2] / "domains"


@pytest.mark.parametrize("path", sorted(DOMAINS.glob("*/domain.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_are_valid_and_show_every_setting(path):
    config = DomainFolder(path.parent).load_config()
    assert config.name == path.parent.name
    text = path.read_text()
    for section in ("data", "policy", "resources", "transport", "service"):
        for setting in type(getattr(config, section)).model_fields:
            assert f"  {setting}:" in text
    mapping = DomainFolder(path.parent).mapping_path(config.data)
    if mapping:
        load_mapping(mapping)
    files = {path.name, mapping.name if mapping else path.name}
    assert {p.name for p in path.parent.iterdir()} == files


def test_there_are_three_and_one_of_them_is_mapped():
    configs = {path.parent.name: DomainFolder(path.parent).load_config() for path in DOMAINS.glob("*/domain.yaml")}
    assert {name: config.data.mapping for name, config in configs.items()} == {
        "ccu": "mapping.yaml",
        "micu": None,
        "sicu": None,
    }
