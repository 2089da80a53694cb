"""The parts of make_goldens.py: inputs, oracle models and file writers."""
