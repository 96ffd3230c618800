"""experiments/ablation is reproducible: its plan composes and its table is correct."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from latentsync.cli.command import register_resolvers

HERE = Path(__file__).parents[2] / "experiments" / "ablation"
PLAN = OmegaConf.load(HERE / "variants.yaml")


@pytest.fixture
def script(monkeypatch) -> ModuleType:
    """Imports a script of the experiment as a module, under a name of its own."""

    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(HERE)
        spec = importlib.util.spec_from_file_location(f"ablation_{name}", HERE / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        monkeypatch.delitem(sys.modules, "measure", raising=False)
        return module

    return load


@pytest.mark.parametrize("name", list(PLAN.runs))
def test_every_variant_differs_from_its_base_only_in_what_it_says(name: str, script, tmp_path):
    register_resolvers()
    queue = script("run").Queue(PLAN, tmp_path, tmp_path, None)
    stage = PLAN.runs[name].stage
    base = [*PLAN[f"{stage}_base"], *([f"vae={tmp_path}/vae/model"] if stage == "stage1" else [])]
    plain = flat(queue.compose(tmp_path, base, 1))  # unresolved values: one change is one change
    varied = flat(queue.compose(tmp_path, queue.overrides(name), 1))
    said = [word.lstrip("+~").split("=")[0] for word in PLAN.runs[name].overrides]
    changed = {key for key in plain.keys() | varied.keys() if plain.get(key) != varied.get(key)}
    assert all(any(key.startswith(word) for word in said) for key in changed)
    # A word that changes nothing would not be a variant.
    assert all(any(key.startswith(word) for key in changed) for word in said)


def flat(config) -> dict[str, object]:
    values: dict[str, object] = {}

    def walk(node: object, prefix: str) -> None:
        if isinstance(node, dict):
            for key, child in node.items():
                walk(child, f"{prefix}.{key}" if prefix else str(key))
        else:
            values[prefix] = node

    walk(OmegaConf.to_container(config), "")
    return values


def test_the_table_tells_mean_spread_and_one_sided_differences(script):
    table = script("table")
    first = {0: 0.1, 1: 0.2, 2: 0.3}
    assert table.cell(first, first) == "0.200 ± 0.100"
    assert table.cell({0: 0.2, 1: 0.3, 2: 0.4}, first) == "0.300 ± 0.100*"
    assert table.cell({0: 0.2, 1: 0.1, 2: 0.6}, first) == "0.300 ± 0.265"


def test_every_case_of_the_table_is_drawn(script):
    drawn = {
        (name, f"{how.guidance:.1f}", how.get("reference", "apart"))
        for name, run in PLAN.runs.items()
        for how in run.draw
    }
    asked = {tuple(case[1:]) for rows in script("table").QUESTIONS.values() for case in rows}
    assert asked == drawn


def test_a_question_is_answered_by_two_cases_or_more(script):
    table = script("table")
    rows = table.QUESTIONS["Noise"]
    two = {tuple(case[1:]): {} for case in rows[:2]}
    assert table.answered(two)["Noise"] == rows[:2]
    two.popitem()
    assert table.answered(two) == {}
