"""Real requests: the loader's answers to mistakes, the workflow's accounting, and IC-Q beside a classifier."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from icq.sampled.environment import Environment
from icq_bounds.workflows.routing.text_cells import TextCell, fingerprint
from synthetic.text_routing import ANSWER, BOUNCE, TextRouting, embed, load_clinc150, text_routing

pytestmark = pytest.mark.compiles

DOMAINS = {"food": ["recipe", "order"], "travel": ["flight"]}
WORDS = {"recipe": "cook boil bake soup", "order": "pizza burger menu delivery", "flight": "plane airport seat ticket"}


def write(folder, **change):
    rows = [[f"please {word} something {i}", intent] for intent, line in WORDS.items() for word in line.split()
            for i in range(4)]  # fmt: skip
    data = {"train": rows, "test": [[f"i need {t.split()[1]} now", intent] for t, intent in rows]} | change
    (folder / "data_full.json").write_text(json.dumps(data))
    (folder / "domains.json").write_text(json.dumps(DOMAINS))
    return folder


def test_loading(tmp_path):
    texts = load_clinc150(write(tmp_path))
    assert texts.domains == ("food", "travel")
    assert len(texts.train) == 48 and set(texts.train_domain.tolist()) == {0, 1}
    assert [texts.domains[d] for d in texts.train_domain[[0, -1]]] == ["food", "travel"]


@pytest.mark.parametrize(
    ("change", "says"),
    [({"test": [["hello", "weather"]]}, r"test\[0\].*weather"), ({"train": [["alone"]]}, r"train\[0\]")],
)
def test_wrong_rows_are_named(tmp_path, change, says):
    with pytest.raises(ValueError, match=says):
        load_clinc150(write(tmp_path, **change))


def test_a_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="clinc/oos-eval"):
        load_clinc150(tmp_path)
    write(tmp_path)
    (tmp_path / "data_full.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load_clinc150(tmp_path)
    (tmp_path / "data_full.json").write_text("{}")
    with pytest.raises(ValueError, match="no 'train'"):
        load_clinc150(tmp_path)


ENV = TextRouting(jnp.eye(3, dtype=jnp.float32), jnp.array([0, 1, 1], jnp.int32), 2)
ACT = jax.jit(ENV.act)


def play(request, *options):
    state, effect = ENV.begin(jnp.int32(request)), None
    for option in options:
        assert bool(ENV.observe(state).available[option])
        effect = ACT(state, jnp.int32(option), jax.random.key(0))
        state = effect.state
    return effect


def test_a_request_is_answered_by_its_specialist():
    assert isinstance(ENV, Environment)
    right, wrong = play(1, 1, ANSWER), play(1, 0, ANSWER)
    assert bool(right.done) and float(right.reward) == 1.0 and bool(ENV.answered_right(right.state))
    assert bool(wrong.done) and float(wrong.reward) == 0.0 and not bool(ENV.answered_right(wrong.state))
    given_up = play(1, 2)
    assert bool(given_up.done) and not bool(ENV.answered_right(given_up.state))


def test_a_bounced_request_is_not_sent_there_again():
    back = play(0, 1, BOUNCE)
    seen = ENV.observe(back.state)
    assert not bool(back.done) and int(seen.agent) == 0
    assert np.asarray(seen.available).tolist() == [True, False, True]
    assert np.asarray(seen.view)[-2:].tolist() == [0.0, 1.0]


def test_words_limit_what_is_embedded():
    pytest.importorskip("wordllama")
    same, other = ("book a flight now", "book a table please"), ("cancel it", "book it")
    assert np.array_equal(*embed(same, 2))
    assert not np.array_equal(*embed(same))
    assert not np.array_equal(*embed(other, 1))
    assert np.linalg.norm(embed(same), axis=1) == pytest.approx(1.0, abs=1e-3)


def test_icq_learns_what_the_classifier_is_told(tmp_path):
    pytest.importorskip("wordllama")
    folder = write(tmp_path)
    cell = TextCell(None, 400, fingerprint(folder), folder, copies=64, width=16)
    found = cell.run()
    assert found["supervised"] > 0.9
    assert found["right"] >= 0.95 * found["supervised"]
    assert str(tmp_path) not in repr(cell)
    assert text_routing(load_clinc150(folder), 1).agents == 3
