"""`studies/mnist_strategies.py` with its space narrowed to one question a file, see the README."""
