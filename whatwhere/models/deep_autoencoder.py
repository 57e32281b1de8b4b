"""Deep auto-encoder: a net of many layers folded at a small code.

    784 - 1000 - 500 - 250 - 30 - 250 - 500 - 1000 - 784

Logistic units and a linear code, as Hinton and Salakhutdinov had it. Started at random by the means
of its time, gradient descent gives the average image for every image: the gradient fades on its way
through the layers. Two cures are here: a start from layers that were trained one upon another, and
weights whose size keeps signals and gradients alive, with Adam.

References
----------
Hinton, Salakhutdinov. Reducing the dimensionality of data with neural networks. Science 2006.
Glorot, Bengio. Understanding the difficulty of training deep feedforward neural networks. 2010.
"""

from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from sklearn.utils._param_validation import StrOptions

from whatwhere.learner import Spec
from whatwhere.models.autoencoder import (
    COUNT,
    RATE,
    MirrorLearner,
    ReconstructionLoss,
)
from whatwhere.models.stacked_autoencoder import NONE, RBM, fold, layer_stages, rbm_stages
from whatwhere.nn.mirror import Mirror
from whatwhere.train.gradients import GradientSizes
from whatwhere.train.stage import Stage

STACKED = "stacked"


@dataclass(eq=False, repr=False)
class DeepAutoencoder(MirrorLearner):
    """Deep auto-encoder, from random weights or from layers trained one upon another.

    Parameters
    ----------
    architecture : str
        The way down to the code, which is the last layer.
    pretraining : {"stacked", "rbm", "none"}
        Whether each layer is first trained as an auto-encoder of what is below it, or as a
        restricted Boltzmann machine (logistic units, and a linear code), which is then unrolled.
    pretraining_epochs : int
        Of each layer.
    pretraining_rate : float
        Of Adam, for each layer (RBMs have rates of their own); constant, and from half
        of its epochs on linearly down to 0.
    activation, code_activation, output, loss, tied, initialization, weight_decay, epochs,
    batch_size, optimizer, learning_rate, decay_from, patience
        As for `Autoencoder`; epochs, rate and patience are those of the whole net.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.zeros((20, 8, 8), np.uint8)
    >>> images[::2, :, 4:] = 255
    >>> model = DeepAutoencoder("16fc-8fc-2fc", pretraining_epochs=3, epochs=3, random_state=0)
    >>> model.fit(images).transform(images).shape
    (20, 2)
    """

    architecture: str = "1000fc-500fc-250fc-30fc"
    _: KW_ONLY
    activation: str = "logistic"
    code_activation: str | None = "identity"
    pretraining: str = NONE
    pretraining_epochs: int = 10
    pretraining_rate: float = 1e-3

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **MirrorLearner._parameter_constraints,
        "pretraining": [StrOptions({STACKED, RBM, NONE})],
        "pretraining_epochs": [COUNT],
        "pretraining_rate": [RATE],
    }

    def objective(self, spec: Spec) -> ReconstructionLoss:
        """Return the error of what is rebuilt."""
        return ReconstructionLoss(self.fit_for(spec).loss, self.weight_decay)

    def stages(self, module: Mirror, spec: Spec) -> list[Stage]:
        """Return a stage for each layer, where they are pretrained, and one for the whole net."""
        settled, objective, layers = self.settle(spec), self.objective(spec), []
        if self.pretraining == STACKED:
            layers = layer_stages(
                module,
                spec,
                epochs=self.pretraining_epochs,
                batch_size=settled.batch_size,
                optimizer=partial(torch.optim.Adam, lr=self.pretraining_rate),
                loss=settled.loss,
            )
        elif self.pretraining == RBM:
            layers = rbm_stages(
                module,
                spec,
                epochs=self.pretraining_epochs,
                batch_size=settled.batch_size,
            )
        whole = self.joint_stage(module, spec, "fine-tuning", objective)
        parts = {f"layer{k + 1}": up for k, up in enumerate(module.encoder)}
        if self.pretraining == RBM:
            whole.prepare = partial(fold, module)
        whole.updates = [GradientSizes(module, objective, parts), *whole.updates]
        return [*layers, whole]
