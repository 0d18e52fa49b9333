"""Mistakes at the borders are answered in the user's words, by name, index and remedy."""

import json
import re
import subprocess
import sys

import hostile
import pytest

pytestmark = pytest.mark.compiles


@pytest.fixture(scope="module")
def said():
    run = [sys.executable, hostile.__file__]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("name", hostile.CASES)
def test_a_mistake_is_answered_by_name(said, name):
    _, says = hostile.CASES[name]
    assert re.search(says, said[name]), said[name]


def test_what_learns_refuses_numbers_indices_and_laws_by_name(said):
    borders = {name: pair for name, pair in said.items() if isinstance(pair, list)}
    wrong = {name: told for name, (says, told) in borders.items() if not re.search(says, told)}
    assert len(borders) > 60 and not wrong


@pytest.mark.parametrize("name", hostile.TAKEN)
def test_other_kinds_of_numbers_are_numbers(said, name):
    assert said[name] == "nothing"
