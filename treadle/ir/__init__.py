"""The two representations: `node` (the tensor graph) and `loop` (one kernel as a loop nest)."""
