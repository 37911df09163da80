"""CUDA: the toolkit that was asked for, a kernel that computes, libraries that fit."""
