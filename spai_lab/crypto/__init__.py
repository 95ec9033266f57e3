"""Cryptography for learning: parties that talk over a channel, written from scratch to be read.

Semi-honest parties, unauthenticated channels, no protection against side channels: never for real secrets.
"""
