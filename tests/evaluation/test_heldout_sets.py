"""The held-out sets of an evaluator: one per scored domain, all of them or none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from embodichain.contracts import WindowSpec
from embodichain.evaluation import evaluator
from embodichain.evaluation.evaluator import Evaluator, EvaluatorParts

ERRORS = {"spatial": 0.2, "spatial@scenes": 0.3}


@pytest.fixture
def built(monkeypatch) -> Evaluator:
    def episodes(session, encoder, tasks, domain, *rest):
        if domain == "unsolved":
            raise RuntimeError("the expert solved only 0 of 10 held-out seeds")
        return domain

    monkeypatch.setattr(evaluator, "make_heldout_episodes", episodes)
    monkeypatch.setattr(evaluator, "heldout_batch", lambda domain, spec: SimpleNamespace(domain=domain, size=5))

    def error(checkpoint: str, batch: Any) -> dict[str, Any]:
        return {"action": ERRORS[batch.domain], "unit": "m"}

    nobody = cast(Any, None)  # neither simulates nor acts
    return Evaluator(EvaluatorParts(session=nobody, encoder=nobody, load_policy=nobody, heldout_error=error))


def test_the_first_domain_is_the_runs_own_and_every_domain_has_its_error(built: Evaluator) -> None:
    assert built.build_heldout(["handover"], tuple(ERRORS), 2, WindowSpec(), "") == 10
    assert built.heldout_error("c") == {"action": 0.2, "unit": "m", "by_domain": ERRORS}


def test_a_domain_that_cannot_be_made_leaves_no_set_of_the_others(built: Evaluator) -> None:
    with pytest.raises(RuntimeError, match="solved only 0 of 10"):
        built.build_heldout(["handover"], ("spatial", "unsolved"), 2, WindowSpec(), "")
    with pytest.raises(RuntimeError, match="before build_heldout"):
        built.heldout_error("c")
