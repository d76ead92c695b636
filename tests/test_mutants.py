"""The faults of tests/mutants.py still fit the code, and their tests are there."""

import ast
from functools import cache

import pytest

from tests.mutants import MUTANTS, Mutant
from tests.paths import ROOT


@cache
def functions(file: str) -> set[str]:
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_can_be_made_and_names_its_test(mutant: Mutant) -> None:
    text = (ROOT / mutant.file).read_text()
    assert text.count(mutant.old) == 1 and mutant.new != mutant.old
    ast.parse(text.replace(mutant.old, mutant.new))
    file, name = mutant.test.split("::")
    assert name.split("[")[0] in functions(file)


def test_there_are_thirty_faults_and_more() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30
