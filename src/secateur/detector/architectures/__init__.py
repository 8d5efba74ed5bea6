"""Architectures of networks: each file here registers one kind."""
