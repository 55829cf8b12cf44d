# What a person types. `.ci/run` is the whole of what must hold before a change lands.
.PHONY: test parity

TORCH = torch==2.13.0

test:
	uv run pytest -n auto

# Against PyTorch, which is installed into the project's environment when it is not there yet.
parity:
	uv sync --inexact
	uv run --no-sync python -c "import torch, expecttest" 2>/dev/null || \
	  uv pip install --torch-backend cpu "$(TORCH)" expecttest || \
	  uvx pip --python .venv/bin/python install "$(TORCH)" expecttest
	uv run --no-sync pytest tests/parity
