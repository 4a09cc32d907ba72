from pathlib import Path

import pytest

from fedpriv.domain import DomainFolder

DOMAINS = Path(__file__).parents[2] / "domains"


@pytest.mark.parametrize("path", sorted(DOMAINS.glob("*/domain.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_are_valid_and_show_every_setting(path):
    config = DomainFolder(path.parent).load_config()
    assert config.name == path.parent.name
    text = path.read_text()
    for section in ("data", "policy", "resources"):
        for setting in type(getattr(config, section)).model_fields:
            assert f"  {setting}:" in text
    assert sorted(p.name for p in path.parent.iterdir()) == ["domain.yaml"]
