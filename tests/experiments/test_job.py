"""Jobs: what a model does with labels is what the run says of it."""

import pytest

from whatwhere.experiments.fitting import told_of
from whatwhere.experiments.job import Job


@pytest.mark.parametrize(
    ("model", "labels", "names", "calibrated"),
    [
        ("cnn", "50", True, True),
        ("swwae", "50", True, True),
        ("swwae", "none", True, False),
        ("exemplar_cnn", "50", False, False),
        ("pca", "50", False, False),
    ],
)
def test_labels_that_a_model_does_not_learn_from_are_said_to_be_none(
    model, labels, names, calibrated
):
    job = Job("digits", model, labels=labels, validation="60")
    read = job.read()
    assert job.names_classes() is names
    assert ("calibration" in read.facts(job)["validation_use"]) is calibrated
    unused = f"50 labels in 10 classes, which {model} does not learn from"
    assert (unused in told_of(read, job)[0]) is (not names)
