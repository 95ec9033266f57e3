"""The survey as data: its taxonomy, its map, its tables and its figures, drawn by code."""
