"""Tests that need no VM, no root and no network."""
