"""Graph passes: nodes to a plan of fused kernels; and capture, which recognises a trace."""
