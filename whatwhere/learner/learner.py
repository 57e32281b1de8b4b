"""The scikit-learn face of a method: hyper-parameters in, a trained module out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from whatwhere import runs
from whatwhere.core import UNLABELED, Encodes, InputError, Reconstructs, unknown
from whatwhere.data.corruption import Corruption
from whatwhere.data.rows import Rows
from whatwhere.learner.inference import Validation, infer
from whatwhere.learner.start import Start, begin
from whatwhere.train.stage import Stage
from whatwhere.train.trainer import Trainer

TO_THE_RUN = ("trainer", "random_state")  # fields that say how to run, not what to build


class Spec(NamedTuple):
    """What the data ask of a module.

    Attributes
    ----------
    shape : (C, H, W)
        Of one image.
    n_samples : int
    n_classes : int
        0 where nothing is labeled.
    n_labeled : int
    seed : int
        Weights are drawn from it, each part by a key of its own.
    class_counts : tuple of int
        Labels of each class; empty where they are not known.
    bounds : (float, float)
        The least and the largest value of a pixel, after `value_range` was brought to [0, 1].
    """

    shape: tuple[int, int, int]
    n_samples: int
    n_classes: int = 0
    n_labeled: int = 0
    seed: int = 0
    class_counts: tuple[int, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(eq=False, repr=False, kw_only=True)
class Learner(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator, ABC):
    """A method: hyper-parameters as fields, and `build` and `stages`. Abstract.

    Parameters
    ----------
    image_shape : (C, H, W), optional
        How to read the rows of a two-dimensional `X`; without it a row is one image (1, 1,
        features).
    channels : {"first", "last"}
        Where a four-dimensional `X` has its channels.
    value_range : (low, high), optional
        What black and white are. Default: (0, 255) for uint8, (0, 1) for all else.
    random_state : int, RandomState or None
        Decides every draw: weights, batches, noise.
    trainer : Trainer, optional
        Device, precision, checkpoints. Default: this process's CPU.
    stage_epochs : dict of str to int, optional
        Epochs of stages, by their names, where they are not to be what the other hyper-parameters
        say. 0 leaves a stage out.
    """

    image_shape: tuple[int, int, int] | None = None
    channels: str = "first"
    value_range: tuple[float, float] | None = None
    random_state: Any = None
    trainer: Trainer | None = None
    stage_epochs: dict[str, int] | None = None
    n_features_in_: int = field(init=False)  # scikit-learn sets it

    @abstractmethod
    def build(self, spec: Spec, /) -> nn.Module:
        """Return the module, its weights drawn from keys of ``spec.seed``."""

    @abstractmethod
    def stages(self, module: Any, spec: Spec, /) -> list[Stage]:
        """Return how the module is trained."""

    @abstractmethod
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        start: "Learner | None" = None,
    ) -> Self:
        """Learn from images, and from labels where the method looks at them."""

    @property
    def undoes(self) -> Corruption | None:
        """The noise that it is trained to take out of images; None for none."""
        return None

    def plan(self, spec: Spec, start: Start | None = None) -> tuple[nn.Module, list[Stage]]:
        """Return the module and how it is trained.

        Parameters
        ----------
        spec : Spec
        start : Start, optional
            Weights to begin with.

        Raises
        ------
        InputError
            If the weights do not fit, or `stage_epochs` names a stage that is not there.
        """
        module = self.build(spec)
        if start is not None:
            begin(module.state_dict(), self._classes(), self.begins_with(start))
        stages = self.stages(module, spec)
        named = {stage.name: stage for stage in stages}
        for name, epochs in (self.stage_epochs or {}).items():
            if name not in named:
                raise unknown("there is no stage", name, named)
            if not isinstance(epochs, Integral) or epochs < 0:
                raise InputError(f"{name}.epochs is {epochs!r}; it takes a whole number from 0 on")
            named[name].epochs = int(epochs)
        return module, [stage for stage in stages if stage.epochs]

    def begins_with(self, start: Start) -> Start:
        """Return what this learner takes over of another one, where both have it: all."""
        return start

    def choose(self, spec: Spec, /) -> dict[str, Any]:
        """Return the values of those hyper-parameters that are left to the data ("auto").

        They depend on the spec and the other hyper-parameters alone.
        """
        return {}

    def check(self) -> None:
        """Check every hyper-parameter.

        Raises
        ------
        InputError
            Naming the one that is out of its range, and the range.
        """
        try:
            self._validate_params()
        except InvalidParameterError as error:
            raise InputError(str(error).replace(f" of {type(self).__name__}", "")) from None

    def transform(self, X: Any) -> np.ndarray:
        """Return the features, float32 (n_samples, n_features)."""
        return self._apply(lambda module, x: module.encode(x), X, Encodes)

    def reconstruct(self, X: Any) -> np.ndarray:
        """Return the images rebuilt from their own codes, float32 (n_samples, C, H, W).

        Pixels are in the units of `value_range` where it is given, else in [0, 1]; they may leave
        it a little.
        """
        low, high = self.value_range or (0.0, 1.0)
        rebuilt = self._apply(lambda module, x: module.reconstruct(x), X, Reconstructs)
        return rebuilt * np.float32(high - low) + np.float32(low)

    def save(self, run: str | Path) -> Path:
        """Write the fitted learner into a new folder, without pickle; `whatwhere.load` reads it.

        Raises
        ------
        InputError
            If the folder holds something already.
        """
        check_is_fitted(self)
        folder = runs.create(Path(run))
        runs.write_json(folder / runs.CONFIG, self.describe())
        runs.write_weights(folder, self.module_)
        return folder

    def describe(self) -> dict[str, Any]:
        """Return all but the weights, as JSON holds it; `restore` reads it.

        What was ``chosen`` for the data stands among the ``params``: the net that was trained is
        built again, whatever would be chosen today.
        """
        return {
            "format": runs.FORMAT,
            "model": runs.snake_case(type(self).__name__),
            "params": {
                name: {"items": [*map(list, value.items())]} if isinstance(value, dict) else value
                for name, value in (self.hyper_parameters() | self.chosen_).items()
            },
            "chosen": self.chosen_,
            "spec": self.spec_._asdict(),
            "n_features_in": self.n_features_in_,
            "classes": self._classes(),
            "seed": self.spec_.seed,
            "reconstructs": isinstance(self.module_, Reconstructs),
            "undoes": None if self.undoes is None else str(self.undoes),
            "parameters": {
                name: sum(p.numel() for p in part.parameters())
                for name, part in self.module_.named_children()
            },
            "versions": runs.versions(),
        }

    def hyper_parameters(self) -> dict[str, Any]:
        """Return the fields that say what to build and how to train it."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.init and f.name not in TO_THE_RUN
        }

    @classmethod
    def restore(cls, config: Mapping[str, Any], folder: Path) -> Self:
        """Return the learner that `describe` told of, with the weights in `folder`."""
        own = {f.name for f in fields(cls) if f.init and f.name not in TO_THE_RUN}
        runs.check_config(config, folder, params=own, spec=set(Spec._fields))
        params, spec = (
            {name: _from_json(value) for name, value in config[part].items()}
            for part in ("params", "spec")
        )
        learner = cls(**params, random_state=config["seed"])
        learner.chosen_ = dict(config.get("chosen", {}))
        learner.n_features_in_ = config["n_features_in"]
        learner._set_classes(config["classes"])
        learner.spec_ = Spec(**spec)
        learner.image_shape_ = learner.spec_.shape
        learner.module_ = learner.build(learner.spec_)
        runs.read_weights(folder, learner.module_)
        learner.module_.eval()
        learner._end_fit()
        return learner

    def _classes(self) -> list[Any]:
        return []

    def _set_classes(self, classes: list[Any]) -> None:
        """Do nothing: this learner has no classes."""

    @staticmethod
    def _begun(start: "Learner | None") -> Start | None:
        """Return what a learner may begin with, of one that is fitted."""
        if start is None:
            return None
        if not isinstance(start, Learner):
            raise InputError(
                f"start={start!r}: it takes a fitted learner; whatwhere.load reads one"
            )
        check_is_fitted(start)
        return Start(start.module_.state_dict(), start._classes())

    def _train(
        self,
        x: Rows,
        n_classes: int = 0,
        validation: Rows | None = None,
        start: Start | None = None,
    ) -> Self:
        self.check()
        state = self.random_state
        seed = state
        if not isinstance(state, Integral):
            seed = check_random_state(state).randint(2**31 - 1)
        known = x.y[x.y != UNLABELED]
        counts = tuple(torch.bincount(known, minlength=n_classes).tolist())
        self.spec_ = Spec(x.shape, len(x), n_classes, len(known), int(seed), counts, x.bounds)
        self.chosen_ = self.choose(self.spec_)
        self.module_, stages = self.plan(self.spec_, start)
        self.stages_ = [stage.describe() for stage in stages]
        monitor = None if validation is None else Validation(validation, x)
        self._end_fit()  # before training: an interrupted learner is a fitted one
        trainer = self.trainer or Trainer()
        self.history_ = trainer.run(self.module_, stages, x, seed=self.spec_.seed, monitor=monitor)
        return self

    def _end_fit(self) -> None:
        with torch.no_grad():
            blank = torch.zeros(1, *self.spec_.shape)
            self.module_.eval()
            assert isinstance(self.module_, Encodes)
            self._n_features_out = self.module_.encode(blank).shape[1]

    def _rows(self, X: Any, y: np.ndarray | None = None, *, reset: bool) -> Rows:
        """Return `X` as images, after every check that a user may need."""
        given = X
        # uint8 stays as it is; whatever else there is becomes float32.
        types: Any = [np.float32, np.uint8]
        least = 2 if reset else 1
        X = check_array(X, dtype=types, allow_nd=True, ensure_min_samples=least, estimator=self)
        if X.ndim == 2:  # rows of a table: their number of features and its columns' names
            validate_data(self, given, reset=reset, skip_check_array=True)
        flat = X.ndim == 2 and self.image_shape is None
        images = self._as_images(X)
        if reset:
            self.n_features_in_ = int(np.prod(images.shape[1:]))
            self.image_shape_ = images.shape[1:]
        elif images.shape[1:] != self.image_shape_:
            raise InputError(
                f"images of shape {images.shape[1:]}, but this {type(self).__name__} was fitted to "
                f"{self.image_shape_} (channels, height, width); bring them to that size first"
            )
        bounds = self.value_range
        if bounds is None:
            bounds = (0.0, 255.0) if images.dtype == np.uint8 else (0.0, 1.0)
            if images.dtype != np.uint8 and not flat:
                check_unit_range(images)
        elif np.shape(bounds) != (2,) or bounds[0] >= bounds[1]:
            raise InputError(f"value_range={bounds}: it takes (low, high) with low < high")
        device = self.trainer.fabric.device if self.trainer and self.trainer.fabric else "cpu"
        return Rows(images, y, device=device, value_range=bounds)

    def _as_images(self, X: np.ndarray) -> np.ndarray:
        """Return `X` as (n, C, H, W)."""
        if self.channels not in ("first", "last"):
            raise InputError(f"channels={self.channels!r}: it takes 'first' or 'last'")
        if X.ndim == 2:
            shape = self.image_shape or (1, 1, X.shape[1])
            if np.prod(shape) != X.shape[1]:
                raise InputError(
                    f"X has {X.shape[1]} features a row, and image_shape={tuple(shape)} asks for "
                    f"{np.prod(shape)}; give the (channels, height, width) of one image"
                )
            return X.reshape(len(X), *shape)
        if X.ndim == 3:
            return X[:, None]
        if X.ndim != 4:
            raise InputError(
                f"X has {X.ndim} dimensions; give (n, H, W), (n, C, H, W) or (n, features)"
            )
        if self.channels == "last":
            return np.ascontiguousarray(X.transpose(0, 3, 1, 2))
        if X.shape[3] in (1, 3, 4) and X.shape[1] > X.shape[3]:
            raise InputError(
                f"X of shape {X.shape} looks like (n, H, W, C); say channels='last', "
                "or bring the channels to the second axis"
            )
        return X

    def _apply(self, function: Callable[[Any, Tensor], Tensor], X: Any, need: type) -> np.ndarray:
        check_is_fitted(self)
        if not isinstance(self.module_, need):
            raise InputError(f"{type(self).__name__} cannot do that: it is no {need.__name__}")
        rows = self._rows(X, reset=False)
        return torch.cat([part.cpu() for part in infer(self.module_, rows, function)]).numpy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def check_unit_range(images: np.ndarray) -> None:
    """Refuse float images that are not in [0, 1]: most likely they are bytes."""
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        raise InputError(
            f"images hold values from {low:g} to {high:g}; floats are read as [0, 1]: pass uint8, "
            "or say value_range=(low, high)"
        )


def _from_json(value: Any) -> Any:
    """Return what a hyper-parameter was: JSON has no tuples, and its keys are text alone."""
    if isinstance(value, list):
        return tuple(value)
    return dict(value["items"]) if isinstance(value, dict) else value
