"""Checkpoints in PyTorch's format and in safetensors: written whole, read without running code."""

from treadle.io.checkpoint import load, save
from treadle.io.safetensors import load_safetensors, save_safetensors

__all__ = ["load", "load_safetensors", "save", "save_safetensors"]
