"""Optimisers and learning-rate schedules, under PyTorch's names."""

from treadle.optim import lr_scheduler
from treadle.optim.adafactor import Adafactor
from treadle.optim.adagrad import Adadelta, Adagrad
from treadle.optim.adam import Adam, AdamW
from treadle.optim.adam_variants import Adamax, NAdam, RAdam
from treadle.optim.lbfgs import LBFGS
from treadle.optim.muon import Muon
from treadle.optim.optimizer import Optimizer
from treadle.optim.rmsprop import RMSprop
from treadle.optim.rprop import ASGD, Rprop
from treadle.optim.sgd import SGD

__all__ = [
    "ASGD", "LBFGS", "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Muon",
    "NAdam", "Optimizer", "RAdam", "RMSprop", "Rprop", "lr_scheduler",
]  # fmt: skip
