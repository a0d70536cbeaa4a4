"""The report's cards: one module a figure, with its finding, its data and its alt text."""
