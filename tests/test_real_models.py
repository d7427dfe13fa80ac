"""Six models from the wild come down to 0.7 of their multiply-accumulates, exactly."""

from __future__ import annotations

import pytest

import real_models

CUT_CONVS = {
    "lenet5": (2, 2),
    "ppocr-cls": (53, 53),
    "mtcnn-onet": (4, 4),
    "crepe-tiny": (6, 6),
    "mobilenet-v2": (52, 52),
    "resnet50-light": (53, 53),
}


@pytest.mark.models
@pytest.mark.parametrize("name", CUT_CONVS)
def test_a_real_model_reaches_the_target_exactly(name: str) -> None:
    found = real_models.run(name, keep=0.7, estimator="l1", budget="auto")
    assert found.reached
    assert 0.68 < found.macs <= 0.7
    assert found.max_difference <= 1e-4
    assert found.convs == CUT_CONVS[name]


def test_the_table_covers_every_model() -> None:
    assert tuple(CUT_CONVS) == real_models.NAMES
