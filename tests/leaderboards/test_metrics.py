from __future__ import annotations

import numpy as np
import pytest
from unlearn_bench.leaderboards.stats.metrics import forget_part, retain_part, s_unlearning


@pytest.mark.parametrize(
    ("forget", "retain", "expected"),
    [
        (0.25, 1.0, 1.0),
        (1.0, 1.0, 0.0),
        (0.25, 0.25, 0.0),
        (0.625, 0.625, 0.25),
        (0.10, 0.10, 0.0),
        (0.10, 1.0, 1.0),
    ],
)
def test_s_of_known_inputs(forget, retain, expected):
    assert s_unlearning(forget, retain, forget_chance=0.25, retain_chance=0.25) == pytest.approx(expected)


def test_the_papers_base_rows_to_two_digits():
    """arXiv 2605.26454: Llama-3.1-8B base, WMDP 0.59 and MMLU 0.65; toxicity rates that give its base S-toxicity."""
    knowledge = s_unlearning(0.59, 0.65, forget_chance=0.25, retain_chance=0.25)
    toxicity = s_unlearning([0.36, 0.35], [0.65, 0.74], forget_chance=0.0, retain_chance=0.25)
    assert round(float(knowledge), 2) == 0.29
    assert toxicity.round(2).tolist() == [0.34, 0.42]


def test_damage_lowers_s_from_the_papers_base_and_raises_it_from_one_that_knows_nearly_everything():
    def damaged(forget, retain, kept):
        worse = [0.25 + kept * (value - 0.25) for value in (forget, retain)]
        return float(s_unlearning(*worse, forget_chance=0.25, retain_chance=0.25))

    assert damaged(0.59, 0.65, 0.6) < damaged(0.59, 0.65, 1.0)
    assert damaged(0.90, 0.85, 0.6) == pytest.approx(0.23, abs=0.01)
    assert damaged(0.90, 0.85, 1.0) == pytest.approx(0.11, abs=0.01)


def test_toxicity_is_not_corrected_for_chance():
    assert forget_part(0.3, 0.0) == pytest.approx(0.7)


def test_unclipped_parts_say_how_far_beyond_chance():
    assert forget_part(0.10, 0.25, clip=False) == pytest.approx(1.2)
    assert retain_part(0.10, 0.25, clip=False) == pytest.approx(-0.2)
    assert retain_part(0.10, 0.25) == 0.0


def test_it_is_vectorised_and_keeps_nan():
    values = s_unlearning(
        np.array([[0.25, np.nan]]), np.array([[1.0], [0.625]]), forget_chance=0.25, retain_chance=0.25
    )
    assert values.shape == (2, 2)
    assert values[:, 0].tolist() == [1.0, 0.5]
    assert np.isnan(values[:, 1]).all()
