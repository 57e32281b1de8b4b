"""The scikit-learn face of a method: hyper-parameters in, a trained module out."""

from whatwhere.learner.classifier import ImageClassifier
from whatwhere.learner.features import FeatureLearner
from whatwhere.learner.inference import INFERENCE_BATCH, Validation, infer
from whatwhere.learner.learner import Learner, Spec

__all__ = [
    "INFERENCE_BATCH",
    "FeatureLearner",
    "ImageClassifier",
    "Learner",
    "Spec",
    "Validation",
    "infer",
]
