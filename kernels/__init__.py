"""Triton kernels of the optimal denoiser, and the passes made of them. README.md derives the bounds they rest on."""
