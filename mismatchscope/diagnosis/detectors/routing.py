"""Tokens that other experts served."""
