"""Language models: the transformer GPT, and a recurrent one."""

from treadle.text.models.gpt import GPT, GPTConfig
from treadle.text.models.lstm import LSTMLanguageModel

__all__ = ["GPT", "GPTConfig", "LSTMLanguageModel"]
