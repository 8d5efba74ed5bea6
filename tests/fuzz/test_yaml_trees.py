"""Trees of plain data in YAML files, found by Hypothesis: read, or refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.data.config import load_data_config
from secateur.errors import UserError
from secateur.families.hyp import load_hyp
from secateur.runs.recipes.recipe import load_recipe

SCALARS = st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(width=32) | st.text(max_size=12)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def mapping(*keys: str) -> Any:
    """A mapping with some of the keys, and now and then another one."""
    return st.dictionaries(st.sampled_from(keys) | st.text(max_size=5), TREES, max_size=6) | TREES


READS: dict[str, tuple[Callable[[Path], object], Any]] = {
    "data": (load_data_config, mapping("path", "train", "val", "test", "nc", "names")),
    "hyp": (load_hyp, mapping("lr0", "lrf", "momentum", "mosaic", "anchors", "fl_gamma")),
    "recipe": (
        load_recipe,
        st.fixed_dictionaries(
            {"stages": st.lists(mapping("train", "prune", "finetune", "repeat", "export"), max_size=3) | TREES}
        ),
    ),
}


@pytest.mark.parametrize("kind", sorted(READS))
def test_any_tree_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    read, trees = READS[kind]
    file = tmp_path / "tree.yaml"

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(trees)
    def check(value: Any) -> None:
        file.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
        try:
            read(file)
        except UserError as error:
            assert "\n" not in str(error)

    check()
